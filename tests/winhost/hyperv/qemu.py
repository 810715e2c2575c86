"""The command line of the QEMU that is a virtual machine.

Secure Boot is state only: OVMF boots without it, whatever the machine's firmware settings say.
The devices are virtio's instead of VMBus's, at the same controllers and locations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.winhost.hyperv import taps
from tests.winhost.hyperv.disks import Image
from tests.winhost.hyperv.model import VM
from tests.winhost.hyperv.storage import Drive, Dvd, HardDisk
from vmproxy.hosts.linux.accel import accelerator

FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_COM_PORTS = {1: "0x3f8", 2: "0x2f8"}


@dataclass
class Hardware:
    """A machine with its files found: disks and DVDs in the order of their places."""

    vm: VM
    folder: Path
    disks: list[tuple[HardDisk, Image]] = field(default_factory=list)
    dvds: list[tuple[Dvd, Path | None]] = field(default_factory=list)
    scsi_controllers: int = 1
    pipes: dict[int, Path] = field(default_factory=dict)
    """COM port and the socket that is its named pipe."""
    networked: bool = False
    """There is a namespace for switches, and a tap for each adapter."""

    @property
    def monitor(self) -> Path:
        return self.folder / "qmp"

    def console_log(self, port: int) -> Path:
        return self.folder / f"com{port}.log"


def device_of(drive: Drive) -> str:
    """The name under which QEMU's monitor knows it."""
    return "d" + drive.id.replace("-", "")


def arguments(hardware: Hardware) -> list[str]:
    """What QEMU is told."""
    vm = hardware.vm
    accel, cpu = accelerator()
    words = ["-name", vm.name.replace(",", ",,"), "-accel", accel, "-cpu", cpu]
    words += ["-machine", "q35" if vm.generation == 2 else "pc"]
    words += ["-smp", str(vm.processor.count), "-m", f"{vm.memory.startup >> 20}M", "-uuid", vm.id]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc"]
    words += ["-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"]
    words += ["-qmp", f"unix:{hardware.monitor},server=on,wait=off"]
    if vm.generation == 2:
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}"]
        words += ["-drive", f"if=pflash,format=raw,file={escaped(hardware.folder / 'efivars.fd')}"]
    words += [*_storage(hardware), *_network(hardware), *_serial(hardware)]
    return words


def _storage(hardware: Hardware) -> list[str]:
    words: list[str] = []
    for number in range(hardware.scsi_controllers):
        words += ["-device", f"virtio-scsi-pci,id=scsi{number}"]
    for disk, image in hardware.disks:
        opened = (
            f"if=none,id=f{device_of(disk)},format={image.format},cache=unsafe,file={escaped(image.file)}"
        )
        words += ["-drive", opened, "-device", _drive(hardware.vm, disk, "hd")]
    for dvd, medium in hardware.dvds:
        opened = f"if=none,id=f{device_of(dvd)},media=cdrom,readonly=on"
        opened += f",format=raw,file={escaped(medium)}" if medium else ""
        words += ["-drive", opened, "-device", _drive(hardware.vm, dvd, "cd")]
    return words


def _drive(vm: VM, drive: Drive, kind: str) -> str:
    place = drive.place
    if place.controller == "IDE":
        at = f"ide-{kind},bus=ide.{place.number},unit={place.location}"
    else:
        at = f"scsi-{kind},bus=scsi{place.number}.0,scsi-id={place.location}"
    return f"{at},id={device_of(drive)},drive=f{device_of(drive)}{_boot_index(vm, drive.id)}"


def _boot_index(vm: VM, device: str) -> str:
    order = vm.firmware.boot_order
    return f",bootindex={order.index(device)}" if vm.generation == 2 and device in order else ""


def _network(hardware: Hardware) -> list[str]:
    words: list[str] = []
    for number, adapter in enumerate(hardware.vm.adapters):
        mac = ":".join(adapter.mac[at : at + 2] for at in range(0, 12, 2))
        device = f"virtio-net-pci,id=n{adapter.id.replace('-', '')},mac={mac}"
        device += _boot_index(hardware.vm, adapter.id)
        if hardware.networked:
            tap = f"tap,id=net{number},ifname={taps.name_of(adapter)},script=no,downscript=no"
            words += ["-netdev", tap]
            device += f",netdev=net{number}"
        words += ["-device", device]
    return words


def _serial(hardware: Hardware) -> list[str]:
    words: list[str] = []
    for port, pipe in hardware.pipes.items():
        log = escaped(hardware.console_log(port))
        backend = f"socket,id=com{port},path={escaped(pipe)},server=on,wait=off,logfile={log}"
        words += ["-chardev", backend]
        words += ["-device", f"isa-serial,chardev=com{port},index={port - 1},iobase={_COM_PORTS[port]}"]
    return words


def escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
