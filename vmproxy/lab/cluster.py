"""The lab's control plane: etcd, kube-apiserver, kube-controller-manager, and access from outside."""

from __future__ import annotations

import base64
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from vmproxy.errors import NotReady, ToolFailed
from vmproxy.lab.network import ADDRESSES, MOVED_CONTROL, Network
from vmproxy.lab.pki import Pki
from vmproxy.lab.processes import Process
from vmproxy.util import wait
from vmproxy.util.events import Report

SERVICE_CIDR = "10.96.0.0/16"
POD_CIDR = "10.244.0.0/16"
SERVER = f"https://{ADDRESSES['control']}:6443"
_ISSUER = "https://kubernetes.default.svc"
_READY_SECONDS = 90.0


@dataclass(frozen=True)
class ControlPlane:
    """`folder` holds data, logs and keys; `binaries` are the programs by name."""

    folder: Path
    network: Network
    binaries: dict[str, Path]

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def pki(self) -> Pki:
        return Pki(self.folder / "pki")

    def process(self, name: str) -> Process:
        inside = None if name == "relay" else self.network.namespace("control")
        return Process(name, self.folder, inside)

    def processes(self) -> list[Process]:
        return [self.process(name) for name in (*self._commands(), "relay")]

    def up(self, report: Report) -> None:
        """Start the programs that do not run, and wait until the API answers."""
        addresses = ("127.0.0.1", ADDRESSES["control"], MOVED_CONTROL, "10.96.0.1")
        names = (*addresses, "localhost", "kubernetes.default.svc")
        self.pki.make(server_names=names)
        self._start_relay()
        self._write_kubeconfigs()
        for name, command in self._commands().items():
            if not self.process(name).alive():
                report(f"starting {name}")
                self.process(name).start(command)
        report("waiting for the API server")
        wait.until("the API server", self._ready, timeout=_READY_SECONDS, every=0.3)

    def api(self) -> httpx.Client:
        """A client with administrator rights, through the relay."""
        context = ssl.create_default_context(cafile=str(self.pki.certificate_file("ca")))
        context.load_cert_chain(self.pki.certificate_file("admin"), self.pki.key_file("admin"))
        return httpx.Client(base_url=self._outside(), verify=context, timeout=20.0, trust_env=False)

    def kubeconfig_for(self, name: str) -> Path:
        """Of the user lab:NAME, as programs in the lab's namespaces need it."""
        path = self.folder / f"{name}.kubeconfig"
        self.pki.issue_once(name, f"lab:{name}")
        _write_kubeconfig(path, SERVER, self.pki, name)
        return path

    def _outside(self) -> str:
        return f"https://127.0.0.1:{self._port_file.read_text()}"

    @property
    def _port_file(self) -> Path:
        return self.folder / "relay.port"

    def _ready(self) -> bool | str:
        for name in self._commands():
            process = self.process(name)
            if not process.alive():
                raise ToolFailed(f"cannot start the lab: {name} exited", details=process.last_lines())
        try:
            with self.api() as api:
                answer = api.get("/readyz")
        except httpx.HTTPError as exc:
            return str(exc)
        return True if answer.status_code == httpx.codes.OK else f"/readyz returns {answer.status_code}"

    def _start_relay(self) -> None:
        relay = self.process("relay")
        address, port = ADDRESSES["control"], "6443"
        module = [sys.executable, "-m", "vmproxy.lab.relay"]
        if relay.alive():
            return
        before = self._port_file.stat().st_mtime_ns if self._port_file.exists() else 0
        relay.start([*module, self.network.namespace("control"), address, port, self._port_file])

        def probe() -> bool | str:
            if not relay.alive():
                raise ToolFailed("cannot start the lab: the relay exited", details=relay.last_lines())
            now = self._port_file.stat().st_mtime_ns if self._port_file.exists() else 0
            return now != before or "no port yet"

        wait.until("the relay to the API server", probe, timeout=20.0, every=0.05)

    def _write_kubeconfigs(self) -> None:
        _write_kubeconfig(self.kubeconfig, self._outside(), self.pki, "admin")
        _write_kubeconfig(
            self.folder / "controller-manager.kubeconfig", SERVER, self.pki, "controller-manager"
        )
        self.kubeconfig_for("coredns")

    def _commands(self) -> dict[str, list[str]]:
        pki = self.pki
        signing = pki.key_file("service-account")
        return {
            "etcd": _command(
                self.binaries["etcd"],
                data_dir=self.folder / "etcd",
                listen_client_urls="http://127.0.0.1:2379",
                advertise_client_urls="http://127.0.0.1:2379",
                listen_peer_urls="http://127.0.0.1:2380",
                unsafe_no_fsync="true",
                log_level="warn",
            ),
            "kube-apiserver": _command(
                self.binaries["kube-apiserver"],
                etcd_servers="http://127.0.0.1:2379",
                advertise_address=ADDRESSES["control"],
                secure_port="6443",
                service_cluster_ip_range=SERVICE_CIDR,
                authorization_mode="Node,RBAC",
                client_ca_file=pki.certificate_file("ca"),
                tls_cert_file=pki.certificate_file("apiserver"),
                tls_private_key_file=pki.key_file("apiserver"),
                service_account_key_file=signing.with_suffix(".pub"),
                service_account_signing_key_file=signing,
                service_account_issuer=_ISSUER,
            ),
            "kube-controller-manager": _command(
                self.binaries["kube-controller-manager"],
                kubeconfig=self.folder / "controller-manager.kubeconfig",
                service_account_private_key_file=signing,
                root_ca_file=pki.certificate_file("ca"),
                use_service_account_credentials="true",
                leader_elect="false",
            ),
        }


def apply_objects(api: httpx.Client, objects: list[dict[str, Any]]) -> None:
    """Server-side apply of each object. Raises NotReady with the API server's message."""
    for item in objects:
        path = _path(item)
        answer = api.patch(
            path,
            params={"fieldManager": "vmproxy-lab", "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            json=item,
        )
        if answer.is_error:
            raise NotReady(f"cannot create {path} in the lab: {answer.json().get('message', answer.text)}")


def apply_node(api: httpx.Client, node: dict[str, Any], status: dict[str, Any]) -> None:
    """A Node, and its status, which is a subresource of its own. Raises as `apply_objects`."""
    apply_objects(api, [node])
    path, kind = f"{_path(node)}/status", {"Content-Type": "application/merge-patch+json"}
    api.patch(path, json=status, headers=kind).raise_for_status()


_PLURALS = {
    "Namespace": "namespaces",
    "Node": "nodes",
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "ServiceCIDR": "servicecidrs",
    "ConfigMap": "configmaps",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}


def _path(item: dict[str, Any]) -> str:
    version, metadata = item["apiVersion"], item["metadata"]
    group = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{group}{namespace}/{_PLURALS[item['kind']]}/{metadata['name']}"


def _command(program: Path, **flags: object) -> list[str]:
    return [str(program), *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]


def _write_kubeconfig(path: Path, server: str, pki: Pki, user: str) -> None:
    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [
            {
                "name": "lab",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": inline(pki.certificate_file("ca")),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": inline(pki.certificate_file(user)),
                    "client-key-data": inline(pki.key_file(user)),
                },
            }
        ],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    }
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600)
    with part.open("w") as file:
        YAML().dump(config, file)
    part.replace(path)
