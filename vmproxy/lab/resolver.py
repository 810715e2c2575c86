"""The lab's names: CoreDNS, the local network's DNS server, and the resolver of the host's namespace.

The host's resolver plays the part of Windows' DNS client: dnsmasq on its loopback, which asks the local
network's server for everything that no rule of its servers file says otherwise.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmproxy.errors import ToolFailed
from vmproxy.hosts.linux.names import PROGRAM, servers_file
from vmproxy.lab.cluster import ControlPlane
from vmproxy.lab.network import ADDRESSES, GATEWAY, Network
from vmproxy.lab.objects import COREFILE, DNS_PORT
from vmproxy.lab.processes import Process
from vmproxy.util import netns, wait
from vmproxy.util.events import Report

LOCAL_NAME, LOCAL_ADDRESS = "example.test", ADDRESSES["web-1"]
"""The one name that the local network's server knows."""
_ADDRESS = "127.0.0.1"
_READY_SECONDS = 60.0
_COMMON = (
    *("--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--pid-file="),
    *("--no-resolv", "--no-hosts", "--bind-interfaces"),
)


@dataclass(frozen=True)
class Names:
    """`folder` holds logs and configuration."""

    folder: Path
    network: Network
    control: ControlPlane
    coredns: Path

    def processes(self) -> list[Process]:
        return [self._process(name, role) for name, role in _RUNS_IN.items()]

    def up(self, report: Report) -> None:
        """Start the programs that do not run, and wait until CoreDNS answers."""
        report("starting CoreDNS, and the resolvers")
        (self.folder / "Corefile").write_text(COREFILE)
        _prepare(self.network)
        for name, command in self._commands().items():
            self._process(name, _RUNS_IN[name]).start(command)
        wait.until("the lab's DNS", self._ready, timeout=_READY_SECONDS, every=0.2)

    def _process(self, name: str, role: str) -> Process:
        return Process(name, self.folder, self.network.namespace(role))

    def _commands(self) -> dict[str, list[str | Path]]:
        rules = servers_file(self.network.namespace("host"))
        local = ["--server=/#/", f"--host-record={LOCAL_NAME},{LOCAL_ADDRESS}"]
        return {
            "coredns": [self.coredns, "-conf", self.folder / "Corefile"],
            "local-dns": [PROGRAM, *_COMMON, f"--listen-address={GATEWAY}", *local],
            "resolver": [
                *(PROGRAM, *_COMMON, f"--listen-address={_ADDRESS}", f"--server={GATEWAY}"),
                f"--servers-file={rules}",
            ],
        }

    def _ready(self) -> bool | str:
        """All listen: CoreDNS does when it has seen the cluster."""
        for process in self.processes():
            if not process.alive():
                raise ToolFailed(f"cannot start the lab: {process.name} exited", details=process.last_lines())
        for role, address, port in (
            ("dns", ADDRESSES["dns"], DNS_PORT),
            ("switch", GATEWAY, 53),
            ("host", _ADDRESS, 53),
        ):
            try:
                netns.connect(self.network.namespace(role), (address, port), timeout=2.0).close()
            except OSError as exc:
                return f"nothing listens at {address}:{port}: {exc}"
        return True


_RUNS_IN = {"coredns": "dns", "local-dns": "switch", "resolver": "host"}


def _prepare(network: Network) -> None:
    """Programs in the host's namespace ask its resolver: `ip netns exec` gives them this file."""
    host = network.namespace("host")
    etc, rules = _etc(host), servers_file(host)
    etc.mkdir(parents=True, exist_ok=True)
    file = etc / "resolv.conf"
    if not file.exists():  # else of a resolver that plays that part instead, such as an emulated host's
        file.write_text(f"nameserver {_ADDRESS}\noptions timeout:2 attempts:2\n")
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.touch()


def forget(network: Network) -> None:
    """The files outside the lab's folder."""
    host = network.namespace("host")
    for folder in (_etc(host), servers_file(host).parent):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another lab's is in it
            folder.parent.rmdir()


def _etc(namespace: str) -> Path:
    return Path("/etc/netns", namespace)
