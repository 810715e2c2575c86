"""The cmdlets of virtual hard disks: New-, Get-, Set-, Resize-, Convert- and Test-VHD, on real files.

Not emulated, and so loud: Mount-VHD and all that works on mounted disks, disks made from physical ones,
Resize-VHD of a running machine's disk, Optimize- and Merge-VHD.
Error ids and texts are those seen on real hosts where a source was found; the others follow their pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from tests.winhost import files
from tests.winhost.engine import Call, CmdletError, Enum, Item, UInt32, UInt64, emulates, not_emulated
from tests.winhost.files import Files
from tests.winhost.hyperv import disks, vhdfile
from tests.winhost.hyperv.disks import DiskFault, Spec
from tests.winhost.hyperv.failures import failed, invalid
from tests.winhost.hyperv.storage import Storage
from tests.winhost.state import Host

_ITEM = "Microsoft.Vhd.PowerShell.VirtualHardDisk"
_EXTENSIONS = (".vhd", ".vhdx", ".avhd", ".avhdx")


def disk_failed(summary: str, verb: str, path: str, fault: DiskFault) -> CmdletError:
    """The text says it twice, as on Windows: the job's summary, then its error."""
    short = f"The system failed to {verb} '{path}'"
    message = f"{summary}\r\n\r\n{short}.\r\n\r\n{summary}\r\n\r\n{short}: {fault.text} (0x{fault.code:08X})."
    if fault.code == disks.INVALID[0]:
        return invalid(message)
    return failed(message)


def disk_item(host: Host, path: str) -> Item:
    """Raises DiskFault."""
    disk, local = disks.describe(host, path), disks.existing(host, path)
    minimum = disks.minimum_size(host, path) if not files.unfit(host, local) else None
    fixed = disk.kind == "Fixed"
    properties = {
        "ComputerName": host.name,
        "Path": files.full_path(host, path),
        "VhdFormat": Enum("VhdFormat", disk.format),
        "VhdType": Enum("VhdType", disk.kind),
        "FileSize": UInt64(_file_size(host, path)),
        "Size": UInt64(disk.size),
        "MinimumSize": None if minimum is None else UInt64(minimum),
        "LogicalSectorSize": UInt32(disk.logical_sector),
        "PhysicalSectorSize": UInt32(disk.physical_sector),
        "BlockSize": UInt32(0 if fixed else disk.block_size),
        "ParentPath": disk.parent_path,
        "DiskIdentifier": str(disk.identifier).upper(),
        "FragmentationPercentage": UInt32(0),
        "Alignment": UInt32(1),
        "Attached": bool(host.part(Files).users(local)),
        "DiskNumber": None,
        "IsPMEMCompatible": False,
        "AddressAbstractionType": Enum("VirtualHardDiskPmemAddressAbstractionType", "None"),
    }
    return Item(_ITEM, files.full_path(host, path), properties)


def _file_size(host: Host, path: str) -> int:
    disk, local = disks.describe(host, path), disks.existing(host, path)
    if disk.kind != "Differencing":
        return local.stat().st_size
    return local.stat().st_size + disks.allocated(disks.overlay_of(host, disk))


def checked_path(host: Host, path: str) -> str:
    """The full path of a disk. Raises CmdletError where its name has no extension of one."""
    full = files.full_path(host, path)
    if not full.lower().endswith(_EXTENSIONS):
        raise invalid(f"The file name extension of '{full}' is not one of a virtual hard disk.")
    return full


@emulates("New-VHD")
def new_vhd(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    if call.has("SourceDisk"):
        raise not_emulated("New-VHD -SourceDisk")
    parent = call.get("ParentPath")
    spec = Spec(
        kind="Differencing" if parent else "Fixed" if call.switch("Fixed") else "Dynamic",
        size=call.get("SizeBytes"),
        block_size=call.get("BlockSizeBytes"),
        logical_sector=_number(call.get("LogicalSectorSizeBytes")),
        physical_sector=_number(call.get("PhysicalSectorSizeBytes")),
        parent=files.full_path(host, parent) if parent else None,
    )
    for given in call.list("Path"):
        path = checked_path(host, given)
        try:
            disks.create(host, path, spec)
            yield disk_item(host, path)
        except DiskFault as exc:
            yield disk_failed("Failed to create the virtual hard disk.", "create", path, exc)


def _number(value: object) -> int | None:
    return None if value is None else int(str(value))


@emulates("Get-VHD")
def get_vhd(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    if call.has("DiskNumber"):
        raise not_emulated("Get-VHD -DiskNumber")
    for given in _paths(host, call):
        path = checked_path(host, given)
        try:
            yield disk_item(host, path)
        except DiskFault as exc:
            yield _unreadable(path, exc)


def _unreadable(path: str, fault: DiskFault) -> CmdletError:
    message = f"Getting the mounted storage instance for the path '{path}' failed."
    match fault.code:
        case 0x80070002 | 0x80070003:
            message += "\r\nThe operation failed because the file was not found."
            return failed(message, error_id="ObjectNotFound", category="ObjectNotFound")
        case 0x80070020:
            message += "\r\nThe operation cannot be performed while the object is in use."
            return failed(message, error_id="ObjectInUse", category="ResourceBusy")
    return failed(f"{message}\r\n{fault.text} (0x{fault.code:08X}).")


def _paths(host: Host, call: Call) -> list[str]:
    if not call.has("VMId"):
        return [str(path) for path in call.list("Path")]
    wanted = {str(one).lower() for one in call.list("VMId")}
    return [one.path for one in host.part(Storage).hard_disks if one.vm.lower() in wanted and one.path]


@emulates("Test-VHD")
def check_vhd(host: Host, call: Call) -> Iterator[bool | CmdletError]:
    if call.has("SupportPersistentReservations"):
        raise not_emulated("Test-VHD -SupportPersistentReservations")
    for given in call.list("Path"):
        path = checked_path(host, given)
        try:
            disks.image(host, path)
            yield True
        except DiskFault as exc:
            yield disk_failed("Failed to validate the virtual hard disk.", "validate", path, exc)
            yield False


@emulates("Set-VHD")
def set_vhd(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    path = checked_path(host, call.parameters["Path"])
    try:
        _need_free(host, path)
        _set(host, call, path)
        if call.switch("Passthru"):
            yield disk_item(host, path)
    except DiskFault as exc:
        summary = "Failed to set new settings for the virtual hard disk."
        yield disk_failed(summary, "set new settings for", path, exc)


def _set(host: Host, call: Call, path: str) -> None:
    if call.has("ParentPath"):
        if call.has("LeafPath"):
            raise not_emulated("Set-VHD -LeafPath")
        parent = files.full_path(host, call.parameters["ParentPath"])
        disks.set_parent(host, path, parent, ignore_mismatch=call.switch("IgnoreIdMismatch"))
    elif call.has("PhysicalSectorSizeBytes"):
        if not disks.is_vhdx(path):
            raise DiskFault(disks.INVALID)
        size = int(call.parameters["PhysicalSectorSizeBytes"])
        vhdfile.set_physical_sector(disks.existing(host, path), size)
    elif not call.switch("Force"):
        raise prompted()
    else:
        disks.set_identifier(host, path, uuid4())


def prompted() -> CmdletError:
    """What a cmdlet's own question ends in where nobody can answer; -Confirm:$false does not help."""
    return failed(
        "Windows PowerShell is in NonInteractive mode. Read and Prompt functionality is not available.",
        error_id="InvalidOperation",
        category="InvalidOperation",
    )


@emulates("Resize-VHD")
def resize_vhd(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    for given in call.list("Path"):
        path = checked_path(host, given)
        try:
            if host.part(Files).users(disks.existing(host, path)):
                raise not_emulated("Resize-VHD of a running machine's disk")
            disks.resize(host, path, _new_size(host, call, path))
            if call.switch("Passthru"):
                yield disk_item(host, path)
        except DiskFault as exc:
            yield disk_failed("Failed to resize the virtual disk.", "resize", path, exc)


def _new_size(host: Host, call: Call, path: str) -> int:
    disk, least = disks.describe(host, path), disks.minimum_size(host, path)
    if call.switch("ToMinimumSize"):
        if least is None or disk.format == "VHD":
            raise DiskFault(disks.INVALID)
        return least
    size = int(call.parameters["SizeBytes"])
    if disk.format == "VHD" and (size <= disk.size or disk.kind == "Differencing"):
        raise invalid(_ONLY_VHDX.format(path=path))
    if size < (least or 0):
        raise DiskFault(disks.WOULD_TRUNCATE)
    sectors = (disk.logical_sector, disk.physical_sector)
    return disks.checked_size(path, Spec(size=size, logical_sector=sectors[0], physical_sector=sectors[1]))


_ONLY_VHDX = (
    "Failed to resize the virtual disk.\r\n\r\nThe system failed to resize '{path}'.\r\n\r\nThe requested "
    "operation cannot be performed as resize operation to new size that is smaller than or equal to the "
    "current size is supported only on virtual hard disks that are of VHDX format."
)


@emulates("Convert-VHD")
def convert_vhd(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    source = checked_path(host, call.parameters["Path"])
    target = checked_path(host, call.parameters["DestinationPath"])
    parent = call.get("ParentPath")
    try:
        _need_free(host, source)
        kind = call.get("VHDType") or disks.describe(host, source).kind
        if (kind == "Differencing") != bool(parent):
            kind = "Dynamic" if not call.has("VHDType") else "Unknown"
        if kind == "Unknown":
            raise DiskFault(disks.INVALID)
        full = files.full_path(host, parent) if parent else None
        disks.convert(host, source, target, Spec(kind, block_size=call.get("BlockSizeBytes"), parent=full))
        if call.switch("DeleteSource"):
            disks.existing(host, source).unlink()
        if call.switch("Passthru"):
            yield disk_item(host, target)
    except DiskFault as exc:
        yield disk_failed("Failed to convert the virtual disk.", "convert", source, exc)


def _need_free(host: Host, path: str) -> None:
    """Neither a machine nor a process has the disk open."""
    local = disks.existing(host, path)
    if host.part(Files).users(local) or files.opened_elsewhere(local):
        raise DiskFault(disks.SHARING_VIOLATION)
