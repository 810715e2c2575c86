"""Virtual hard disks on real files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.winhost import files
from tests.winhost.engine import Call, CmdletError, Item, outputs
from tests.winhost.files import Files
from tests.winhost.hyperv import disks, vhd  # noqa: F401 (vhd registers the cmdlets)
from tests.winhost.programs import small
from tests.winhost.state import Host
from tests.winhost.tests.guests import efi_disk
from tests.winhost.values import Typed

pytestmark = pytest.mark.winhost
MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def host(tmp_path: Path) -> Host:
    drive, own = tmp_path / "C", tmp_path / "own"
    drive.mkdir()
    own.mkdir()
    return Host(drives={"C": drive}, folder=own)


def run(host: Host, cmdlet: str, **parameters: Any) -> list[Any]:
    return list(outputs(host, Call(cmdlet, parameters)))


def one(host: Host, cmdlet: str, **parameters: Any) -> dict[str, Any]:
    """The properties of the one object that comes out."""
    (item,) = run(host, cmdlet, **parameters)
    assert isinstance(item, Item), getattr(item, "message", item)
    return {name: getattr(value, "value", value) for name, value in item.properties.items()}


def error(host: Host, cmdlet: str, **parameters: Any) -> CmdletError:
    (record,) = (out for out in run(host, cmdlet, **parameters) if isinstance(out, CmdletError))
    return record


def write(path: Path, text: bytes, at: int, kind: str = "vhdx") -> None:
    """As a guest would."""
    command = f"write -s /dev/stdin {at} {len(text)}"
    subprocess.run(["qemu-io", "-f", kind, "-c", command, path], input=text, check=True, capture_output=True)


def content(path: Path, kind: str, tmp_path: Path) -> bytes:
    target = tmp_path / "content.raw"
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", path, target], check=True)
    return target.read_bytes()


@pytest.mark.parametrize("kind", ["Dynamic", "Fixed"])
@pytest.mark.parametrize("extension", ["vhd", "vhdx"])
def test_a_new_disk_is_read_back_as_it_was_made(host: Host, extension: str, kind: str) -> None:
    path = rf"C:\new.{extension}"
    made = one(host, "New-VHD", Path=path, SizeBytes=10 * MIB, **{kind: True})
    again = one(host, "Get-VHD", Path=path)
    assert made == again
    assert again["VhdFormat"] == extension.upper()
    assert again["VhdType"] == kind
    assert again["Size"] == 10 * MIB
    assert again["Attached"] is False
    assert again["MinimumSize"] is None


def test_defaults_are_hyper_vs_own(host: Host) -> None:
    disk = one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB)
    assert disk["VhdType"] == "Dynamic"
    assert (disk["BlockSize"], disk["LogicalSectorSize"], disk["PhysicalSectorSize"]) == (32 * MIB, 512, 4096)


def test_numbers_have_the_types_of_the_module(host: Host) -> None:
    (disk,) = run(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB)
    assert disk.properties["Size"] == Typed("uint64", GIB)
    assert disk.properties["BlockSize"] == Typed("uint32", 32 * MIB)
    assert disk.properties["VhdType"] == Typed("enum:VhdType", "Dynamic")


def test_a_block_size_is_kept(host: Host) -> None:
    disk = one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB, BlockSizeBytes=MIB)
    assert disk["BlockSize"] == MIB


@pytest.mark.parametrize("block", [MIB // 2, 3 * MIB, 512 * MIB])
def test_a_block_size_out_of_bounds_is_refused(host: Host, block: int) -> None:
    failed = error(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB, BlockSizeBytes=block)
    assert (failed.error_id, failed.category) == ("InvalidParameter", "InvalidArgument")
    assert not host.local(r"C:\d.vhdx").exists()


def test_a_size_that_is_no_multiple_of_the_sector_is_refused(host: Host) -> None:
    failed = error(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=2000000000)
    assert failed.error_id == "InvalidParameter"
    assert one(host, "New-VHD", Path=r"C:\d.vhd", SizeBytes=2000000000)["Size"] == 2000000000


@pytest.mark.parametrize(
    ("path", "size"), [(r"C:\d.vhdx", 65 << 40), (r"C:\d.vhd", 2041 << 30), (r"C:\d.vhdx", MIB)]
)
def test_a_size_out_of_bounds_is_refused(host: Host, path: str, size: int) -> None:
    assert error(host, "New-VHD", Path=path, SizeBytes=size).error_id == "InvalidParameter"


def test_a_file_that_exists_is_never_overwritten(host: Host) -> None:
    host.local(r"C:\d.vhdx").write_bytes(b"precious")
    failed = error(host, "New-VHD", Path=r"C:\D.VHDX", SizeBytes=GIB)
    assert "The file exists. (0x80070050)" in failed.message
    assert (failed.error_id, failed.category) == ("OperationFailed", "NotSpecified")
    assert host.local(r"C:\d.vhdx").read_bytes() == b"precious"


def test_a_missing_folder_is_not_made(host: Host) -> None:
    assert "0x80070003" in error(host, "New-VHD", Path=r"C:\no\d.vhdx", SizeBytes=GIB).message


def test_the_extension_says_the_format(host: Host) -> None:
    with pytest.raises(CmdletError, match="extension") as failed:
        run(host, "New-VHD", Path=r"C:\d.img", SizeBytes=GIB)
    assert failed.value.error_id == "InvalidParameter"


def test_a_full_drive_takes_no_fixed_disk(host: Host) -> None:
    host.part(Files).capacity["C"] = 64 * MIB
    one(host, "New-VHD", Path=r"C:\small.vhdx", SizeBytes=10 * MIB, Fixed=True)
    failed = error(host, "New-VHD", Path=r"C:\large.vhdx", SizeBytes=60 * MIB, Fixed=True)
    assert "0x80070070" in failed.message
    assert not host.local(r"C:\large.vhdx").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
def test_a_limited_drive_is_really_full(host: Host) -> None:
    host.local(r"C:\kept").write_text("kept")
    with files.limited(host, "C", 16 * MIB):
        assert host.local(r"C:\kept").read_text() == "kept"
        assert files.free_bytes(host, "C") <= 16 * MIB
        assert "0x80070070" in error(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB, Fixed=True).message
        with pytest.raises(OSError, match="No space left"):
            host.local(r"C:\large").write_bytes(bytes(20 * MIB))
    assert not host.local(r"C:\large").exists()


def test_a_disk_that_fsutil_marked_as_sparse_is_refused(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB)
    os.setxattr(host.local(r"C:\d.vhdx"), small.SPARSE, b"1")
    assert "0xC03A001A" in run(host, "Test-VHD", Path=r"C:\d.vhdx")[0].message
    os.removexattr(host.local(r"C:\d.vhdx"), small.SPARSE)
    assert run(host, "Test-VHD", Path=r"C:\d.vhdx") == [True]


def test_a_missing_disk_is_not_found(host: Host) -> None:
    failed = error(host, "Get-VHD", Path=r"C:\d.vhdx")
    assert (failed.error_id, failed.category) == ("ObjectNotFound", "ObjectNotFound")


def test_a_file_that_is_no_disk_has_no_provider(host: Host) -> None:
    host.local(r"C:\d.vhdx").write_bytes(b"\x1f\x8b" + bytes(4096))
    assert "0xC03A0014" in error(host, "Get-VHD", Path=r"C:\d.vhdx").message


def test_a_disk_that_was_cut_off_is_corrupted(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB)
    with host.local(r"C:\d.vhdx").open("r+b") as file:
        file.truncate(150 << 10)
    assert "0x80070570" in error(host, "Get-VHD", Path=r"C:\d.vhdx").message


def test_usable_disks_are_told_from_unusable_ones(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB)
    assert run(host, "Test-VHD", Path=r"C:\d.vhdx") == [True]
    host.part(Files).attributes[host.local(r"C:\d.vhdx")] = {"SparseFile"}
    failed, usable = run(host, "Test-VHD", Path=r"C:\d.vhdx")
    assert "0xC03A001A" in failed.message
    assert usable is False


def test_disks_in_a_compressed_folder_are_refused(host: Host) -> None:
    host.part(Files).attributes[host.drives["C"]] = {"Compressed"}
    assert "0xC03A001A" in error(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=GIB).message


@pytest.mark.parametrize("extension", ["vhd", "vhdx"])
def test_a_child_shows_its_parents_content_and_keeps_its_own(
    host: Host, extension: str, tmp_path: Path
) -> None:
    kind = "vhdx" if extension == "vhdx" else "vpc"
    one(host, "New-VHD", Path=rf"C:\base.{extension}", SizeBytes=10 * MIB)
    base = host.local(rf"C:\base.{extension}")
    write(base, b"b" * 512, 0, kind)
    child = one(host, "New-VHD", Path=rf"C:\kid.{extension}", ParentPath=rf"C:\base.{extension}")
    assert (child["VhdType"], child["ParentPath"]) == ("Differencing", rf"C:\base.{extension}")
    one_file = disks.image(host, rf"C:\kid.{extension}")
    write(one_file.file, b"k" * 512, 4096, "qcow2")
    whole = content(one_file.file, "qcow2", tmp_path)
    assert whole[:512] == b"b" * 512
    assert whole[4096:4608] == b"k" * 512
    assert content(base, kind, tmp_path)[4096:4608] == bytes(512)


def test_a_child_whose_parent_changed_is_refused(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\base.vhdx", SizeBytes=10 * MIB)
    one(host, "New-VHD", Path=r"C:\kid.vhdx", ParentPath=r"C:\base.vhdx")
    write(host.local(r"C:\base.vhdx"), b"x" * 512, 0)
    failed, usable = run(host, "Test-VHD", Path=r"C:\kid.vhdx")
    assert "0xC03A000E" in failed.message
    assert usable is False


def test_a_child_whose_parent_moved_works_once_it_is_told(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\base.vhdx", SizeBytes=10 * MIB)
    one(host, "New-VHD", Path=r"C:\kid.vhdx", ParentPath=r"C:\base.vhdx")
    host.local(r"C:\base.vhdx").rename(host.local(r"C:\moved.vhdx"))
    assert "0xC03A000D" in run(host, "Test-VHD", Path=r"C:\kid.vhdx")[0].message
    run(host, "Set-VHD", Path=r"C:\kid.vhdx", ParentPath=r"C:\moved.vhdx")
    assert run(host, "Test-VHD", Path=r"C:\kid.vhdx") == [True]


def test_a_child_has_its_parents_format(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\base.vhdx", SizeBytes=10 * MIB)
    failed = error(host, "New-VHD", Path=r"C:\kid.vhd", ParentPath=r"C:\base.vhdx")
    assert failed.error_id == "InvalidParameter"


@pytest.mark.parametrize("kind", ["Dynamic", "Fixed"])
def test_a_disk_grows_and_keeps_content_and_identifier(host: Host, kind: str, tmp_path: Path) -> None:
    before = one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=10 * MIB, **{kind: True})
    write(host.local(r"C:\d.vhdx"), b"d" * 512, 0)
    after = one(host, "Resize-VHD", Path=r"C:\d.vhdx", SizeBytes=20 * MIB, Passthru=True)
    assert (after["Size"], after["VhdType"]) == (20 * MIB, kind)
    assert after["DiskIdentifier"] == before["DiskIdentifier"]
    whole = content(host.local(r"C:\d.vhdx"), "vhdx", tmp_path)
    assert whole[:512] == b"d" * 512
    assert len(whole) == 20 * MIB


def test_a_grown_childs_parent_stays_as_it_is(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\base.vhdx", SizeBytes=10 * MIB)
    one(host, "New-VHD", Path=r"C:\kid.vhdx", ParentPath=r"C:\base.vhdx")
    run(host, "Resize-VHD", Path=r"C:\kid.vhdx", SizeBytes=20 * MIB)
    assert one(host, "Get-VHD", Path=r"C:\kid.vhdx")["Size"] == 20 * MIB
    assert one(host, "Get-VHD", Path=r"C:\base.vhdx")["Size"] == 10 * MIB
    assert run(host, "Test-VHD", Path=r"C:\kid.vhdx") == [True]


def test_a_disk_shrinks_no_further_than_its_partitions(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=40 * MIB)
    raw = host.folder / "disk.raw"
    raw.write_bytes(bytes(40 * MIB))
    subprocess.run(["sfdisk", "-q", raw], input=b"label: gpt\nsize=20MiB\n", check=True)
    subprocess.run(["qemu-img", "convert", "-n", "-O", "vhdx", raw, host.local(r"C:\d.vhdx")], check=True)
    assert one(host, "Get-VHD", Path=r"C:\d.vhdx")["MinimumSize"] == 22 * MIB
    assert "0xC03A0025" in error(host, "Resize-VHD", Path=r"C:\d.vhdx", SizeBytes=10 * MIB).message
    shrunk = one(host, "Resize-VHD", Path=r"C:\d.vhdx", ToMinimumSize=True, Passthru=True)
    assert shrunk["Size"] == 22 * MIB


def test_a_file_system_without_partitions_has_no_minimum(host: Host, tmp_path: Path) -> None:
    efi_disk(host.drives["C"] / "d.vhdx", tmp_path)
    assert one(host, "Get-VHD", Path=r"C:\d.vhdx")["MinimumSize"] is None


def test_a_disk_with_an_mbr_has_a_minimum(host: Host) -> None:
    raw = host.folder / "disk.raw"
    raw.write_bytes(bytes(40 * MIB))
    subprocess.run(["sfdisk", "-q", raw], input=b"label: dos\nsize=20MiB\n", check=True)
    subprocess.run(["qemu-img", "convert", "-O", "vpc", raw, host.drives["C"] / "d.vhd"], check=True)
    assert one(host, "Get-VHD", Path=r"C:\d.vhd")["MinimumSize"] == 21 * MIB


def test_a_vhd_does_not_shrink(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhd", SizeBytes=20 * MIB)
    with pytest.raises(CmdletError, match="only on virtual hard disks that are of VHDX format"):
        run(host, "Resize-VHD", Path=r"C:\d.vhd", SizeBytes=10 * MIB)


@pytest.mark.parametrize("target", ["c.vhd", "c.vhdx"])
def test_a_converted_disk_has_the_content_in_the_format_of_its_name(
    host: Host, target: str, tmp_path: Path
) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=10 * MIB)
    write(host.local(r"C:\d.vhdx"), b"d" * 512, 0)
    parameters = {"Path": r"C:\d.vhdx", "DestinationPath": rf"C:\{target}", "VHDType": "Fixed"}
    made = one(host, "Convert-VHD", Passthru=True, DeleteSource=True, **parameters)
    assert (made["VhdType"], made["VhdFormat"]) == ("Fixed", target.partition(".")[2].upper())
    kind = "vhdx" if target.endswith("x") else "vpc"
    assert content(host.local(rf"C:\{target}"), kind, tmp_path)[:512] == b"d" * 512
    assert not host.local(r"C:\d.vhdx").exists()


def test_a_new_identifier_needs_force_where_nobody_answers(host: Host) -> None:
    before = one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=10 * MIB)
    with pytest.raises(CmdletError, match="NonInteractive"):
        run(host, "Set-VHD", Path=r"C:\d.vhdx", ResetDiskIdentifier=True)
    after = one(host, "Set-VHD", Path=r"C:\d.vhdx", ResetDiskIdentifier=True, Force=True, Passthru=True)
    assert after["DiskIdentifier"] != before["DiskIdentifier"]


def test_a_disk_that_a_machine_uses_is_attached_and_locked(host: Host) -> None:
    one(host, "New-VHD", Path=r"C:\d.vhdx", SizeBytes=10 * MIB)
    local = host.local(r"C:\d.vhdx")
    host.part(Files).hold(local, "machine")
    try:
        assert one(host, "Get-VHD", Path=r"C:\d.vhdx")["Attached"] is True
        parameters = {"Path": r"C:\d.vhdx", "DestinationPath": r"C:\c.vhdx"}
        assert "0x80070020" in error(host, "Convert-VHD", **parameters).message
        with pytest.raises(files.InUse):
            host.part(Files).hold(local, "another machine")
    finally:
        host.part(Files).release(local, "machine")
    assert one(host, "Get-VHD", Path=r"C:\d.vhdx")["Attached"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
def test_a_pinned_file_can_neither_be_deleted_nor_written(host: Host) -> None:
    local = host.local(r"C:\seed.iso")
    local.write_bytes(b"iso")
    host.part(Files).hold(local, "machine", shared=True)
    try:
        host.part(Files).pin(local)
        with pytest.raises(OSError, match="busy"):
            local.unlink()
        with pytest.raises(OSError, match="Read-only"):
            local.write_bytes(b"other")
        assert local.read_bytes() == b"iso"
    finally:
        host.part(Files).release(local, "machine")
    local.unlink()


@pytest.mark.parametrize("cmdlet", ["Mount-VHD", "Optimize-VHD", "Merge-VHD"])
def test_what_is_not_emulated_says_so(host: Host, cmdlet: str) -> None:
    with pytest.raises(CmdletError, match="not emulated"):
        run(host, cmdlet, Path=r"C:\d.vhdx")
