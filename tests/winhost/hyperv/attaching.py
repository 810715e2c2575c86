"""What Hyper-V checks and does when a drive is attached: its place, its file, and who may open that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.winhost import files
from tests.winhost.engine import CmdletError, not_emulated
from tests.winhost.files import Files
from tests.winhost.hyperv import disks, starting, storage
from tests.winhost.hyperv.disks import DiskFault
from tests.winhost.hyperv.failures import failed, invalid
from tests.winhost.hyperv.model import VM
from tests.winhost.hyperv.storage import CONTROLLERS, LOCATIONS, ControllerType, Drive, HardDisk, Place
from tests.winhost.state import Host

Known = Callable[[Host, str], Sequence[Drive]]
DISK, DVD = "Virtual Hard Disk", "Virtual CD/DVD Disk"


def free_place(
    host: Host, vm: VM, kind: ControllerType | None, number: int | None, location: int | None, *, what: str
) -> Place:
    """The first free place of those that are left open; `kind` None: IDE first, where there is any."""
    kinds: list[ControllerType] = [kind] if kind else (["IDE", "SCSI"] if vm.generation == 1 else ["SCSI"])
    counts = {"IDE": CONTROLLERS["IDE"], "SCSI": storage.scsi_controllers(host, vm.id)}
    if number is not None and all(not 0 <= number < counts[one] for one in kinds):
        raise no_controller(vm, kinds[-1], number)
    if location is not None and all(not 0 <= location < LOCATIONS[one] for one in kinds):
        raise invalid(f"The controller location {location} of '{vm.name}' is not valid: it is out of range.")
    taken = storage.taken(host, vm.id)
    for one in kinds:
        numbers = range(counts[one]) if number is None else [number] if number < counts[one] else []
        locations = range(LOCATIONS[one]) if location is None else [location]
        for place in (Place(one, controller, at) for controller in numbers for at in locations):
            if place not in taken:
                return place
    raise _taken(vm, what)


def no_controller(vm: VM, kind: str, number: int) -> CmdletError:
    return invalid(f"Hyper-V was unable to find the {kind} controller with number {number} of '{vm.name}'.")


def _taken(vm: VM, what: str) -> CmdletError:
    reason = "The controller location is in use by another drive, or the controller is full."
    return add_failed(vm, what, reason, reason, error_id="InvalidParameter", category="InvalidArgument")


def add_failed(
    vm: VM,
    device: str,
    short: str,
    long: str,
    *,
    error_id: str = "OperationFailed",
    category: str = "NotSpecified",
) -> CmdletError:
    """The text says it twice, the second time with the machine's id, as on Windows."""
    number = f"(Virtual machine ID {vm.id.upper()})"
    lines = [
        f"Failed to add device '{device}'.",
        short,
        f"'{vm.name}' failed to add device '{device}'. {number}",
    ]
    lines.append(f"'{vm.name}': {long} {number}")
    return failed("\r\n\r\n".join(lines), error_id=error_id, category=category)


def disk_path(
    host: Host, vm: VM, given: str | None, *, unverified: bool = False, instead_of: HardDisk | None = None
) -> str | None:
    """The full path of a disk that can be attached; None: a drive without a disk. Raises CmdletError."""
    if not given:
        return None
    path = files.full_path(host, given)
    own = [one for one in storage.hard_disks(host, vm.id) if one is not instead_of and one.path]
    if any(str(one.path).lower() == path.lower() for one in own):
        reason = f"The disk is already connected to the virtual machine '{vm.name}'. "
        reason += "Remove the disk and try again."
        raise add_failed(vm, DISK, reason, reason, error_id="InvalidParameter", category="InvalidArgument")
    if unverified:
        return path
    try:
        local = disks.existing(host, path)
        disks.describe(host, path)
        if set(host.part(Files).users(local)) - {vm.id}:
            raise DiskFault(disks.SHARING_VIOLATION)
    except DiskFault as exc:
        raise _attachment(vm, DISK, path, exc) from exc
    return path


def dvd_path(host: Host, vm: VM, given: str | None, *, unverified: bool = False) -> str | None:
    """The full path of a medium; None: an empty drive. Raises CmdletError."""
    if not given:
        return None
    if len(given) <= 3 and given[1:2] == ":":
        raise not_emulated("the host's own DVD drive in a machine")
    path = files.full_path(host, given)
    try:
        if not unverified:
            disks.existing(host, path)
    except DiskFault as exc:
        raise _attachment(vm, DVD, path, exc) from exc
    return path


def _attachment(vm: VM, device: str, path: str, fault: DiskFault) -> CmdletError:
    code = f"(0x{fault.code:08X})"
    if fault.code in (disks.FILE_NOT_FOUND[0], disks.PATH_NOT_FOUND[0]):
        long = f"Attachment '{path}' not found. Error: '{fault.text}' {code}."
        short = f"Attachment '{path}' not found. Error: '{fault.text}'."
        return add_failed(vm, device, short, long, error_id="ObjectNotFound", category="ObjectNotFound")
    reason = f"Attachment '{path}' failed to open because of error: '{fault.text}'"
    return add_failed(vm, device, f"{reason}.", f"{reason} {code}.")


def grant_disk(host: Host, vm: VM, path: str | None) -> None:
    """The machine's account may use the disk and all that it is a child of."""
    while path:
        _grant(host, vm, path, "Read, Write, Synchronize")
        try:
            path = disks.describe(host, path).parent_path
        except DiskFault:
            return  # unverified, or gone meanwhile: its start will say so


def grant_dvd(host: Host, vm: VM, path: str | None) -> None:
    if path:
        _grant(host, vm, path, "Read, Synchronize")


def _grant(host: Host, vm: VM, path: str, rights: str) -> None:
    """From Server 2019 on the worker process needs it for its capability, too."""
    files.grant(host, path, starting.account(vm), rights)
    if host.version != "2016":
        files.grant(host, path, starting.WORKER, rights)
