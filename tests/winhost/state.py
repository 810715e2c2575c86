"""One emulated Windows host: what every cmdlet looks at and changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tests.winhost import checks

if TYPE_CHECKING:
    from tests.winhost.engine import Call, CmdletFault

VERSIONS = ("2016", "2019", "2022", "2025")
Language = Literal["en-US", "de-DE"]
Part = TypeVar("Part")
GiB = 1 << 30


@dataclass
class Host:
    """The host's own facts; what belongs to one area is a part, made when it is first asked for."""

    version: str = "2022"
    name: str = "WIN-01"
    denies_localhost: bool = False
    """Hyper-V's cmdlets refuse `-ComputerName localhost`."""
    language: Language = "en-US"
    namespace: str | None = None
    """The network namespace that is the host; None: this process's own."""
    switch_namespace: str | None = None
    """Where virtual switches are: each a Linux bridge."""
    bridges: dict[str, str] = field(default_factory=dict)
    """External switches that exist from the start: their name, and the bridge in `switch_namespace`."""
    dns: tuple[str, ...] = ()
    """The DNS servers of its port on the external switch, from the start."""
    drives: dict[str, Path] = field(default_factory=dict)
    """Drive letter and the folder that is it."""
    folder: Path = Path("/nonexistent")
    """For the emulator's own files: sockets, logs, running machines."""
    memory: int = 16 * GiB
    processors: int = 8
    features: set[str] = field(default_factory=lambda: {"Hyper-V", "Hyper-V-PowerShell", "Containers"})
    """Installed roles and features, by the name that Get-WindowsFeature gives them."""
    services: dict[str, str] = field(default_factory=lambda: {"vmms": "Running", "hns": "Running"})
    """State of the services that cmdlets need."""
    faults: list[CmdletFault] = field(default_factory=list)
    """The switchboard for cmdlets: see engine.CmdletFault."""
    calls: list[Call] = field(default_factory=list)
    """Every call, in order."""
    mistakes: list[BaseException] = field(default_factory=list)
    """Exceptions of the emulator's own; a test asserts that there are none."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    checks: list[Callable[[Host, Call], None]] = field(
        default_factory=lambda: [checks.elsewhere, checks.resolved, checks.management_service]
    )
    """Run before each cmdlet; they raise CmdletError where none of its kind works."""
    parts: dict[type, Any] = field(default_factory=dict)

    def part(self, kind: type[Part]) -> Part:
        """An area's own state, a dataclass that can be made without arguments: `host.part(Routes)`."""
        with self.lock:
            if kind not in self.parts:
                self.parts[kind] = kind()
            part: Part = self.parts[kind]
            return part

    def require(self, call: Call) -> None:
        for check in self.checks:
            check(self, call)

    def local(self, path: str) -> Path:
        r"""The file of a Windows path: `C:\a\b` in the folder that is drive C, whatever its case."""
        drive, colon, rest = path.partition(":")
        if not colon or drive.upper() not in self.drives:
            raise FileNotFoundError(path)
        found = self.drives[drive.upper()]
        for name in filter(None, rest.replace("/", "\\").split("\\")):
            found = _entry(found, name)
        return found


def _entry(folder: Path, name: str) -> Path:
    """The entry of that name without regard to case; else where it would be."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    return next((one for one in folder.iterdir() if one.name.lower() == name.lower()), exact)
