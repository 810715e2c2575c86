"""What the product and the emulated Windows host tell QEMU, as the container's program reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.container.commandline import Adapter, Console, Disk, NotSupported, parse
from tests.winhost.hyperv import qemu
from tests.winhost.hyperv.disks import Image
from tests.winhost.hyperv.model import VM, Memory
from tests.winhost.hyperv.model import Adapter as HypervAdapter
from tests.winhost.hyperv.qemu import Hardware
from tests.winhost.hyperv.storage import Dvd, HardDisk, Place
from tests.winhost.hyperv.taps import name_of
from vmproxy.hosts.linux.vm import Definition, QemuVm
from vmproxy.model.seen import Marker

MAC = "00:15:5d:01:02:03"


def embedded(folder: Path) -> list[str]:
    """As QemuVm starts QEMU."""
    vm = QemuVm("vmproxy-a-win-01", folder=folder, switch_namespace="none")
    marker = Marker("a", "win-01", "192.168.100.5/24", seed="5eed", image="1mage", host_key="")
    settings = {"cpus": 2, "memory": 512 << 20, "mac": MAC, "switch": "br0", "vlan": 0}
    return vm._command(Definition(settings, marker))[1:]


def hyperv(folder: Path) -> list[str]:
    """As the emulated host starts QEMU."""
    vm = VM("vmproxy-a, the VM", 2, r"C:\a", Memory(512 << 20))
    adapter = HypervAdapter(vm.id, "Network Adapter", None, mac="00155D010203")
    vm.adapters.append(adapter)
    disk = HardDisk(vm.id, Place("SCSI", 0, 0), r"C:\a, b.vhdx")
    dvd = Dvd(vm.id, Place("SCSI", 0, 1), r"C:\seed.iso")
    hardware = Hardware(vm, folder, networked=True)
    hardware.disks.append((disk, Image(folder / "a, b.vhdx", "vhdx", (folder / "a, b.vhdx",))))
    hardware.dvds.append((dvd, folder / "seed.iso"))
    hardware.pipes[1] = folder / "pipe"
    return qemu.arguments(hardware)


def test_the_embedded_host_s_machine(tmp_path: Path) -> None:
    machine = parse(embedded(tmp_path))
    assert machine.name == "vmproxy-a-win-01"
    assert machine.disk == Disk(tmp_path / "disk-1mage.raw", "raw")
    assert machine.seed == tmp_path / "seed-5eed.iso"
    assert [adapter.mac for adapter in machine.adapters] == [MAC]
    assert machine.adapters[0].tap is not None
    assert machine.console == Console(tmp_path / "console.log", None)
    assert (machine.monitor, machine.pidfile) == (tmp_path / "qmp.sock", tmp_path / "qemu.pid")


def test_the_emulated_host_s_machine_with_commas_in_its_names(tmp_path: Path) -> None:
    words = hyperv(tmp_path)
    machine = parse(words)
    assert machine.name == "vmproxy-a, the VM"
    assert machine.disk == Disk(tmp_path / "a, b.vhdx", "vhdx")
    assert machine.seed == tmp_path / "seed.iso"
    (tap,) = [word.partition("ifname=")[2].split(",")[0] for word in words if "ifname=" in word]
    assert machine.adapters == (Adapter("00:15:5D:01:02:03", tap),)
    assert machine.console == Console(tmp_path / "com1.log", tmp_path / "pipe")
    assert machine.pidfile is None
    assert tap.startswith(name_of(HypervAdapter("x", "y", None))[:2])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (["-snapshot"], "snapshot"),
        (["-drive", "if=virtio,format=raw,file=/second.raw"], "one disk"),
        (["-netdev", "user,id=net0"], "-netdev user"),
    ],
)
def test_what_a_container_is_not_is_refused(tmp_path: Path, change: list[str], why: str) -> None:
    with pytest.raises(NotSupported, match=why):
        parse([*embedded(tmp_path), *change])
