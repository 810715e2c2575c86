"""Virtual hard disks of the emulated host as files that QEMU can open.

QEMU's drivers know no differencing disks. A child is a real VHDX or VHD file that names its parent; what
was written to it lies in a qcow2 overlay in the emulator's own folder, found by the child's disk identifier.
So moving or renaming a child works as on Windows, but two copies of one child file share their data.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from tests.winhost import files
from tests.winhost.files import Files
from tests.winhost.hyperv import vhdfile
from tests.winhost.hyperv.vhdfile import MIB, Damaged, DiskFile, NotADisk
from tests.winhost.state import Host
from vmproxy.errors import ToolFailed
from vmproxy.util.run import run

TIB = 1 << 40
FILE_EXISTS = (0x80070050, "The file exists.")
FILE_NOT_FOUND = (0x80070002, "The system cannot find the file specified.")
PATH_NOT_FOUND = (0x80070003, "The system cannot find the path specified.")
DISK_FULL = (0x80070070, "There is not enough space on the disk.")
INVALID = (0x80070057, "One or more arguments are invalid")
SHARING_VIOLATION = (
    0x80070020,
    "The process cannot access the file because it is being used by another process.",
)
CORRUPTED = (0x80070570, "The file or directory is corrupted and unreadable.")
ACCESS_DENIED = (0x80070005, "General access denied error")
NO_PROVIDER = (0xC03A0014, "A virtual disk support provider for the specified file was not found.")
UNFIT = (
    0xC03A001A,
    "The requested operation could not be completed due to a virtual disk system limitation.  Virtual hard "
    "disk files must be uncompressed and unencrypted and must not be sparse.",
)
PARENT_MISSING = (
    0xC03A000D,
    "The chain of virtual hard disks is broken. The system cannot locate the parent virtual hard disk for "
    "the differencing disk.",
)
PARENT_CHANGED = (
    0xC03A000E,
    "The chain of virtual hard disks is corrupted. There is a mismatch in the identifiers of the parent "
    "virtual hard disk and differencing disk.",
)
WOULD_TRUNCATE = (
    0xC03A0025,
    "The requested operation could not be completed because it would cut off data on the virtual disk.",
)


class DiskFault(Exception):
    """Windows' number and text for what is wrong with a disk."""

    def __init__(self, fault: tuple[int, str]) -> None:
        super().__init__(f"{fault[1].rstrip('.')} (0x{fault[0]:08X})")
        self.code, self.text = fault


@dataclass(frozen=True)
class Spec:
    """What a new disk is to be; None: the format's default."""

    kind: vhdfile.Kind = "Dynamic"
    size: int | None = None
    block_size: int | None = None
    logical_sector: int | None = None
    physical_sector: int | None = None
    parent: str | None = None


@dataclass(frozen=True)
class Image:
    """What QEMU opens for a disk; `files` are the disk's own file and those of its parents."""

    file: Path
    format: str
    files: tuple[Path, ...]


def is_vhdx(path: str | Path) -> bool:
    return str(path).lower().endswith((".vhdx", ".avhdx"))


def describe(host: Host, path: str) -> DiskFile:
    """Raises DiskFault: missing, damaged, of no format that the host knows."""
    local = existing(host, path)
    try:
        return vhdfile.read(local)
    except NotADisk as exc:
        raise DiskFault(NO_PROVIDER if is_vhdx(path) else CORRUPTED) from exc
    except Damaged as exc:
        raise DiskFault(CORRUPTED) from exc


def existing(host: Host, path: str) -> Path:
    try:
        local = host.local(path)
    except FileNotFoundError as exc:
        raise DiskFault(PATH_NOT_FOUND) from exc
    if not local.is_file():
        raise DiskFault(FILE_NOT_FOUND if local.parent.is_dir() else PATH_NOT_FOUND)
    return local


def image(host: Host, path: str) -> Image:
    """What to open, with the whole chain looked at. Raises DiskFault."""
    disk, local = describe(host, path), existing(host, path)
    if files.unfit(host, local):
        raise DiskFault(UNFIT)
    if disk.kind != "Differencing":
        return Image(local, "vhdx" if disk.format == "VHDX" else "vpc", (local,))
    parent = _parent(host, disk)
    overlay = overlay_of(host, disk)
    if not host.part(Files).users(local):
        run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", parent.file, "-F", parent.format, overlay])
    return Image(overlay, "qcow2", (local, *parent.files))


def _parent(host: Host, disk: DiskFile) -> Image:
    try:
        parent = describe(host, disk.parent_path)
    except DiskFault as exc:
        raise DiskFault(PARENT_MISSING) from exc
    if parent.linkage != disk.parent_linkage:
        raise DiskFault(PARENT_CHANGED)
    return image(host, disk.parent_path)


def overlay_of(host: Host, disk: DiskFile) -> Path:
    return host.folder / "overlays" / f"{disk.identifier}.qcow2"


def create(host: Host, path: str, spec: Spec) -> None:
    """Raises DiskFault."""
    local = _place(host, path)
    if spec.parent is not None:
        _create_child(host, path, local, spec)
        return
    size = checked_size(path, spec)
    vhdx = is_vhdx(path)
    block = checked_block_size(path, spec)
    _need(host, path, size + (MIB if vhdx else 512) if spec.kind == "Fixed" else 8 * MIB)
    _make(local, vhdx=vhdx, kind=spec.kind, size=size, block=block)
    if vhdx:
        vhdfile.set_physical_sector(local, spec.physical_sector or 4096)
        vhdfile.set_logical_sector(local, spec.logical_sector or 512)
        vhdfile.set_identifier(local, uuid4())


def _place(host: Host, path: str) -> Path:
    try:
        local = host.local(path)
    except FileNotFoundError as exc:
        raise DiskFault(PATH_NOT_FOUND) from exc
    if not local.parent.is_dir():
        raise DiskFault(PATH_NOT_FOUND)
    if local.exists():
        raise DiskFault(FILE_EXISTS)
    if files.unfit(host, local):
        raise DiskFault(UNFIT)
    return local


def checked_size(path: str, spec: Spec) -> int:
    """3 MB to 64 TB (VHD: 2040 GB), in whole sectors: 4096 bytes are a VHDX's physical sector by default."""
    size = spec.size or 0
    most = 64 * TIB if is_vhdx(path) else 2040 << 30
    sector = max(spec.logical_sector or 512, spec.physical_sector or 4096) if is_vhdx(path) else 512
    if not 3 * MIB <= size <= most or size % sector:
        raise DiskFault(INVALID)
    return size


def checked_block_size(path: str, spec: Spec) -> int:
    """VHDX: a power of two from 1 to 256 MB, 32 MB by default; VHD: 512 KB or 2 MB."""
    block = spec.block_size
    if is_vhdx(path):
        block = block or (2 * MIB if spec.parent else 32 * MIB)
        fits = MIB <= block <= 256 * MIB and block & (block - 1) == 0
    else:
        block = block or 2 * MIB
        fits = block in {MIB // 2, 2 * MIB} and (spec.logical_sector or 512) == 512
    if not fits:
        raise DiskFault(INVALID)
    return block


def _make(local: Path, *, vhdx: bool, kind: str, size: int, block: int) -> None:
    """A new file without data. qemu-img's own VHD always has blocks of 2 MB."""
    how = "fixed" if kind == "Fixed" else "dynamic"
    options = f"subformat={how},block_size={block}" if vhdx else f"subformat={how},force_size=on"
    if not vhdx and how == "dynamic" and block != 2 * MIB:
        raise NotImplementedError("not emulated: a dynamic VHD with blocks of 512 KB")
    try:
        run(["qemu-img", "create", "-q", "-f", "vhdx" if vhdx else "vpc", "-o", options, local, str(size)])
    except ToolFailed:
        local.unlink(missing_ok=True)
        raise


def _create_child(host: Host, path: str, local: Path, spec: Spec) -> None:
    assert spec.parent is not None
    parent = describe(host, spec.parent)
    if is_vhdx(path) != (parent.format == "VHDX") or local == existing(host, spec.parent):
        raise DiskFault(INVALID)
    size = spec.size or parent.size
    if size < parent.size or size % 512:
        raise DiskFault(INVALID)
    behind = image(host, spec.parent)
    _need(host, path, 8 * MIB)
    _make(local, vhdx=is_vhdx(path), kind="Dynamic", size=size, block=checked_block_size(path, spec))
    vhdfile.set_identifier(local, uuid4())
    if is_vhdx(path):
        vhdfile.set_physical_sector(local, spec.physical_sector or parent.physical_sector)
        vhdfile.set_logical_sector(local, parent.logical_sector)
    vhdfile.make_differencing(local, parent, spec.parent)
    overlay = overlay_of(host, vhdfile.read(local))
    overlay.parent.mkdir(exist_ok=True)
    backing = ["-b", str(behind.file), "-F", behind.format]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay, str(size)])


def set_parent(host: Host, path: str, parent: str, *, ignore_mismatch: bool) -> None:
    """Raises DiskFault."""
    disk, found = describe(host, path), describe(host, parent)
    if disk.kind != "Differencing" or found.format != disk.format:
        raise DiskFault(INVALID)
    if found.linkage != disk.parent_linkage and not ignore_mismatch:
        raise DiskFault(PARENT_CHANGED)
    vhdfile.set_parent(existing(host, path), found, parent)


def set_identifier(host: Host, path: str, identifier: UUID) -> None:
    """A child's overlay follows its identifier."""
    local, disk = existing(host, path), describe(host, path)
    vhdfile.set_identifier(local, identifier)
    if disk.kind == "Differencing":
        overlay_of(host, disk).rename(overlay_of(host, vhdfile.read(local)))


def convert(host: Host, source: str, target: str, spec: Spec) -> None:
    """A new disk with the content of another. Raises DiskFault."""
    whole, disk = image(host, source), describe(host, source)
    physical = spec.physical_sector or (disk.physical_sector if is_vhdx(target) == is_vhdx(source) else None)
    made = Spec(spec.kind, disk.size, spec.block_size, disk.logical_sector, physical, spec.parent)
    create(host, target, made)
    local = existing(host, target)
    try:
        if spec.kind != "Fixed":
            _need(host, target, allocated(whole.file))
        into = image(host, target)
        run(["qemu-img", "convert", "-n", "-f", whole.format, "-O", into.format, whole.file, into.file])
    except (ToolFailed, DiskFault):
        local.unlink()
        raise


def resize(host: Host, path: str, size: int) -> None:
    """The disk is in no use. Raises DiskFault."""
    local, disk = existing(host, path), describe(host, path)
    whole = image(host, path)
    if size > disk.size and disk.kind == "Fixed":
        _need(host, path, size - disk.size)
    if disk.kind == "Differencing":
        shrink = ["--shrink"] if size < disk.size else []
        run(["qemu-img", "resize", "-q", *shrink, "-f", "qcow2", whole.file, str(size)])
    if disk.format == "VHDX" and (size < disk.size or disk.kind != "Fixed") and vhdfile.set_size(local, size):
        return
    if disk.kind == "Differencing":
        raise NotImplementedError("not emulated: a differencing disk larger than its table of blocks")
    _copy_larger(local, disk, whole, size)


def _copy_larger(local: Path, disk: DiskFile, whole: Image, size: int) -> None:
    part = local.with_name(local.stem + ".resizing" + local.suffix)
    try:
        _make(part, vhdx=disk.format == "VHDX", kind=disk.kind, size=size, block=disk.block_size or 2 * MIB)
        run(["qemu-img", "convert", "-n", "-f", whole.format, "-O", whole.format, local, part])
        vhdfile.set_identifier(part, disk.identifier)
        if disk.format == "VHDX":
            vhdfile.set_physical_sector(part, disk.physical_sector)
        part.replace(local)
    finally:
        part.unlink(missing_ok=True)


def minimum_size(host: Host, path: str) -> int | None:
    """Up to where partitions reach, with the copy of a GPT's table behind them; None: no partitions."""
    head = _first_sectors(image(host, path))
    if head[510:512] != b"\x55\xaa":
        return None
    size = describe(host, path).size
    gpt = head[512:520] == b"EFI PART"
    ends = _gpt_ends(head) if gpt else _mbr_ends(head, size // 512)
    if not ends:
        return None
    least = -(-(max(ends) + (34 if gpt else 1)) * 512 // MIB) * MIB
    return min(least, size)


def _first_sectors(whole: Image) -> bytes:
    """The first 34 sectors: MBR, GPT header and its usual 128 entries."""
    with tempfile.TemporaryDirectory(prefix="winhost-disk-") as folder:
        target = Path(folder, "head")
        parts = ["bs=512", "count=34", f"if={whole.file}", f"of={target}"]
        run(["qemu-img", "dd", "-U", "-f", whole.format, "-O", "raw", *parts])
        return target.read_bytes().ljust(34 * 512, b"\0")


def _gpt_ends(head: bytes) -> list[int]:
    (start, count, size) = struct.unpack_from("<QII", head, 512 + 72)
    entries = [head[start * 512 + at * size :][:size] for at in range(min(count, 128))]
    return [struct.unpack_from("<Q", one, 40)[0] for one in entries if len(one) >= 48 and any(one[:16])]


def _mbr_ends(head: bytes, sectors: int) -> list[int]:
    """None where the bytes are a file system's own, whose first sector ends in the same signature."""
    entries = [struct.unpack_from("<B3xB3xII", head, 446 + 16 * at) for at in range(4)]
    sound = all(status in (0, 0x80) and start + count <= sectors for status, _, start, count in entries)
    return [start + count - 1 for _, kind, start, count in entries if kind] if sound else []


def allocated(file: Path) -> int:
    return file.stat().st_blocks * 512


def _need(host: Host, path: str, size: int) -> None:
    if files.free_bytes(host, files.drive_of(path)) < size:
        raise DiskFault(DISK_FULL)
