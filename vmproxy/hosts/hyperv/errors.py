"""Hints for errors from Windows, by ids and codes, because those are not localized."""

from __future__ import annotations

from vmproxy.errors import Forbidden, NotReady, RemoteFailed, VmproxyError
from vmproxy.transport.powershell import SCANNER, PowerShellFailed, WindowsError

DISK_FULL = "80070070"
NO_HYPERVISOR = (
    "the hypervisor does not run: restart the host if the role is new, turn on virtualization in its "
    "firmware (or in the outer host, if it is a VM), and see that bcdedit has hypervisorlaunchtype Auto"
)
_DENIED = "80070005"
_NO_HYPERV = ("CommandNotFoundException", "CouldNotAutoLoadModule", "CouldNotAutoloadMatchingModule")
_ROLE = (
    "install the Hyper-V role with its PowerShell module: "
    "Install-WindowsFeature Hyper-V -IncludeManagementTools -Restart"
)
_MEMORY = "the host has too little memory: set vm.memory to less, or stop another VM"
_SHARING = "another program uses that file (a backup, a virus scanner): run it again after it ends"
_SERVICE_RIGHT = (
    "a group policy takes the right `Log on as a service` from VMs: add NT VIRTUAL MACHINE\\Virtual Machines "
    "(S-1-5-83-0) to it, then run gpupdate /force on the host"
)
_HINTS = {
    DISK_FULL: "free space on that drive, or set hyperv.directory to a folder on another one",
    "80070020": _SHARING,
    "c03a001a": "the folder is compressed or encrypted: use compact /u, cipher /d or another folder",
    "8007000e": _MEMORY,
    "800705aa": _MEMORY,
    "80070569": _SERVICE_RIGHT,
    "c0351000": NO_HYPERVISOR,
}
_BY_ID = {
    "OutOfMemory": _MEMORY,
    "ObjectInUse": "another administrator or a backup uses it: try again",
    "ScriptContainedMaliciousContent": SCANNER,
}
_RIGHTS = "the account must be a local administrator of the host, and SYSTEM needs access to the folder"


def explained(exc: PowerShellFailed, doing: str, host: str) -> VmproxyError:
    """`doing` is, for example, "start vm x"."""
    record = exc.record
    message = f"cannot {doing} on {host}: {record.message.strip()}"
    details = [f"{record.type} ({record.id})"]
    if _is_denied(record):
        return Forbidden(message, hint=_RIGHTS, details=details)
    if record.code == DISK_FULL:
        return NotReady(message, hint=_HINTS[DISK_FULL], details=details)
    return RemoteFailed(message, hint=_hint(record), details=details)


def is_disk_full(exc: PowerShellFailed) -> bool:
    return exc.record.code == DISK_FULL


def _is_denied(record: WindowsError) -> bool:
    """By code, category or id: Hyper-V reports missing rights as PermissionDenied."""
    return record.code == _DENIED or record.category == "PermissionDenied" or "AccessDenied" in record.id


def _hint(record: WindowsError) -> str | None:
    if record.id.split(",")[0] in _NO_HYPERV and "Hyper-V" in record.message:
        return _ROLE
    if hint := _BY_ID.get(record.id.split(",")[0]):
        return hint
    if record.code in _HINTS:
        return _HINTS[record.code]
    words = record.message.lower()
    return next((hint for code, hint in _HINTS.items() if f"0x{code}" in words), None)
