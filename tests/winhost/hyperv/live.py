"""Drives of a running machine: disks that come and go, media that change, all on SCSI controllers.

Each does nothing where the machine has no QEMU.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from tests.winhost.files import Files
from tests.winhost.hyperv import starting
from tests.winhost.hyperv.machine import Machines, Running, pin
from tests.winhost.hyperv.model import VM
from tests.winhost.hyperv.qemu import device_of, escaped
from tests.winhost.hyperv.qmp import ask
from tests.winhost.hyperv.storage import Drive, Dvd, HardDisk
from tests.winhost.state import Host

_GONE_SECONDS = 10.0


def attach_disk(host: Host, vm: VM, disk: HardDisk) -> None:
    """Raises CmdletError in Hyper-V's words."""
    one = host.part(Machines).running.get(vm.id)
    if one is None or disk.path is None:
        return
    with ExitStack() as stack:
        image = starting.open_disk(host, vm, disk, stack)
        backend = (
            f"if=none,id=f{device_of(disk)},format={image.format},cache=unsafe,file={escaped(image.file)}"
        )
        _add_backend(one, backend)
        _add_device(one, disk, "scsi-hd")
        for path in image.files:
            _pin(host, path)
        one.hardware.disks.append((disk, image))
        one.used.push(stack.pop_all())


def attach_dvd(host: Host, vm: VM, dvd: Dvd) -> None:
    one = host.part(Machines).running.get(vm.id)
    if one is None:
        return
    with ExitStack() as stack:
        medium = starting.open_dvd(host, vm, dvd, stack) if dvd.path else None
        backend = f"if=none,id=f{device_of(dvd)},media=cdrom,readonly=on"
        _add_backend(one, backend + (f",format=raw,file={escaped(medium)}" if medium else ""))
        _add_device(one, dvd, "scsi-cd")
        if medium:
            _pin(host, medium)
        one.hardware.dvds.append((dvd, medium))
        one.used.push(stack.pop_all())


def detach(host: Host, vm: VM, drive: Drive) -> None:
    one = host.part(Machines).running.get(vm.id)
    if one is None:
        return
    files = [path for disk, image in one.hardware.disks if disk is drive for path in image.files]
    files += [medium for dvd, medium in one.hardware.dvds if dvd is drive and medium]
    one.hardware.disks = [entry for entry in one.hardware.disks if entry[0] is not drive]
    one.hardware.dvds = [entry for entry in one.hardware.dvds if entry[0] is not drive]
    if drive.path is not None or isinstance(drive, Dvd):
        ask(one.hardware.monitor, "device_del", {"id": device_of(drive)})
        _wait_until_gone(one, drive)
    for path in files:
        host.part(Files).release(path, vm.id)


def change_medium(host: Host, vm: VM, dvd: Dvd) -> None:
    """The drive has what `dvd.path` says; the guest's lock on the tray does not count."""
    one = host.part(Machines).running.get(vm.id)
    if one is None:
        return
    before = next(medium for entry, medium in one.hardware.dvds if entry is dvd)
    with ExitStack() as stack:
        medium = starting.open_dvd(host, vm, dvd, stack) if dvd.path else None
        _insert(one, dvd, medium)
        if medium:
            _pin(host, medium)
        one.hardware.dvds = [(entry, medium if entry is dvd else old) for entry, old in one.hardware.dvds]
        one.used.push(stack.pop_all())
    if before:
        host.part(Files).release(before, vm.id)


def _insert(one: Running, dvd: Dvd, medium: Path | None) -> None:
    device: dict[str, object] = {"id": device_of(dvd), "force": True}
    if medium is None:
        ask(one.hardware.monitor, "eject", device)
    else:
        how = {"filename": str(medium), "format": "raw", "read-only-mode": "read-only"}
        ask(one.hardware.monitor, "blockdev-change-medium", {**device, **how})


def _add_backend(one: Running, backend: str) -> None:
    """By the text monitor: such a backend goes with its device, as those of the start do."""
    said = ask(one.hardware.monitor, "human-monitor-command", {"command-line": f"drive_add 0 {backend}"})
    if said.strip() != "OK":
        raise RuntimeError(f"QEMU: {said}")


def _add_device(one: Running, drive: Drive, driver: str) -> None:
    name, place = device_of(drive), drive.place
    at = {"bus": f"scsi{place.number}.0", "scsi-id": place.location}
    ask(one.hardware.monitor, "device_add", {"driver": driver, "id": name, "drive": f"f{name}", **at})


def _wait_until_gone(one: Running, drive: Drive) -> None:
    end = time.monotonic() + _GONE_SECONDS
    while any(
        f"f{device_of(drive)}" == block["device"] for block in ask(one.hardware.monitor, "query-block")
    ):
        if time.monotonic() > end:
            raise RuntimeError(f"QEMU keeps {drive}")
        time.sleep(0.05)


def _pin(host: Host, path: Path) -> None:
    undertaker = host.part(Machines).undertaker
    assert undertaker is not None
    pin(host.part(Files), path, undertaker)
