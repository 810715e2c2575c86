"""What New-VM makes: the machine, its folder, its first disk and adapter; all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.winhost import files
from tests.winhost.engine import Call, CmdletError, not_emulated
from tests.winhost.hyperv import attaching, disks, find, storage
from tests.winhost.hyperv.disks import DiskFault, Spec
from tests.winhost.hyperv.failures import failed, invalid
from tests.winhost.hyperv.host import CONFIGURATIONS
from tests.winhost.hyperv.items import default_adapter_name
from tests.winhost.hyperv.model import VM, Adapter, Memory, MiB, hyperv
from tests.winhost.hyperv.parts import set_memory
from tests.winhost.hyperv.storage import Dvd, HardDisk, Place
from tests.winhost.state import Host

_LONGEST_NAME = 100
_NOT_MADE = "Failed to create a new virtual machine.\r\n\r\n"


def made(host: Host, call: Call) -> VM:
    """The new machine; what is wrong with the call leaves nothing behind."""
    for name in ("Prerelease", "Experimental"):
        if call.switch(name):
            raise not_emulated(f"New-VM -{name}")
    for name in ("GuestStateIsolationType", "SourceGuestStatePath"):
        if call.has(name):
            raise not_emulated(f"New-VM -{name}")
    vm = _machine(host, call)
    switch = find.switch(host, call) if call.has("SwitchName") else None
    legacy = vm.generation == 1 and call.get("BootDevice") == "LegacyNetworkAdapter"
    name = default_adapter_name(host)
    vm.adapters.append(Adapter(vm.id, name, switch.id if switch else None, legacy=legacy))
    _check_boot_device(call, vm)
    with _undone_on_failure(host, vm):
        _add_disk(host, call, vm)
        if vm.generation == 1:
            host.part(storage.Storage).dvds.append(Dvd(vm.id, Place("IDE", 1, 0)))
        _order_boot(host, call, vm)
        _write_files(host, vm)
        _grant_folder(host, call)
    hyperv(host).vms[vm.id] = vm
    return vm


def _machine(host: Host, call: Call) -> VM:
    name = checked_name(str(call.get("Name", "New Virtual Machine")))
    version = str(call.get("Version", CONFIGURATIONS[host.version][-1]))
    if version not in CONFIGURATIONS[host.version]:
        raise invalid(f"The version {version} is not supported on this host.", version)
    size = call.get("MemoryStartupBytes", 512 * MiB)
    memory = Memory(size, minimum=min(size, 512 * MiB))
    vm = VM(name, int(call.get("Generation", 1)), _folder(host, call, name), memory, version=version)
    vm.checkpoint_folder = vm.paging_folder = vm.folder
    set_memory(host, vm, {"StartupBytes": size}, only_check=True)
    return vm


def checked_name(name: str) -> str:
    r"""Of a machine. A backslash is refused, as the name becomes a folder's."""
    if not name or len(name) > _LONGEST_NAME or set(name) & set('\\/:*?"<>|'):
        raise invalid(f"The name '{name}' is not valid for a virtual machine.", name)
    return name


def _folder(host: Host, call: Call, name: str) -> str:
    if not call.has("Path"):
        folder = hyperv(host).machines_folder
        if not _local(host, folder).is_dir():
            raise no_such_folder(folder)
        return folder
    path = str(call.get("Path")).rstrip("\\/")
    require_drive(host, path)
    return f"{path}\\{name}"


def require_drive(host: Host, path: str) -> None:
    """A folder that cannot be made, as its drive is not there."""
    _local(host, path)


def _local(host: Host, path: str) -> Path:
    try:
        return host.local(path)
    except FileNotFoundError as exc:
        raise no_such_folder(path) from exc


def no_such_folder(path: str) -> CmdletError:
    text = (
        f"Failed to create a new virtual machine.\r\n\r\nThe system cannot find the path specified: '{path}'"
    )
    return failed(f"{text} (0x80070003).", error_id="ObjectNotFound", category="ObjectNotFound")


def _check_boot_device(call: Call, vm: VM) -> None:
    device = call.get("BootDevice")
    fit = {1: {"CD", "Floppy", "IDE", "LegacyNetworkAdapter"}, 2: {"CD", "NetworkAdapter", "VHD"}}
    if device is not None and device not in fit[vm.generation]:
        raise invalid(
            f"The boot device {device} is not valid for a Generation {vm.generation} virtual machine.", device
        )


@contextmanager
def _undone_on_failure(host: Host, vm: VM) -> Iterator[None]:
    try:
        yield
    except BaseException:
        storage.forget(host, vm.id)
        forget_files(host, vm)
        raise


def _add_disk(host: Host, call: Call, vm: VM) -> None:
    if call.has("NewVHDPath"):
        path: str | None = _new_disk(host, vm, str(call.get("NewVHDPath")), int(call.get("NewVHDSizeBytes")))
    else:
        path = attaching.disk_path(host, vm, call.get("VHDPath"))
    if path is None:
        return
    place = Place("SCSI" if vm.generation == 2 else "IDE", 0, 0)
    host.part(storage.Storage).hard_disks.append(HardDisk(vm.id, place, path))
    attaching.grant_disk(host, vm, path)


def _new_disk(host: Host, vm: VM, given: str, size: int) -> str:
    r"""A dynamic disk; a path without a folder is in the host's folder for disks."""
    path = files.full_path(host, given if "\\" in given else f"{hyperv(host).disks_folder}\\{given}")
    try:
        disks.create(host, path, Spec(size=size))
    except DiskFault as exc:
        text = f"{_NOT_MADE}The system failed to create '{path}': {exc.text} (0x{exc.code:08X})."
        raise failed(text) from exc
    return path


def _order_boot(host: Host, call: Call, vm: VM) -> None:
    """A generation 2 machine tries its disk first, then the network, unless -BootDevice says otherwise."""
    if vm.generation != 2:
        return
    disk_ids = [one.id for one in storage.hard_disks(host, vm.id)]
    if call.get("BootDevice") == "CD":
        dvd = Dvd(vm.id, Place("SCSI", 0, 1 if disk_ids else 0))
        host.part(storage.Storage).dvds.append(dvd)
        disk_ids.insert(0, dvd.id)
    network = [one.id for one in vm.adapters]
    first, last = (network, disk_ids) if call.get("BootDevice") == "NetworkAdapter" else (disk_ids, network)
    vm.firmware.boot_order = [*first, *last]


def _configuration(host: Host, vm: VM) -> list[Path]:
    folder = _local(host, vm.folder) / "Virtual Machines"
    return [folder / f"{vm.id.upper()}{suffix}" for suffix in (".vmcx", ".vmgs", ".VMRS")]


def _write_files(host: Host, vm: VM) -> None:
    try:
        for file in _configuration(host, vm):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\0" * 4096)
        _local(host, vm.checkpoint_folder).joinpath("Snapshots").mkdir(exist_ok=True)
    except OSError as exc:
        raise failed(
            f"Failed to create a new virtual machine.\r\n\r\n{exc.strerror}: '{vm.folder}'."
        ) from exc


def _grant_folder(host: Host, call: Call) -> None:
    """The VMs' group may pass through the folder that was named, and the machine's own below it."""
    if call.has("Path"):
        folder = str(call.get("Path")).rstrip("\\/")
        files.grant(host, folder, r"NT VIRTUAL MACHINE\Virtual Machines", "ReadAndExecute, Synchronize")


def forget_files(host: Host, vm: VM) -> None:
    """The configuration goes; folders and disks stay."""
    for file in _configuration(host, vm):
        file.unlink(missing_ok=True)
