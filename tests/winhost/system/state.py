"""What is kept of the host's system: its stores, its processes and accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.winhost.state import Host
from tests.winhost.system import defaults
from tests.winhost.system.stores import Acls, Ping, Registry, Services, Store

_FILES = {
    "services": "WINPS_SERVICES",
    "registry": "WINPS_REGISTRY",
    "acls": "WINPS_ACLS",
    "ping": "WINPS_PING",
}


@dataclass(frozen=True)
class Process:
    name: str
    id: int
    command: str | None = None
    parent: int = 4


def _processes() -> list[Process]:
    svchost = r"C:\Windows\system32\svchost.exe -k netsvcs -p"
    return [
        Process("System Idle Process", 0, parent=0),
        Process("System", 4, parent=0),
        Process("smss.exe", 348),
        Process("csrss.exe", 460),
        Process("wininit.exe", 536),
        Process("services.exe", 668, parent=536),
        Process("lsass.exe", 676, r"C:\Windows\system32\lsass.exe", 536),
        Process("svchost.exe", 804, svchost, 668),
        Process("winrshost.exe", 3120, r"C:\Windows\system32\WinrsHost.exe -Embedding", 804),
    ]


@dataclass
class Account:
    """A local account, and the groups that it is in."""

    name: str
    sid: str
    groups: tuple[str, ...] = ("Users",)
    enabled: bool = True


@dataclass
class System:
    """Beside what C:, the network and Hyper-V have."""

    processes: list[Process] = field(default_factory=_processes)
    accounts: list[Account] = field(
        default_factory=lambda: [
            Account("Administrator", "S-1-5-21-1004336348-1177238915-682003330-500", ("Administrators",)),
            Account("Guest", "S-1-5-21-1004336348-1177238915-682003330-501", ("Guests",), enabled=False),
        ]
    )
    domain: str | None = None
    """None: in a workgroup."""
    model: str = "PowerEdge R650"
    manufacturer: str = "Dell Inc."
    boot_time: str = "2026-01-05T06:30:00Z"
    disk_size: int = 500 << 30
    free_space: int | None = None
    """None: what is free where the drive's folder is."""

    def start(self, name: str, command: str | None = None) -> Process:
        """A process more."""
        made = Process(name, max(one.id for one in self.processes) + 4, command, 668)
        self.processes.append(made)
        return made


@dataclass(frozen=True)
class Stores:
    """The files behind the service cmdlets, the registry, access rules and Test-Connection."""

    folder: Path
    services: Services
    registry: Registry
    acls: Acls
    ping: Ping

    @property
    def environment(self) -> dict[str, str]:
        """For every PowerShell process of the host."""
        return {variable: str(self.folder / f"{name}.json") for name, variable in _FILES.items()}


def install(host: Host, folder: Path) -> Stores:
    """Write a fresh host's files into the folder; from then on `host.services` looks there."""
    contents: Mapping[str, Mapping[str, Any]] = {
        "services": defaults.services(host.language),
        "registry": defaults.registry(host.version, host.name),
        "acls": defaults.acls(),
        "ping": {},
    }
    files = {name: Store(folder / f"{name}.json") for name in _FILES}
    for name, content in contents.items():
        files[name].write(content)
    services = Services(files["services"].file)
    host.services = services  # type: ignore[assignment]
    return Stores(folder, services, Registry(files["registry"]), Acls(files["acls"]), Ping(files["ping"]))
