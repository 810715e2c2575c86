"""Nodes with the real flanneld, beside a lab that is up: pods that are reached over its VXLAN alone.

One Node is on the lab's bridge, the other in a network behind the gateway. Only what tries `podRoutes:
flannel` needs them, so that `lab up` does not make them.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vmproxy import binaries
from vmproxy.errors import ToolFailed
from vmproxy.lab import objects
from vmproxy.lab.cluster import ControlPlane, apply_node, apply_objects
from vmproxy.lab.network import FLANNEL_NODES, FLANNEL_PODS, Network
from vmproxy.lab.processes import Process
from vmproxy.util import wait
from vmproxy.util.events import Report

SERVICES = {"web-flannel-1": "node-03", "web-flannel-2": "node-04"}
"""By the Node that its one pod is on."""
VNI, PORT = 42, 8473
"""Neither is the usual one: both have to be found."""
POD_CIDRS = {
    node: f"{pod.rpartition('.')[0]}.0/24"
    for node, pod in zip(FLANNEL_NODES, FLANNEL_PODS.values(), strict=True)
}
_NAMESPACE = "kube-flannel"
_ANNOTATION = "flannel.alpha.coreos.com/public-ip"
_READY_SECONDS = 60.0
_IPTABLES = "iptables"
"""flanneld wants to remove its older rules with it."""


@dataclass(frozen=True)
class Flannel:
    """`folder` holds logs and configuration."""

    folder: Path
    network: Network
    control: ControlPlane

    def up(self, report: Report) -> None:
        """Create what is missing, and wait until both Nodes are announced.

        Raises VmproxyError if a program is not available or goes on exiting.
        """
        if shutil.which(_IPTABLES) is None:
            raise ToolFailed(f"cannot start flannel: {_IPTABLES} is missing", hint=f"install {_IPTABLES}")
        program = binaries.obtain("flanneld", binaries.FLANNEL_VERSION, report=report).path
        report("starting flannel")
        self.network.flannel_up()
        self._start_backends()
        with self.control.api() as api:
            apply_objects(api, [*_manifest(), *_services()])
            for node in FLANNEL_NODES:
                apply_node(api, *_node(node))
        for node in FLANNEL_NODES:
            self._start(node, program)
        wait.until("flannel", lambda: self._ready(program), timeout=_READY_SECONDS, every=0.2)

    def down(self, report: Report) -> None:
        """Remove what was made, in whatever state it is."""
        with self.control.api() as api:
            for path in _paths():
                api.delete(path)
        for process in (*map(self.process, FLANNEL_NODES), *self._backends()):
            process.stop()
        self.network.flannel_down(report)

    def _start(self, node: str, program: Path) -> None:
        """flanneld of that Node, unless it runs."""
        (self.folder / "net-conf.json").write_text(_net_conf())
        words: list[str | Path] = [
            *("env", f"NODE_NAME={node}", program, "--kube-subnet-mgr", "--ip-masq", "--iface=eth0"),
            f"--kubeconfig-file={self.control.kubeconfig_for('flannel')}",
            f"--net-config-path={self.folder / 'net-conf.json'}",
            f"--subnet-file={self.folder / f'flannel-{node}.env'}",
        ]
        self.process(node).start(words)

    def process(self, node: str) -> Process:
        """flanneld of that Node."""
        return Process(f"flannel-{node}", self.folder, self.network.namespace(node))

    def _backends(self) -> list[Process]:
        return [Process(pod, self.folder, self.network.namespace(pod)) for pod in FLANNEL_PODS]

    def _start_backends(self) -> None:
        for process in self._backends():
            ports = (str(objects.HTTP_PORT), str(objects.UDP_PORT))
            process.start([sys.executable, "-m", "vmproxy.lab.backend", process.name, *ports])

    def _ready(self, program: Path) -> bool | str:
        """One that exited is started again, as its DaemonSet does it in a cluster."""
        for node in FLANNEL_NODES:
            process = self.process(node)
            if not process.alive():
                told = process.last_lines()
                self._start(node, program)
                return "; ".join([f"{process.name} exited", *told[-1:]])
        with self.control.api() as api:
            waits = [node for node in FLANNEL_NODES if _ANNOTATION not in _annotations(api, node)]
        return f"{', '.join(waits)}: not announced" if waits else True


def _node(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Node, and its status. flanneld v0.28.10 ends with a panic on a Node without any annotation; a
    kubelet writes this one."""
    node, status = objects.node(name, "linux", FLANNEL_NODES[name], POD_CIDRS[name])
    attached = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    return {**node, "metadata": {**node["metadata"], "annotations": attached}}, status


def _annotations(api: httpx.Client, node: str) -> dict[str, str]:
    metadata = api.get(f"/api/v1/nodes/{node}").raise_for_status().json()["metadata"]
    return dict(metadata.get("annotations") or {})


def _net_conf() -> str:
    backend = {"Type": "vxlan", "VNI": VNI, "Port": PORT}
    return json.dumps({"Network": "10.244.0.0/16", "EnableNFTables": True, "Backend": backend})


def _manifest() -> list[dict[str, Any]]:
    """As flannel's own, without what runs it."""
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "lab-flannel"}}
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-flannel-cfg", "namespace": _NAMESPACE},
            "data": {"net-conf.json": _net_conf()},
        },
        {**rbac, "kind": "ClusterRole", "rules": rules},
        {
            **rbac,
            "kind": "ClusterRoleBinding",
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "lab-flannel",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "lab:flannel"}],
        },
    ]


def _services() -> list[dict[str, Any]]:
    web = [("http", 80, objects.HTTP_PORT, "TCP")]
    return [
        item
        for (name, node), (pod, address) in zip(SERVICES.items(), FLANNEL_PODS.items(), strict=True)
        for item in objects.service_with_slice(name, web, {address: pod}, node)
    ]


def _paths() -> list[str]:
    """Of what the API has of it, but for the namespace, whose end nobody has to wait for."""
    demo, rbac = f"namespaces/{objects.NAMESPACE}", "/apis/rbac.authorization.k8s.io/v1"
    return [
        *(f"/api/v1/{demo}/services/{name}" for name in SERVICES),
        *(f"/apis/discovery.k8s.io/v1/{demo}/endpointslices/{name}-lab" for name in SERVICES),
        *(f"/api/v1/nodes/{node}" for node in FLANNEL_NODES),
        f"/api/v1/namespaces/{_NAMESPACE}/configmaps/kube-flannel-cfg",
        *(f"{rbac}/{plural}/lab-flannel" for plural in ("clusterrolebindings", "clusterroles")),
    ]
