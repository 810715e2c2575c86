r"""Files of the emulated host: Windows paths, attributes, free space, access rules, and who has a file open.

A file that a virtual machine uses is locked as Windows locks it, as far as Linux can:
- an exclusive flock: .NET takes a lock at each open, so reading, copying and moving it end in the sharing
  violation, with Windows' text. A DVD's image is held shared: reading it works, as on Windows.
- a read-only bind mount of the file onto itself: it can be neither deleted, renamed, replaced nor written,
  by anybody. These end in an IOException as on Windows, with Linux's text ("Device or resource busy").
The mount counts in this process's mount namespace: programs of the host must be started in it
(`nsenter --net`, not `ip netns exec`, which makes a namespace of mounts of its own).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.winhost.programs.small import is_sparse
from tests.winhost.state import Host
from vmproxy.util.run import run

Attribute = Literal["Compressed", "Encrypted", "SparseFile", "IntegrityStream"]
_UNFIT: frozenset[Attribute] = frozenset({"Compressed", "Encrypted", "SparseFile", "IntegrityStream"})
_SHARING_VIOLATION = 32


class InUse(OSError):
    """Another process has the file open."""


@dataclass
class Held:
    """One file that machines use; `users` says which (a parent disk and a DVD may have several)."""

    lock: int
    shared: bool
    users: list[str] = field(default_factory=list)
    mounted: bool = False


@dataclass
class Files:
    """The part of `Host` about files. Keys are paths on this machine."""

    capacity: dict[str, int] = field(default_factory=dict)
    """A drive's size in bytes; one that is not here is as large as the file system it lies on."""
    attributes: dict[Path, set[Attribute]] = field(default_factory=dict)
    """NTFS attributes that keep Hyper-V from using a file, as a test sets them."""
    acls: Path | None = None
    """The JSON file of access rules (WINPS_ACLS); None: nobody looks at access."""
    held: dict[Path, Held] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Its own: a machine that ends closes its files while a cmdlet that waits for that has the host's."""

    def hold(self, path: Path, user: str, *, shared: bool = False) -> None:
        """Open a file for a machine. Raises InUse when another process or machine has it."""
        with self.lock:
            known = self.held.get(path)
            if known is not None and not (shared and known.shared):
                raise InUse(_SHARING_VIOLATION, "in use", str(path))
            if known is None:
                known = self.held[path] = Held(_locked(path, shared=shared), shared)
            known.users.append(user)

    def pin(self, path: Path) -> bool:
        """Keep a held file from being deleted, renamed or written, once its machine has opened it.

        True when this call did it: then somebody has to see to `unpin_command`, whatever happens.
        """
        with self.lock:
            one = self.held[path]
            if one.mounted:
                return False
            run(["mount", "--bind", path, path])
            one.mounted = True
            run(["mount", "-o", "remount,bind,ro", path])
            return True

    def release(self, path: Path, user: str) -> bool:
        """A machine closes a file; True when nobody holds it any more."""
        with self.lock:
            one = self.held.get(path)
            if one is None or user not in one.users:
                return False
            one.users.remove(user)
            if one.users:
                return False
            if one.mounted:
                run(unpin_command(path), ok=(0, 32))
            os.close(one.lock)
            del self.held[path]
            return True

    def users(self, path: Path) -> list[str]:
        """The machines that have a file open."""
        with self.lock:
            one = self.held.get(path)
            return list(one.users) if one else []


def unpin_command(path: Path) -> list[str]:
    return ["umount", "--lazy", str(path)]


def _locked(path: Path, *, shared: bool) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise InUse(_SHARING_VIOLATION, "in use", str(path)) from exc
    return lock


def windows_path(host: Host, path: Path) -> str:
    r"""C:\… for a file of a drive."""
    for letter, root in host.drives.items():
        if path == root or root in path.parents:
            return f"{letter}:\\" + str(path.relative_to(root)).replace("/", "\\").removeprefix(".")
    raise ValueError(f"{path} is on no drive")


def full_path(host: Host, path: str) -> str:
    r"""As Hyper-V stores it: absolute, with backslashes; a relative one starts at the drive's root.

    The bridge resolves relative paths against PowerShell's place before they come here.
    """
    path = path.replace("/", "\\")
    if len(path) > 1 and path[1] == ":":
        return path[0].upper() + path[1:]
    return f"{min(host.drives)}:\\{path.lstrip(chr(92))}"


def unfit(host: Host, path: Path) -> bool:
    """Compressed, encrypted or sparse, itself or a folder above it: Hyper-V refuses it with 0xC03A001A."""
    attributes = host.part(Files).attributes
    if any(attributes.get(one, set()) & _UNFIT for one in (path, *path.parents)):
        return True
    return path.exists() and is_sparse(path)


@contextmanager
def limited(host: Host, drive: str, size: int) -> Iterator[None]:
    """The drive is no larger than `size` bytes, and really full then; what is on it comes along.

    Whatever is written meanwhile is gone afterwards.
    """
    root = host.drives[drive.upper()]
    with tempfile.TemporaryDirectory(prefix="winhost-drive-") as folder:
        run(["cp", "-a", f"{root}/.", folder])
        run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", root])
        try:
            run(["cp", "-a", f"{folder}/.", root])
            yield
        finally:
            run(["umount", "--lazy", root])


def free_bytes(host: Host, drive: str) -> int:
    """What still fits on a drive. Sizes count as written, as on a drive without sparse files."""
    root = host.drives[drive.upper()]
    on_disk = os.statvfs(root)
    real = on_disk.f_bavail * on_disk.f_frsize
    capacity = host.part(Files).capacity.get(drive.upper())
    return real if capacity is None else max(0, min(real, capacity - _used(root)))


def size_bytes(host: Host, drive: str) -> int:
    """How large a drive is."""
    on_disk = os.statvfs(host.drives[drive.upper()])
    return host.part(Files).capacity.get(drive.upper(), on_disk.f_blocks * on_disk.f_frsize)


def drive_of(path: str) -> str:
    return path[0].upper()


def grant(host: Host, path: str, account: str, rights: str) -> None:
    """Add an access rule to a file, beside those that it has."""

    def change(rules: dict[str, Any]) -> None:
        key = next((one for one in rules if one.lower() == path.lower()), path)
        own = rules.setdefault(key, dict(_NO_RULES, rules=[]))
        rule = {"identity": account, "rights": rights, "type": "Allow"}
        if not any(one["identity"].lower() == account.lower() for one in own["rules"]):
            own["rules"].append({**rule, "inheritance": "None", "propagation": "None"})

    _change_acls(host, change)


def may_open(host: Host, path: str, accounts: set[str]) -> bool:
    """One of `accounts` has a rule of its own on the file or, inherited, on a folder above it."""
    acls = host.part(Files).acls
    if acls is None:
        return True
    rules = {key.lower(): value for key, value in _read_acls(acls).items()}
    wanted = {account.lower() for account in accounts}
    key, of_file = path.lower(), True
    while True:
        own = rules.get(key, _NO_RULES)
        if any(_counts(rule, wanted, of_file=of_file) for rule in own["rules"]):
            return True
        above = key.rpartition("\\")[0]
        if own["protected"] or not above or above == key:
            return False
        key, of_file = above, False


_NO_RULES: dict[str, Any] = {
    "owner": r"BUILTIN\Administrators",
    "group": r"BUILTIN\Administrators",
    "protected": False,
    "rules": [],
}


def _counts(rule: dict[str, Any], accounts: set[str], *, of_file: bool) -> bool:
    inherited = of_file or "ObjectInherit" in rule.get("inheritance", "")
    return inherited and rule.get("type", "Allow") == "Allow" and rule["identity"].lower() in accounts


def _read_acls(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8-sig")) if file.exists() else {}
    return loaded


def _change_acls(host: Host, change: Callable[[dict[str, Any]], None]) -> None:
    file = host.part(Files).acls
    if file is None:
        return
    with _turn(file.with_name(file.name + ".lock")):
        rules = _read_acls(file)
        change(rules)
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(rules, indent=2) + "\n")
        part.replace(file)


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """The lock that PowerShell's processes take to change the rules."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def opened_elsewhere(path: Path, *, patience: float = 0.0) -> bool:
    """A process of the host has the file open without sharing it; looked at again for `patience` seconds."""
    end = time.monotonic() + patience
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    return True
                time.sleep(0.05)
            else:
                return False
    finally:
        os.close(descriptor)


def _used(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            entry = Path(folder, name)
            if not entry.is_symlink() and entry.is_file():
                total += entry.stat().st_size
    return total
