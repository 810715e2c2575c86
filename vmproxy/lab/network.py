"""The lab's network: namespaces, a bridge, and what is connected to it. It changes nothing outside.

           switch namespace: br0 192.168.100.1/24 (the gateway, which has no routes to pods)
  ┌──────────┬───────────┬──────────┬──────────┬───────────┬──────────┬─────────┬─────────┐
control     host        node      node-02     web-1       web-2     client      dns    (the VM's tap)
.2          .10         .20        .21        .31         .32       .40         .53       .5
                         │          │
                         │          pod-3 172.16.192.7, which is not in that node's podCIDR
                  pod-1, pod-2 10.244.1.10, .11
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from vmproxy.lab.processes import end
from vmproxy.util import netns
from vmproxy.util.events import Report
from vmproxy.util.run import run

BRIDGE = "br0"
GATEWAY = "192.168.100.1"
GATEWAY_MAC = "02:00:c0:a8:64:01"
"""Set, as a bridge without one takes that of a port, and another when a port with a lower one comes."""
ADDRESSES = {
    "control": "192.168.100.2",
    "host": "192.168.100.10",
    "node": "192.168.100.20",
    "node-02": "192.168.100.21",
    "web-1": "192.168.100.31",
    "web-2": "192.168.100.32",
    "client": "192.168.100.40",
    "dns": "192.168.100.53",
}
PODS = {"pod-1": "10.244.1.10", "pod-2": "10.244.1.11"}
POD_CIDR = "10.244.1.0/24"
POD_GATEWAY = "10.244.1.1"
STRAY_PODS = {"pod-3": "172.16.192.7"}
"""As a network plugin gives addresses that has pools of its own: not from its node's podCIDR."""
STRAY_POD_CIDR = "10.244.2.0/24"
STRAY_POD_GATEWAY = "169.254.1.1"
REMOTE_GATEWAY = "172.31.0.1"
FLANNEL_NODES = {"node-03": "192.168.100.23", "node-04": "172.31.0.24"}
"""Only where flannel is up. The second one is in a network of its own, behind the switch namespace."""
FLANNEL_PODS = {"pod-4": "10.244.3.10", "pod-5": "10.244.4.10"}
VM_ADDRESS = "192.168.100.5/24"
MOVED_CONTROL = "192.168.100.3"
"""A second address in the API server's certificate, to test another `cluster.server`."""


@dataclass(frozen=True)
class Network:
    """The namespaces of the given lab."""

    lab: str

    def namespace(self, role: str) -> str:
        return f"vmproxy-{self.lab}-{role}"

    @property
    def roles(self) -> tuple[str, ...]:
        return ("switch", *ADDRESSES, *PODS, *STRAY_PODS)

    def namespaces(self) -> dict[str, str]:
        return {role: self.namespace(role) for role in self.roles}

    def is_up(self) -> bool:
        return all(netns.exists(name) for name in self.namespaces().values())

    def up(self) -> None:
        """Create what is missing."""
        for role in self.roles:
            self._namespace_up(role)
        self._bridge_up()
        for role, address in ADDRESSES.items():
            self._connect(role, "switch", f"{address}/24", gateway=GATEWAY, bridge=BRIDGE)
        self._pods_up("node", PODS, POD_GATEWAY)
        self._pods_up("node-02", STRAY_PODS, STRAY_POD_GATEWAY)

    def flannel_up(self) -> None:
        """Nodes for flannel, and a pod behind each. The reverse path is filtered loosely there, not at all
        in the gateway, which has no routes to pods."""
        gateways = {"node-03": GATEWAY, "node-04": REMOTE_GATEWAY}
        for (role, address), pod in zip(FLANNEL_NODES.items(), FLANNEL_PODS, strict=True):
            self._namespace_up(role)
            self._namespace_up(pod)
            bridge = BRIDGE if gateways[role] == GATEWAY else None
            self._connect(role, "switch", f"{address}/24", gateway=gateways[role], bridge=bridge)
            node = self.namespace(role)
            run(netns.run_in(node, ["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2"]))
            own = FLANNEL_PODS[pod].rpartition(".")[0] + ".1"
            self._pods_up(role, {pod: FLANNEL_PODS[pod]}, own)
        switch, port = self.namespace("switch"), "to-node-04"
        run(["ip", "-n", switch, "addr", "replace", f"{REMOTE_GATEWAY}/24", "dev", port])
        names = [f"net.ipv4.conf.{name}.rp_filter=0" for name in ("all", port)]
        run(netns.run_in(switch, ["sysctl", "-qw", *names]))

    def flannel_down(self, report: Report) -> None:
        self._remove({self.namespace(role) for role in (*FLANNEL_NODES, *FLANNEL_PODS)}, report)

    def down(self, report: Report) -> None:
        self.flannel_down(report)
        self._remove(set(self.namespaces().values()), report)

    def _remove(self, namespaces: set[str], report: Report) -> None:
        """End every process in them, then delete them with their content."""
        there = [name for name in _all() if name in namespaces]
        pids = [
            int(pid) for name in there for pid in run(["ip", "netns", "pids", name], ok=(0, 1)).stdout.split()
        ]
        if pids:
            report(f"ending {len(pids)} processes in the lab's namespaces")
            end([pid for pid in pids if pid != os.getpid()])
        for name in there:
            run(["ip", "netns", "del", name])

    def _namespace_up(self, role: str) -> None:
        name = self.namespace(role)
        if not netns.exists(name):
            run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])

    def _bridge_up(self) -> None:
        switch = self.namespace("switch")
        if not _has_link(switch, BRIDGE):
            kind = ("type", "bridge", "vlan_default_pvid", "1")
            run(["ip", "-n", switch, "link", "add", BRIDGE, "address", GATEWAY_MAC, *kind])
        run(["ip", "-n", switch, "addr", "replace", f"{GATEWAY}/24", "dev", BRIDGE])
        run(["ip", "-n", switch, "link", "set", BRIDGE, "up"])
        run(
            netns.run_in(
                switch,
                [
                    "sysctl",
                    "-qw",
                    "net.ipv4.ip_forward=1",
                    "net.ipv4.conf.all.send_redirects=0",
                    f"net.ipv4.conf.{BRIDGE}.send_redirects=0",
                ],
            )
        )

    def _connect(self, role: str, to: str, address: str, *, gateway: str, bridge: str | None) -> None:
        """A veth pair from `role` (as eth0) to the namespace of `to` (named after the role)."""
        inside, outside, port = self.namespace(role), self.namespace(to), f"to-{role}"
        _pair(inside, outside, port)
        if bridge:
            run(["ip", "-n", outside, "link", "set", port, "master", bridge])
        run(["ip", "-n", outside, "link", "set", port, "up"])
        run(["ip", "-n", inside, "addr", "replace", address, "dev", "eth0"])
        run(["ip", "-n", inside, "link", "set", "eth0", "up"])
        run(["ip", "-n", inside, "route", "replace", "default", "via", gateway])

    def _pods_up(self, role: str, pods: dict[str, str], gateway: str) -> None:
        """Pods behind a node, which routes to each and is their gateway."""
        node = self.namespace(role)
        run(
            netns.run_in(
                node, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"]
            )
        )
        run(["ip", "-n", node, "addr", "replace", f"{gateway}/32", "dev", "lo"])
        for pod, address in pods.items():
            self.connect_pod(pod, address, node, gateway)

    def connect_pod(self, role: str, address: str, node: str, gateway: str) -> None:
        """A pod's namespace behind that of a node, wherever it was before."""
        inside = self.namespace(role)
        _pair(inside, node, f"to-{role}")
        run(["ip", "-n", node, "link", "set", f"to-{role}", "up"])
        run(["ip", "-n", inside, "addr", "replace", f"{address}/32", "dev", "eth0"])
        run(["ip", "-n", inside, "link", "set", "eth0", "up"])
        run(["ip", "-n", inside, "route", "replace", f"{gateway}/32", "dev", "eth0", "scope", "link"])
        run(["ip", "-n", inside, "route", "replace", "default", "via", gateway])
        run(["ip", "-n", node, "route", "replace", f"{address}/32", "dev", f"to-{role}"])


def _all() -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _pair(inside: str, outside: str, port: str) -> None:
    """A veth pair: eth0 in one namespace, `port` in the other. What is left of a pair is removed: of a
    namespace that was deleted, the kernel removes the links later."""
    if _has_link(inside, "eth0") and _has_link(outside, port):
        return
    for namespace, link in ((inside, "eth0"), (outside, port)):
        run(["ip", "-n", namespace, "link", "del", link], ok=(0, 1))
    pair = ["eth0", "type", "veth", "peer", "name", port, "netns", outside]
    run(["ip", "-n", inside, "link", "add", *pair])


def _has_link(namespace: str, name: str) -> bool:
    shown = run(["ip", "-n", namespace, "-j", "link", "show"]).stdout
    return any(link["ifname"] == name for link in json.loads(shown or "[]"))
