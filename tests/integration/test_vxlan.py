"""What keeps routes over flannel's VXLAN, with the real kernel, `ip` and `bridge`, in network namespaces.

    switch 192.168.100.1/24, 172.31.0.1/24
 ┌──────────┬──────────┐
vm .5      host .10    node 172.31.0.24, flannel.42
                        │
                       pod 10.244.4.10
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import names
from tests.unit.guest.machine import PYTHON, Machine
from tests.unit.guest.watched import WatchedApi, watched
from vmproxy.lab.pki import Pki
from vmproxy.util import netns, wait
from vmproxy.util.run import run

pytestmark = pytest.mark.lab

ROLES = ("switch", "vm", "host", "node", "pod")
VM, NODE, POD, RANGE = "192.168.100.5", "172.31.0.24", "10.244.4.10", "10.244.4.0/24"
SERVICE = "10.96.0.50"
VNI, PORT = 42, 8473
RULES = f"""
table ip services {{
  chain before {{
    type nat hook prerouting priority dstnat;
    ip daddr {SERVICE} tcp dport 80 dnat to {POD}:8080
  }}
  chain after {{
    type nat hook postrouting priority srcnat;
    ct status dnat masquerade
  }}
}}
"""
"""As kube-proxy has them for one Service, with masqueradeAll."""


def namespace(role: str) -> str:
    return names.namespace(f"vxlan-{role}")


class Lan:
    """`guest` is the folder in which the VM's programs are at home."""

    def __init__(self, api: WatchedApi, guest: Machine) -> None:
        self.api = api
        self.guest = guest

    def ip(self, role: str, *words: str) -> str:
        return run(["ip", "-n", namespace(role), *words]).stdout

    def inside(self, role: str, *words: str) -> str:
        return run(netns.run_in(namespace(role), words)).stdout

    def shows(self, tool: str, *words: str) -> list[dict[str, Any]]:
        """In the VM; nothing where the device is not there."""
        command = netns.run_in(namespace("vm"), [tool, "-j", *words])
        done = subprocess.run(command, capture_output=True, check=False)
        return list(json.loads(done.stdout or "[]")) if done.returncode == 0 else []

    def mac(self) -> str:
        return str(json.loads(self.ip("node", "-j", "link", "show", f"flannel.{VNI}"))[0]["address"])

    def node(self, address: str = NODE) -> dict[str, Any]:
        notes = {
            "backend-type": "vxlan",
            "backend-data": json.dumps({"VNI": VNI, "VtepMAC": self.mac()}),
            "public-ip": address,
        }
        annotations = {f"flannel.alpha.coreos.com/{name}": value for name, value in notes.items()}
        return {"metadata": {"name": "node-04", "annotations": annotations}, "spec": {"podCIDRs": [RANGE]}}

    def state(self) -> tuple[object, ...]:
        """Of the VM: the device, routes, neighbours, and forwarding entries."""
        links = self.shows("ip", "-d", "link", "show", "dev", "vmproxy.1")
        data = [link["linkinfo"]["info_data"] for link in links if "UP" in link["flags"]]
        routes = self.shows("ip", "-4", "route", "show", "proto", "251")
        near = self.shows("ip", "-4", "neigh", "show", "dev", "vmproxy.1", "nud", "permanent")
        far = self.shows("bridge", "fdb", "show", "dev", "vmproxy.1")
        return (
            [(item.get("id"), item.get("port"), item.get("local"), links[0]["mtu"]) for item in data],
            [(item["dst"], item["gateway"], item["dev"]) for item in routes],
            [(item["dst"], item["lladdr"]) for item in near],
            sorted((item["mac"], item["dst"]) for item in far if "dst" in item),
        )

    def is_whole(self, address: str = NODE) -> bool | str:
        hop = RANGE.partition("/")[0]
        wanted = (
            [(VNI, PORT, VM, 1450)],
            [(RANGE, hop, "vmproxy.1")],
            [(hop, self.mac())],
            [(self.mac(), address)],
        )
        found = self.state()
        return found == wanted or str(found)

    def curl(self, path: str, *words: str) -> str:
        return self.inside("host", "curl", "-sSm", "20", *words, f"http://{SERVICE}{path}").strip()


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    pki = Pki(tmp_path_factory.mktemp("pki"))
    pki.make(server_names=("127.0.0.1",))
    with ExitStack() as stack:
        for role in ROLES:
            run(["ip", "netns", "add", namespace(role)])
            stack.callback(run, ["ip", "netns", "del", namespace(role)])
            run(["ip", "-n", namespace(role), "link", "set", "lo", "up"])
        api = stack.enter_context(watched(pki, namespace("vm")))
        found = Lan(api, Machine(tmp_path_factory.mktemp("guest")))
        _connect(found)
        for role, command in (("pod", _backend()), ("vm", _keeper(found.guest, api, pki))):
            process = subprocess.Popen(netns.run_in(namespace(role), command))
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield found


@pytest.fixture
def sends(lan: Lan) -> Lan:
    """Everything is there."""
    lan.api.put(lan.node())
    wait.until("the routes", lan.is_whole, timeout=60, every=0.05)
    wait.until("the backend", lambda: _answers(lan), timeout=60, every=0.1)
    return lan


def _answers(lan: Lan, seconds: int = 20) -> bool | str:
    try:
        return lan.curl("/hostname", "-m", str(seconds)) == "pod"
    except Exception as exc:  # curl's own words are of no use
        return str(exc)


def _backend() -> list[str]:
    return [sys.executable, "-m", "vmproxy.lab.backend", "pod", "8080", "9000"]


def _keeper(machine: Machine, api: WatchedApi, pki: Pki) -> list[str]:
    """podroutes.py, which looks by itself only once an hour."""
    config = {
        "mode": "flannel",
        "server": f"https://127.0.0.1:{api.port}",
        "ca": str(pki.certificate_file("ca")),
        "node": "win-01",
        "local": VM,
        "port": PORT,
        "aside": [],
        "refused": ["192.168.100.0/24", "10.96.0.0/16"],
    }
    machine.write("/etc/vmproxy/podroutes.json", json.dumps(config))
    machine.write("/etc/vmproxy/token", "t")
    machine.write("/sys/class/net/eth0/mtu", "1500\n")
    machine.write("/usr/local/lib/vmproxy/flannel.py", machine.text("flannel.py"))
    text = machine.text("podroutes.py")
    assert "\nLOOKS = 30.0\n" in text
    return [PYTHON, "-I", "-S", "-c", text.replace("\nLOOKS = 30.0\n", "\nLOOKS = 3600.0\n")]


def _connect(lan: Lan) -> None:
    lan.ip("switch", "link", "add", "br0", "type", "bridge")
    lan.ip("switch", "addr", "add", "192.168.100.1/24", "dev", "br0")
    lan.ip("switch", "link", "set", "br0", "up")
    for role, to, address, gateway in (
        ("vm", "switch", f"{VM}/24", "192.168.100.1"),
        ("host", "switch", "192.168.100.10/24", "192.168.100.1"),
        ("node", "switch", f"{NODE}/24", "172.31.0.1"),
        ("pod", "node", f"{POD}/24", "10.244.4.1"),
    ):
        peer = ("peer", "name", f"to-{role}", "netns", namespace(to))
        lan.ip(role, "link", "add", "eth0", "type", "veth", *peer)
        lan.ip(role, "addr", "add", address, "dev", "eth0")
        lan.ip(role, "link", "set", "eth0", "up")
        lan.ip(role, "route", "add", "default", "via", gateway)
        lan.ip(to, "link", "set", f"to-{role}", "up")
    for role in ("vm", "host"):
        lan.ip("switch", "link", "set", f"to-{role}", "master", "br0")
    lan.ip("switch", "addr", "add", "172.31.0.1/24", "dev", "to-node")
    lan.ip("node", "addr", "add", "10.244.4.1/24", "dev", "to-pod")
    for role in ("switch", "node", "vm"):
        forward = ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        lan.inside(role, "sysctl", "-qw", *forward, "net.ipv4.conf.all.rp_filter=0")
    vxlan = ("type", "vxlan", "id", str(VNI), "dev", "eth0", "local", NODE, "dstport", str(PORT))
    lan.ip("node", "link", "add", f"flannel.{VNI}", *vxlan, "nolearning")
    lan.ip("node", "addr", "add", "10.244.4.0/32", "dev", f"flannel.{VNI}")
    lan.ip("node", "link", "set", f"flannel.{VNI}", "mtu", "1450", "up")
    filter_by_reverse_path(lan, 2)
    lan.ip("host", "route", "add", "10.96.0.0/16", "via", VM)
    run(netns.run_in(namespace("vm"), ["nft", "-f", "-"]), stdin=RULES)


def filter_by_reverse_path(lan: Lan, value: int) -> None:
    """On the Node."""
    both = ("all", f"flannel/{VNI}")
    lan.inside("node", "sysctl", "-qw", *(f"net.ipv4.conf.{name}.rp_filter={value}" for name in both))


def test_a_pod_in_another_network_answers_the_vms_own_address(sends: Lan) -> None:
    assert sends.curl("/clientip") == VM


def test_what_does_not_fit_into_one_packet_arrives_both_ways(sends: Lan) -> None:
    """The pod's adapter takes 1500 bytes, and VXLAN leaves 1450 to what is sent to it."""
    assert len(sends.curl("/bytes/1000000")) == 1_000_000
    assert sends.curl("/hostname", "-H", f"X-Filling: {'x' * 60_000}") == "pod"
    assert "mtu 1450" in sends.ip("host", "route", "get", SERVICE)


def test_a_node_that_filters_strictly_by_the_reverse_path_drops_it(sends: Lan) -> None:
    filter_by_reverse_path(sends, 1)
    try:
        assert _answers(sends, 3) is not True
    finally:
        filter_by_reverse_path(sends, 2)
    assert _answers(sends) is True


def test_a_node_that_moves_goes_and_comes_is_followed(sends: Lan) -> None:
    sends.api.put(sends.node("172.31.0.99"))
    wait.until("the new address", lambda: sends.is_whole("172.31.0.99"), timeout=60, every=0.05)
    sends.api.delete("node-04")
    wait.until("all to go", lambda: (found := sends.state()) == ([], [], [], []) or str(found), timeout=60)
    sends.api.put(sends.node())
    wait.until("all to come", sends.is_whole, timeout=60, every=0.05)
    assert sends.curl("/clientip") == VM


NEXT, OTHER = "10.244.4.0", "02:00:00:00:00:ff"
INSTEAD = """for try in 1 2 3 4 5; do
    printf 'link del vmproxy.1\\nlink add vmproxy.1 up type {}' | ip -batch - && exit
    sleep 0.1
done
exit 1"""
"""At once; again where the device was made again in between."""


@pytest.mark.parametrize(
    "break_",
    [
        "ip link del vmproxy.1",
        INSTEAD.format("vxlan id 7 dev eth0 dstport 4789"),
        INSTEAD.format("bridge"),
        "ip link set vmproxy.1 down",
        "ip link set vmproxy.1 mtu 1400",
        "ip route flush proto 251",
        "ip neigh flush nud permanent dev vmproxy.1",
        f"ip neigh replace {NEXT} lladdr {OTHER} dev vmproxy.1 nud permanent",
        f"ip neigh add 10.9.9.9 lladdr {OTHER} dev vmproxy.1 nud permanent",
        "bridge fdb del {mac} dev vmproxy.1",
        "bridge fdb replace {mac} dev vmproxy.1 dst 192.0.2.1",
        f"bridge fdb add {OTHER} dev vmproxy.1 dst 192.0.2.1",
        "ip link set eth0 down; ip link set eth0 up; ip route add default via 192.168.100.1",
    ],
)
def test_what_is_changed_is_as_before_again_when_the_kernel_says_so(sends: Lan, break_: str) -> None:
    sends.inside("vm", "sh", "-c", break_.format(mac=sends.mac()))
    wait.until("all of it", sends.is_whole, timeout=60, every=0.05)
    wait.until("the pod", lambda: _answers(sends), timeout=60, every=0.1)
