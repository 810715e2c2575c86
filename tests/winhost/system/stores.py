r"""The host's registry, services, access rules and reachable names: JSON files that PowerShell reads too.

Access rules of a folder: in PowerShell, `$Acl = Get-Acl -LiteralPath C:\x`,
`$Acl.SetAccessRuleProtection($true, $false)` or `$Acl.SetSecurityDescriptorSddlForm('D:PAI(…)', 'Access')`,
then `Set-Acl -LiteralPath C:\x -AclObject $Acl`; `icacls.exe` does the same. They are read back with
`(Get-Acl -LiteralPath C:\x).Access`, and here as `Acls.rules(r"C:\x")`: those of the path itself, without
what it inherits. A new folder has none of its own: it inherits, and under C:\ProgramData that includes Users.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

Status = Literal["Stopped", "Running", "StartPending", "StopPending", "Paused"]


@dataclass(frozen=True)
class Store:
    """A JSON object in a file that several processes change: under a lock, replaced whole."""

    file: Path

    def read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.file.read_text())
        return content

    @contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        with open(f"{self.file}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = self.read()
            yield content
            self.write(content)

    def write(self, content: Mapping[str, Any]) -> None:
        new = self.file.with_name(f"{self.file.name}.{os.getpid()}.new")
        new.write_text(json.dumps(content, indent=1))
        new.rename(self.file)


class Service(TypedDict, total=False):
    """A service as the stand-in for PowerShell reads it."""

    displayName: str
    status: Status
    startType: Literal["Automatic", "Manual", "Disabled"]
    dependsOn: list[str]
    canStop: bool
    startError: str


class Services(MutableMapping[str, str]):
    """The status of each service by its name; looked up in the file each time."""

    def __init__(self, file: Path) -> None:
        self.store = Store(file)

    def __getitem__(self, name: str) -> str:
        content = self.all()
        return str(content[_find(content, name)]["status"])

    def __contains__(self, name: object) -> bool:
        return _find(self.all(), str(name)) in self.all()

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.all())

    def __setitem__(self, name: str, status: str) -> None:
        self.set(name, status=status)

    def __delitem__(self, name: str) -> None:
        with self.store.change() as content:
            del content[_find(content, name)]

    def all(self) -> dict[str, Service]:
        return self.store.read()

    def set(self, name: str, **changes: Any) -> None:
        """Change a service, or make one: `set("vmms", status="Stopped")`."""
        with self.store.change() as content:
            key = _find(content, name)
            made = {"displayName": name, "status": "Stopped", "startType": "Manual"}
            content[key] = {**content.get(key, made), **changes}


@dataclass(frozen=True)
class Registry:
    r"""Keys such as `HKLM:\SOFTWARE\X`, each with its values."""

    store: Store

    def get(self, key: str, name: str) -> Any:
        content = self.store.read()
        return content.get(_find(content, key), {}).get(name)

    def exists(self, key: str) -> bool:
        """It does while a key below it does."""
        start = f"{key}\\".lower()
        return any(f"{one}\\".lower().startswith(start) for one in self.store.read())

    def below(self, key: str) -> dict[str, dict[str, Any]]:
        """The keys right below that one, by their names, with their values."""
        start = f"{key}\\"
        return {
            one[len(start) :]: dict(values)
            for one, values in self.store.read().items()
            if one.lower().startswith(start.lower())
        }

    def remove(self, key: str) -> None:
        """With all below it."""
        with self.store.change() as content:
            for one in [one for one in content if f"{one}\\".lower().startswith(f"{key}\\".lower())]:
                del content[one]

    def set(self, key: str, **values: Any) -> None:
        """Set values; None takes one away."""
        with self.store.change() as content:
            there = content.setdefault(_find(content, key), {})
            for name, value in values.items():
                there.pop(name, None)
                if value is not None:
                    there[name] = value


@dataclass(frozen=True)
class Acls:
    store: Store

    def rules(self, path: str) -> list[dict[str, Any]]:
        """The path's own rules; empty where it only inherits."""
        content = self.store.read()
        return list(content.get(_find(content, path), {}).get("rules", []))

    def protected(self, path: str) -> bool:
        """Whether it inherits nothing."""
        content = self.store.read()
        return bool(content.get(_find(content, path), {}).get("protected"))


@dataclass(frozen=True)
class Ping:
    """What Test-Connection reaches."""

    store: Store

    def set(self, name: str, *, answers: bool) -> None:
        with self.store.change() as content:
            content[name] = answers


def _find(content: Mapping[str, Any], name: str) -> str:
    """The key of that name in whatever letters; else the name itself."""
    return next((one for one in content if one.lower() == name.lower()), name)
