"""The cmdlets of a machine's drives: hard disks, DVDs and the controllers they are on.

A generation 1 machine has two IDE controllers of two places each, a generation 2 machine none; either has
up to four SCSI controllers of 64 places. Only what is on SCSI comes and goes while the machine runs; a DVD's
medium changes on any. A disk's other path is refused meanwhile, as is a disk that is attached twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.winhost.engine import Call, CmdletError, Item, Ref, emulates, not_emulated
from tests.winhost.hyperv import attaching, find, live, storage
from tests.winhost.hyperv.attaching import free_place
from tests.winhost.hyperv.drive_items import disk_item, dvd_item, ide_item, scsi_item
from tests.winhost.hyperv.failures import gone, invalid, wrong_state
from tests.winhost.hyperv.model import VM, hyperv
from tests.winhost.hyperv.storage import CONTROLLERS, Drive, Dvd, HardDisk, Place, Storage
from tests.winhost.state import Host

_ABOUT = {"VM", "VMName", "VMDriveController", "Passthru", "ComputerName", "CimSession", "Credential"}
_WHERE = {"ControllerType", "ControllerNumber", "ControllerLocation"}
_TO = {"ToControllerType", "ToControllerNumber", "ToControllerLocation"}
_PATH = {"Path", "AllowUnverifiedPaths"}


def hard_disk_items(host: Host, vm: VM) -> list[Item]:
    return [disk_item(host, vm, one) for one in storage.hard_disks(host, vm.id)]


def dvd_items(host: Host, vm: VM) -> list[Item]:
    return [dvd_item(host, vm, one) for one in storage.dvds(host, vm.id)]


# --- hard disks


@emulates("Get-VMHardDiskDrive")
def get_disks(host: Host, call: Call) -> Iterator[object]:
    yield from _shown(host, call, "Get-VMHardDiskDrive", storage.hard_disks)


@emulates("Add-VMHardDiskDrive")
def add_disk(host: Host, call: Call) -> Iterator[object]:
    _refuse(call, _ABOUT | _WHERE | _PATH | {"MinimumIOPS", "MaximumIOPS"})

    def add(vm: VM) -> Iterator[Item]:
        wanted = free_place(host, vm, _controller(call, vm, "hard disk"), *_asked(call), what="Hard Drive")
        path = attaching.disk_path(host, vm, call.get("Path"), unverified=call.switch("AllowUnverifiedPaths"))
        _require_hot(vm, wanted)
        disk = HardDisk(vm.id, wanted, path)
        disk.minimum_iops, disk.maximum_iops = call.get("MinimumIOPS"), call.get("MaximumIOPS")
        attaching.grant_disk(host, vm, path)
        live.attach_disk(host, vm, disk)
        host.part(Storage).hard_disks.append(disk)
        if call.switch("Passthru"):
            yield disk_item(host, vm, disk)

    yield from find.each(_machines(host, call), add)


@emulates("Set-VMHardDiskDrive")
def set_disk(host: Host, call: Call) -> Iterator[object]:
    _refuse(call, _ABOUT | _WHERE | _TO | _PATH | {"VMHardDiskDrive", "MinimumIOPS", "MaximumIOPS"})

    def change(drive: Drive) -> Iterator[Item]:
        vm = hyperv(host).vms[drive.vm]
        assert isinstance(drive, HardDisk)
        place = _moved(host, call, vm, drive)
        if vm.running and (call.has("Path") or place != drive.place):
            raise wrong_state(vm, doing="Failed to modify device 'Virtual Hard Disk'.")
        if call.has("Path"):
            unverified = call.switch("AllowUnverifiedPaths")
            path = attaching.disk_path(host, vm, call.get("Path"), unverified=unverified, instead_of=drive)
            attaching.grant_disk(host, vm, path)
            drive.path = path
        drive.place = place
        drive.minimum_iops = call.get("MinimumIOPS", drive.minimum_iops)
        drive.maximum_iops = call.get("MaximumIOPS", drive.maximum_iops)
        if call.switch("Passthru"):
            yield disk_item(host, vm, drive)

    yield from find.each(_drives(host, call, "VMHardDiskDrive", storage.hard_disks), change)


@emulates("Remove-VMHardDiskDrive")
def remove_disk(host: Host, call: Call) -> Iterator[object]:
    yield from _removed(host, call, "VMHardDiskDrive", storage.hard_disks)


# --- DVDs


@emulates("Get-VMDvdDrive")
def get_dvds(host: Host, call: Call) -> Iterator[object]:
    yield from _shown(host, call, "Get-VMDvdDrive", storage.dvds)


@emulates("Add-VMDvdDrive")
def add_dvd(host: Host, call: Call) -> Iterator[object]:
    _refuse(call, _ABOUT | _WHERE | _PATH)

    def add(vm: VM) -> Iterator[Item]:
        wanted = free_place(host, vm, _controller(call, vm, "DVD"), *_asked(call), what="DVD Drive")
        path = attaching.dvd_path(host, vm, call.get("Path"), unverified=call.switch("AllowUnverifiedPaths"))
        _require_hot(vm, wanted)
        dvd = Dvd(vm.id, wanted, path)
        attaching.grant_dvd(host, vm, path)
        live.attach_dvd(host, vm, dvd)
        host.part(Storage).dvds.append(dvd)
        if call.switch("Passthru"):
            yield dvd_item(host, vm, dvd)

    yield from find.each(_machines(host, call), add)


@emulates("Set-VMDvdDrive")
def set_dvd(host: Host, call: Call) -> Iterator[object]:
    r"""`-Path $null` takes the medium out."""
    _refuse(call, _ABOUT | _WHERE | _TO | _PATH | {"VMDvdDrive"})

    def change(drive: Drive) -> Iterator[Item]:
        vm = hyperv(host).vms[drive.vm]
        assert isinstance(drive, Dvd)
        place, before = _moved(host, call, vm, drive), drive.path
        if vm.running and place != drive.place:
            raise wrong_state(vm, doing="Failed to modify device 'Virtual CD/DVD Disk'.")
        if call.has("Path"):
            unverified = call.switch("AllowUnverifiedPaths")
            drive.path = attaching.dvd_path(host, vm, call.get("Path") or None, unverified=unverified)
            attaching.grant_dvd(host, vm, drive.path)
            _change_medium(host, vm, drive, before)
        drive.place = place
        if call.switch("Passthru"):
            yield dvd_item(host, vm, drive)

    yield from find.each(_drives(host, call, "VMDvdDrive", storage.dvds), change)


def _change_medium(host: Host, vm: VM, drive: Dvd, before: str | None) -> None:
    try:
        live.change_medium(host, vm, drive)
    except CmdletError:
        drive.path = before
        raise


@emulates("Remove-VMDvdDrive")
def remove_dvd(host: Host, call: Call) -> Iterator[object]:
    yield from _removed(host, call, "VMDvdDrive", storage.dvds)


# --- controllers


@emulates("Get-VMScsiController")
def get_scsi(host: Host, call: Call) -> Iterator[object]:
    _refuse(call, _ABOUT | {"ControllerNumber"})

    def shown(vm: VM) -> list[Item]:
        numbers = range(storage.scsi_controllers(host, vm.id))
        return [scsi_item(host, vm, one) for one in numbers if call.get("ControllerNumber", one) == one]

    yield from find.each(find.vms(host, call), shown)


@emulates("Get-VMIdeController")
def get_ide(host: Host, call: Call) -> Iterator[object]:
    _refuse(call, _ABOUT | {"ControllerNumber"})

    def shown(vm: VM) -> list[Item]:
        numbers = range(CONTROLLERS["IDE"] if vm.generation == 1 else 0)
        return [ide_item(host, vm, one) for one in numbers if call.get("ControllerNumber", one) == one]

    yield from find.each(find.vms(host, call), shown)


@emulates("Add-VMScsiController")
def add_scsi(host: Host, call: Call) -> Iterator[object]:
    def add(vm: VM) -> Iterator[Item]:
        number = storage.scsi_controllers(host, vm.id)
        if vm.running:
            raise wrong_state(vm, doing="Failed to add device 'SCSI Controller'.")
        if number == CONTROLLERS["SCSI"]:
            raise invalid(
                f"Failed to add device 'SCSI Controller'.\r\n\r\n'{vm.name}' has the most it can have."
            )
        host.part(Storage).scsi[vm.id] = number + 1
        if call.switch("Passthru"):
            yield scsi_item(host, vm, number)

    yield from find.each(find.vms(host, call), add)


@emulates("Remove-VMScsiController")
def remove_scsi(host: Host, call: Call) -> Iterator[object]:
    """The last one only, and without drives: Hyper-V numbers the others anew, which is not emulated."""
    for vm, number in _controllers(host, call, "VMScsiController"):
        last = storage.scsi_controllers(host, vm.id) - 1
        if number > last:
            yield attaching.no_controller(vm, "SCSI", number)
        elif vm.running:
            yield wrong_state(vm, doing="Failed to remove device 'SCSI Controller'.")
        elif number != last or any(one[:2] == ("SCSI", number) for one in storage.taken(host, vm.id)):
            raise not_emulated("Remove-VMScsiController of one that has drives, or is not the last")
        else:
            host.part(Storage).scsi[vm.id] = last


# --- which are meant


def _machines(host: Host, call: Call) -> Iterator[VM | CmdletError]:
    if not call.has("VMDriveController"):
        yield from find.vms(host, call)
        return
    yield from (vm for vm, _ in _controllers(host, call, "VMDriveController"))


def _controllers(host: Host, call: Call, parameter: str) -> Iterator[tuple[VM, int]]:
    """Machine and number of controllers that came as objects, or by name and number."""
    for ref in call.list(parameter):
        owner, _, number = _parts(ref)
        yield hyperv(host).vms[owner], number
    if not call.has(parameter):
        for vm in find.vms(host, call):
            if isinstance(vm, CmdletError):
                raise vm
            yield vm, int(call.parameters["ControllerNumber"])


def _parts(ref: object) -> tuple[str, str, int]:
    assert isinstance(ref, Ref)
    owner, controller, number = ref.id.split("/")
    return owner, controller, int(number)


def _asked(call: Call) -> tuple[int | None, int | None]:
    """Number and location, None where Hyper-V chooses."""
    refs = call.list("VMDriveController")
    number = _parts(refs[0])[2] if refs else call.get("ControllerNumber")
    return number, call.get("ControllerLocation")


def _controller(call: Call, vm: VM, what: str) -> storage.ControllerType | None:
    """The kind of controller that is asked for; None: any that such a drive can be on."""
    refs = call.list("VMDriveController")
    asked = _parts(refs[0])[1] if refs else call.get("ControllerType")
    if what == "DVD":
        asked = "SCSI" if vm.generation == 2 else "IDE"
    match str(asked).upper():
        case "NONE":
            return None
        case "IDE" if vm.generation == 2:
            raise invalid(f"'{vm.name}' is a Generation 2 virtual machine, which has no IDE controllers.")
        case "IDE":
            return "IDE"
    return "SCSI"


def _drives(host: Host, call: Call, parameter: str, known: attaching.Known) -> Iterator[Drive | CmdletError]:
    """Drives that came as objects, or those of a machine at the places that are asked for."""
    if call.has(parameter):
        part = host.part(Storage)
        by_id: dict[str, Drive] = {one.id: one for one in part.hard_disks}
        by_id |= {one.id: one for one in part.dvds}
        for ref in call.list(parameter):
            yield by_id.get(getattr(ref, "id", "")) or gone("drive")
        return
    for vm in find.vms(host, call):
        if isinstance(vm, CmdletError):
            yield vm
            continue
        found = [one for one in known(host, vm.id) if _is_asked(call, one)]
        yield from found
        if not found:
            yield invalid(f"Hyper-V was unable to find a drive of '{vm.name}' that is at the given place.")


def _is_asked(call: Call, drive: Drive) -> bool:
    place = drive.place
    kind = str(call.get("ControllerType", place.controller)).upper() == place.controller
    number = call.get("ControllerNumber", place.number) == place.number
    return kind and number and call.get("ControllerLocation", place.location) == place.location


def _shown(host: Host, call: Call, cmdlet: str, known: attaching.Known) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated(f"{cmdlet} -VMSnapshot")

    def shown(vm: VM) -> Iterable[Item]:
        on = {_parts(ref)[1:] for ref in call.list("VMDriveController")}
        found = [one for one in known(host, vm.id) if not on or one.place[:2] in on]
        return [_item(host, vm, one) for one in found if _is_asked(call, one)]

    yield from find.each(_machines(host, call), shown)


def _item(host: Host, vm: VM, drive: Drive) -> Item:
    if isinstance(drive, HardDisk):
        return disk_item(host, vm, drive)
    assert isinstance(drive, Dvd)
    return dvd_item(host, vm, drive)


def _moved(host: Host, call: Call, vm: VM, drive: Drive) -> Place:
    """Where the drive is to be: its place, changed by -ToController…"""
    if not _TO & set(call.parameters):
        return drive.place
    kind = str(call.get("ToControllerType", drive.place.controller)).upper()
    number = call.get("ToControllerNumber", drive.place.number)
    location = call.get("ToControllerLocation", drive.place.location)
    if kind == "IDE" and vm.generation == 2:
        raise invalid(f"'{vm.name}' is a Generation 2 virtual machine, which has no IDE controllers.")
    wanted = Place("IDE" if kind == "IDE" else "SCSI", number, location)
    if wanted == drive.place:
        return wanted
    return free_place(host, vm, wanted.controller, number, location, what="Drive")


def _removed(host: Host, call: Call, parameter: str, known: attaching.Known) -> Iterator[object]:
    def remove(drive: Drive) -> Iterator[Item]:
        vm, part = hyperv(host).vms[drive.vm], host.part(Storage)
        _require_hot(vm, drive.place, verb="remove")
        live.detach(host, vm, drive)
        part.hard_disks = [one for one in part.hard_disks if one is not drive]
        part.dvds = [one for one in part.dvds if one is not drive]
        if call.switch("Passthru"):
            yield _item(host, vm, drive)

    yield from find.each(list(_drives(host, call, parameter, known)), remove)


def _require_hot(vm: VM, place: Place, *, verb: str = "add") -> None:
    if vm.state == "Saved":
        raise wrong_state(vm, doing=f"Failed to {verb} device.")
    if vm.running and place.controller == "IDE":
        raise wrong_state(vm, doing=f"Failed to {verb} device on an IDE controller.")


def _refuse(call: Call, known: set[str]) -> None:
    unknown = set(call.parameters) - known
    if unknown:
        raise not_emulated(f"{call.cmdlet} -{', -'.join(sorted(unknown))}")
