"""Drives of a machine: where they are, which files they take, and what changes while it runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.winhost import files
from tests.winhost.engine import Call, CmdletError, Item, Ref, outputs
from tests.winhost.files import Files
from tests.winhost.hyperv import drives, machine, storage, vhd  # noqa: F401 (they register cmdlets)
from tests.winhost.hyperv.model import VM, Memory, hyperv
from tests.winhost.hyperv.qmp import ask
from tests.winhost.hyperv.starting import WORKER, account
from tests.winhost.state import Host
from tests.winhost.tests.guests import efi_disk

pytestmark = pytest.mark.winhost
MIB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    drive, own = tmp_path / "C", Path("/tmp", f"winhost-drives-{os.getpid()}")
    drive.mkdir()
    own.mkdir()
    made = Host(drives={"C": drive}, folder=own)
    for name in ("a", "b"):
        run(made, "New-VHD", Path=rf"C:\{name}.vhdx", SizeBytes=10 * MIB)
        made.local(rf"C:\{name}.iso").write_bytes(bytes(MIB))
    try:
        with machine.opened(made):
            yield made
    finally:
        shutil.rmtree(own)


@pytest.fixture
def vm(host: Host) -> VM:
    return new_vm(host, "one", 2)


def new_vm(host: Host, name: str, generation: int) -> VM:
    made = VM(name, generation, rf"C:\{name}", Memory(64 * MIB))
    hyperv(host).vms[made.id] = made
    return made


def run(host: Host, cmdlet: str, **parameters: Any) -> list[Any]:
    return list(outputs(host, Call(cmdlet, parameters)))


def one(host: Host, cmdlet: str, **parameters: Any) -> Item:
    (item,) = run(host, cmdlet, **parameters)
    assert isinstance(item, Item), getattr(item, "message", item)
    return item


def error(host: Host, cmdlet: str, **parameters: Any) -> CmdletError:
    (record,) = run(host, cmdlet, **parameters)
    assert isinstance(record, CmdletError)
    return record


def place(item: Item) -> tuple[str, int, int]:
    shown = item.properties
    return shown["ControllerType"].value, shown["ControllerNumber"], shown["ControllerLocation"]


def test_drives_of_generation_2_take_the_free_places_of_scsi(host: Host, vm: VM) -> None:
    disk = one(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\a.vhdx", Passthru=True)
    dvd = one(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso", Passthru=True)
    assert (place(disk), place(dvd)) == (("SCSI", 0, 0), ("SCSI", 0, 1))
    assert disk.properties["Path"] == r"C:\a.vhdx"
    assert dvd.properties["DvdMediaType"].value == "ISO"


def test_drives_of_generation_1_take_ide_first(host: Host) -> None:
    new_vm(host, "old", 1)
    disk = one(host, "Add-VMHardDiskDrive", VMName="old", Path=r"C:\a.vhdx", Passthru=True)
    dvd = one(host, "Add-VMDvdDrive", VMName="old", Passthru=True)
    assert (place(disk), place(dvd)) == (("IDE", 0, 0), ("IDE", 0, 1))


def test_generation_2_has_no_ide(host: Host, vm: VM) -> None:
    failed = error(host, "Add-VMHardDiskDrive", VMName="one", ControllerType="IDE", Path=r"C:\a.vhdx")
    assert (failed.error_id, failed.category) == ("InvalidParameter", "InvalidArgument")


def test_a_full_ide_controller_takes_no_more(host: Host) -> None:
    old = new_vm(host, "old", 1)
    where = {"VMName": "old", "ControllerType": "IDE", "ControllerNumber": 0}
    for _ in range(2):
        run(host, "Add-VMHardDiskDrive", **where)
    assert "in use by another drive" in error(host, "Add-VMHardDiskDrive", **where).message
    assert len(storage.hard_disks(host, old.id)) == 2


@pytest.mark.parametrize(
    "where", [{"ControllerNumber": 1}, {"ControllerLocation": 64}, {"ControllerLocation": -1}]
)
def test_places_that_are_not_there_are_refused(host: Host, vm: VM, where: dict[str, int]) -> None:
    failed = error(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso", **where)
    assert failed.error_id == "InvalidParameter"


def test_a_taken_place_is_refused(host: Host, vm: VM) -> None:
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\a.vhdx")
    where = {"ControllerNumber": 0, "ControllerLocation": 0}
    assert (
        error(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso", **where).error_id == "InvalidParameter"
    )


def test_four_scsi_controllers_are_the_most(host: Host, vm: VM) -> None:
    for _ in range(3):
        run(host, "Add-VMScsiController", VMName="one")
    assert error(host, "Add-VMScsiController", VMName="one").error_id == "InvalidParameter"
    shown = run(host, "Get-VMScsiController", VMName="one")
    assert [item.properties["ControllerNumber"] for item in shown] == [0, 1, 2, 3]
    ref = Ref(shown[3].type, shown[3].id)
    disk = one(host, "Add-VMHardDiskDrive", VMDriveController=ref, Path=r"C:\a.vhdx", Passthru=True)
    assert place(disk) == ("SCSI", 3, 0)
    assert [place(item) for item in run(host, "Get-VMHardDiskDrive", VMDriveController=ref)] == [
        ("SCSI", 3, 0)
    ]


def test_a_missing_file_is_not_attached(host: Host, vm: VM) -> None:
    failed = error(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\no.vhdx")
    assert failed.category == "ObjectNotFound"
    assert f"(Virtual machine ID {vm.id.upper()})" in failed.message
    assert storage.hard_disks(host, vm.id) == []
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\no.vhdx", AllowUnverifiedPaths=True)
    assert storage.hard_disks(host, vm.id)[0].path == r"C:\no.vhdx"


def test_a_file_that_is_no_disk_is_not_attached(host: Host, vm: VM) -> None:
    host.local(r"C:\junk.vhdx").write_bytes(bytes(MIB))
    assert "0xC03A0014" in error(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\junk.vhdx").message


def test_a_disk_is_attached_once(host: Host, vm: VM) -> None:
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\a.vhdx")
    failed = error(host, "Add-VMHardDiskDrive", VMName="one", Path=r"c:\A.VHDX")
    assert "already connected to the virtual machine" in failed.message


def test_a_medium_is_changed_and_taken_out(host: Host, vm: VM) -> None:
    dvd = one(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso", Passthru=True)
    ref = Ref(dvd.type, dvd.id)
    run(host, "Set-VMDvdDrive", VMDvdDrive=ref, Path=r"C:\b.iso")
    assert one(host, "Get-VMDvdDrive", VMName="one").properties["Path"] == r"C:\b.iso"
    run(host, "Set-VMDvdDrive", VMDvdDrive=ref, Path=None)
    empty = one(host, "Get-VMDvdDrive", VMName="one").properties
    assert (empty["Path"], empty["DvdMediaType"].value) == (None, "None")


def test_setting_nothing_changes_nothing(host: Host, vm: VM) -> None:
    run(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso")
    run(host, "Set-VMDvdDrive", VMName="one", ControllerNumber=0, ControllerLocation=0)
    assert one(host, "Get-VMDvdDrive", VMName="one").properties["Path"] == r"C:\a.iso"


def test_a_drive_moves_to_a_free_place_only(host: Host, vm: VM) -> None:
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\a.vhdx")
    run(host, "Add-VMDvdDrive", VMName="one")
    where = {"VMName": "one", "ControllerNumber": 0, "ControllerLocation": 1}
    assert error(host, "Set-VMDvdDrive", ToControllerLocation=0, **where).error_id == "InvalidParameter"
    moved = one(host, "Set-VMDvdDrive", ToControllerLocation=7, Passthru=True, **where)
    assert place(moved) == ("SCSI", 0, 7)


def test_a_drive_that_is_not_there_is_an_error(host: Host, vm: VM) -> None:
    where = {"VMName": "one", "ControllerNumber": 0, "ControllerLocation": 5}
    assert error(host, "Remove-VMDvdDrive", **where).error_id == "InvalidParameter"
    assert error(host, "Set-VMDvdDrive", Path=None, **where).error_id == "InvalidParameter"


def test_removing_a_drive_leaves_its_file(host: Host, vm: VM) -> None:
    disk = one(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\a.vhdx", Passthru=True)
    run(host, "Remove-VMHardDiskDrive", VMHardDiskDrive=Ref(disk.type, disk.id))
    assert run(host, "Get-VMHardDiskDrive", VMName="one") == []
    assert host.local(r"C:\a.vhdx").exists()


@pytest.mark.parametrize("version", ["2016", "2022"])
def test_the_machines_account_gets_access(host: Host, vm: VM, version: str) -> None:
    host.version = version
    host.part(Files).acls = host.folder / "acls.json"
    run(host, "New-VHD", Path=r"C:\kid.vhdx", ParentPath=r"C:\a.vhdx")
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\kid.vhdx")
    run(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso")
    rules = json.loads((host.folder / "acls.json").read_text())
    granted = {
        path: {rule["identity"]: rule["rights"] for rule in own["rules"]} for path, own in rules.items()
    }
    them = [account(vm)] if version == "2016" else [account(vm), WORKER]
    writes = dict.fromkeys(them, "Read, Write, Synchronize")
    reads = dict.fromkeys(them, "Read, Synchronize")
    assert granted == {r"C:\kid.vhdx": writes, r"C:\a.vhdx": writes, r"C:\a.iso": reads}
    assert files.may_open(host, r"C:\kid.vhdx", {account(vm)})
    assert not files.may_open(host, r"C:\kid.vhdx", {"NT VIRTUAL MACHINE\\another"})


def test_a_passed_through_drive_is_not_emulated(host: Host, vm: VM) -> None:
    with pytest.raises(CmdletError, match="not emulated"):
        run(host, "Add-VMHardDiskDrive", VMName="one", DiskNumber=1)


@pytest.fixture
def running(host: Host, vm: VM, tmp_path: Path) -> VM:
    efi_disk(host.local(r"C:\boot.vhdx").with_name("boot.vhdx"), tmp_path)
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\boot.vhdx")
    run(host, "Add-VMDvdDrive", VMName="one", Path=r"C:\a.iso")
    machine.start(host, vm)
    return vm


def seen_by_qemu(host: Host, vm: VM) -> set[str]:
    monitor = host.part(machine.Machines).running[vm.id].hardware.monitor
    blocks = ask(monitor, "query-block")
    return {Path(one["inserted"]["file"]).name for one in blocks if one.get("inserted")} - {
        "OVMF_CODE_4M.fd",
        "efivars.fd",
    }


@needs_root
def test_a_running_machines_medium_changes(host: Host, running: VM) -> None:
    assert seen_by_qemu(host, running) == {"boot.vhdx", "a.iso"}
    run(host, "Set-VMDvdDrive", VMName="one", Path=r"C:\b.iso")
    assert seen_by_qemu(host, running) == {"boot.vhdx", "b.iso"}
    host.local(r"C:\a.iso").unlink()
    with pytest.raises(OSError, match="busy"):
        host.local(r"C:\b.iso").unlink()
    run(host, "Set-VMDvdDrive", VMName="one", Path=None)
    assert seen_by_qemu(host, running) == {"boot.vhdx"}
    host.local(r"C:\b.iso").unlink()


@needs_root
def test_disks_come_to_and_go_from_a_running_machine(host: Host, running: VM) -> None:
    run(host, "Add-VMHardDiskDrive", VMName="one", Path=r"C:\b.vhdx")
    assert seen_by_qemu(host, running) == {"boot.vhdx", "a.iso", "b.vhdx"}
    assert one(host, "Get-VHD", Path=r"C:\b.vhdx").properties["Attached"] is True
    where = {"ControllerType": "SCSI", "ControllerNumber": 0, "ControllerLocation": 2}
    run(host, "Remove-VMHardDiskDrive", VMName="one", **where)
    assert seen_by_qemu(host, running) == {"boot.vhdx", "a.iso"}
    assert one(host, "Get-VHD", Path=r"C:\b.vhdx").properties["Attached"] is False


@needs_root
def test_a_running_machines_disk_keeps_its_path(host: Host, running: VM) -> None:
    where = {"ControllerType": "SCSI", "ControllerNumber": 0, "ControllerLocation": 0}
    failed = error(host, "Set-VMHardDiskDrive", VMName="one", Path=r"C:\b.vhdx", **where)
    assert failed.error_id == "InvalidState"


@needs_root
def test_a_running_machines_disk_is_refused_to_another(host: Host, running: VM) -> None:
    new_vm(host, "two", 2)
    failed = error(host, "Add-VMHardDiskDrive", VMName="two", Path=r"C:\boot.vhdx")
    assert "0x80070020" in failed.message
    with pytest.raises(CmdletError, match="not emulated"):
        run(host, "Resize-VHD", Path=r"C:\boot.vhdx", SizeBytes=40 * MIB)


@needs_root
def test_nothing_comes_to_ide_while_the_machine_runs(host: Host) -> None:
    old = new_vm(host, "old", 1)
    machine.start(host, old)
    assert error(host, "Add-VMDvdDrive", VMName="old", Path=r"C:\a.iso").error_id == "InvalidState"
    assert error(host, "Add-VMScsiController", VMName="old").error_id == "InvalidState"
