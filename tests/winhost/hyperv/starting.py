"""What Hyper-V looks at before a machine starts: memory, attachments, access; and what it opens."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid5

from tests.winhost import files
from tests.winhost.engine import CmdletError
from tests.winhost.files import Files, InUse
from tests.winhost.hyperv import disks, qemu, storage
from tests.winhost.hyperv.disks import DiskFault
from tests.winhost.hyperv.failures import EXCEPTION, failed
from tests.winhost.hyperv.model import VM
from tests.winhost.hyperv.qemu import Hardware
from tests.winhost.state import Host
from vmproxy.hosts.linux.vm import free_memory

_LONGEST_SOCKET = 107
_PIPE = "\\\\.\\pipe\\"


def account(vm: VM) -> str:
    """The account as which a machine's worker process opens its files."""
    return f"NT VIRTUAL MACHINE\\{vm.id.upper()}"


def check_memory(host: Host, vm: VM, running: Iterable[VM]) -> None:
    """Raises CmdletError where the host, or this machine, has too little."""
    left = min(host.memory - sum(one.memory.startup for one in running), free_memory())
    if vm.memory.startup <= left:
        return
    size = vm.memory.startup >> 20
    raise CmdletError(
        f"'{vm.name}' failed to start.\r\n\r\nNot enough memory in the system to start the virtual machine "
        f"{vm.name} with ram size {size} megabytes.\r\n\r\n'{vm.name}' could not initialize. (Virtual "
        f"machine ID {vm.id.upper()})\r\n\r\nNot enough memory in the system to start the virtual machine "
        f"{vm.name} with ram size {size} megabytes. (Virtual machine ID {vm.id.upper()})",
        exception=EXCEPTION,
        error_id="OutOfMemory",
        category="FromStdErr",
        terminating=False,
    )


def prepare(host: Host, vm: VM, stack: ExitStack) -> Hardware:
    """Open everything that the machine needs; `stack` closes it. Raises CmdletError in Hyper-V's words."""
    hardware = Hardware(vm, _folder(host, vm), networked=host.switch_namespace is not None)
    hardware.scsi_controllers = storage.scsi_controllers(host, vm.id)
    hardware.pipes = {port: _pipe(host, path) for port, path in vm.com_ports.items() if path}
    for port, pipe in hardware.pipes.items():
        if pipe.exists():
            raise _pipe_taken(vm, port)
        hardware.console_log(port).unlink(missing_ok=True)
        stack.callback(pipe.unlink, missing_ok=True)
    for disk in storage.hard_disks(host, vm.id):
        if disk.path is not None:
            hardware.disks.append((disk, open_disk(host, vm, disk, stack)))
    for dvd in storage.dvds(host, vm.id):
        hardware.dvds.append((dvd, open_dvd(host, vm, dvd, stack) if dvd.path else None))
    return hardware


def opened_files(hardware: Hardware) -> list[Path]:
    media = [medium for _, medium in hardware.dvds if medium]
    return [*(path for _, image in hardware.disks for path in image.files), *media]


def _folder(host: Host, vm: VM) -> Path:
    """The machine's own, with what its firmware remembers; short, since sockets' paths must be."""
    folder = host.folder / f"vm-{vm.id[:8]}"
    folder.mkdir(exist_ok=True)
    if vm.generation == 2 and not (folder / "efivars.fd").exists():
        shutil.copyfile(qemu.VARIABLES, folder / "efivars.fd")
    return folder


def _pipe(host: Host, path: str) -> Path:
    r"""Where .NET looks for \\.\pipe\NAME: in the folder that is TMPDIR for the host's processes."""
    if not path.lower().startswith(_PIPE):
        raise failed(f"'{path}' is not a valid path of a named pipe.", error_id="InvalidParameter")
    socket = host.folder / "t" / f"CoreFxPipe_{path[len(_PIPE) :]}"
    if len(str(socket)) > _LONGEST_SOCKET:
        raise ValueError(f"the path of the pipe's socket is too long: {socket}")
    socket.parent.mkdir(exist_ok=True)
    return socket


def _pipe_taken(vm: VM, port: int) -> CmdletError:
    reason = (
        f"Microsoft Serial Port (COM {port}): Failed to Power on with Error 'All pipe instances are busy.'"
    )
    number = f"(Virtual machine ID {vm.id.upper()})"
    return failed(f"'{vm.name}' failed to start.\r\n\r\n'{vm.name}' {reason} (0x800700E7). {number}")


def open_disk(host: Host, vm: VM, disk: storage.HardDisk, stack: ExitStack) -> disks.Image:
    """The leaf of a chain is the machine's alone, its parents may have several children."""
    assert disk.path is not None
    try:
        image = disks.image(host, disk.path)
        _check_access(host, vm, disk.path)
        for path in image.files:
            _hold(host, vm, path, stack, shared=path != image.files[0])
    except DiskFault as exc:
        raise attachment_failed(vm, disk, exc) from exc
    return image


def open_dvd(host: Host, vm: VM, dvd: storage.Dvd, stack: ExitStack) -> Path:
    assert dvd.path is not None
    try:
        medium = disks.existing(host, dvd.path)
        _check_access(host, vm, dvd.path)
        _hold(host, vm, medium, stack, shared=True)
    except DiskFault as exc:
        raise attachment_failed(vm, dvd, exc) from exc
    return medium


WORKER = "S-1-15-3-1024-2268835264-3721307629-241982045-173645152-1490879176-104643441-2915960892-1612460704"
"""The capability of worker processes from Server 2019 on (hcsshim, grantvmgroupaccess.go)."""


def _check_access(host: Host, vm: VM, path: str) -> None:
    allowed = {account(vm), r"NT VIRTUAL MACHINE\Virtual Machines", "Everyone"}
    if not files.may_open(host, path, allowed):
        raise DiskFault(disks.ACCESS_DENIED)
    if host.version != "2016" and not files.may_open(host, path, {WORKER, "Everyone"}):
        raise DiskFault(disks.ACCESS_DENIED)


def _hold(host: Host, vm: VM, path: Path, stack: ExitStack, *, shared: bool) -> None:
    part = host.part(Files)
    try:
        part.hold(path, vm.id, shared=shared)
    except InUse as exc:
        raise DiskFault(disks.SHARING_VIOLATION) from exc
    stack.callback(part.release, path, vm.id)


def attachment_failed(vm: VM, drive: storage.Drive, fault: DiskFault) -> CmdletError:
    """Start-VM's text names the controller, then the file; and all of it twice."""
    name, number = vm.name, vm.id.upper()
    kind = "Synthetic SCSI Controller" if drive.place.controller == "SCSI" else "Emulated IDE Controller"
    device = f"{kind} (Instance ID {controller_id(vm, drive.place)})"
    code, vm_id = f"(0x{fault.code:08X})", f"(Virtual machine ID {number})"
    if fault.code == disks.ACCESS_DENIED[0]:
        reason = f"User account does not have permission required to open attachment '{drive.path}'. Error: "
        short, long = f"{reason}'{fault.text}'.", f"{reason}'{fault.text}' {code}."
    else:
        reason = f"Attachment '{drive.path}' failed to open because of error: "
        short, long = f"{reason}'{fault.text}'.", f"{reason}'{fault.text}' {code}."
    lines = [
        f"'{name}' failed to start.",
        f"{device}: Failed to Power on with Error '{fault.text}'.",
        short,
        f"'{name}' failed to start. {vm_id}",
        f"'{name}' {device}: Failed to Power on with Error '{fault.text}' {code}. {vm_id}",
        f"'{name}': {long} {vm_id}",
    ]
    text = "\r\n\r\n".join(lines)
    if fault.code == disks.ACCESS_DENIED[0]:
        return failed(text, error_id="AccessDenied", category="PermissionDenied")
    return failed(text)


def controller_id(vm: VM, place: storage.Place) -> str:
    """Stable for one machine's controller."""

    return str(uuid5(UUID(vm.id), f"{place.controller}{place.number}")).upper()
