"""Virtual hard disk files as they are on disk: VHDX (MS-VHDX) and VHD, read and patched.

What qemu-img does not tell (block and sector sizes, identifiers, the parent) is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import UUID

Kind = Literal["Fixed", "Dynamic", "Differencing"]
KIB, MIB = 1 << 10, 1 << 20

_METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_BAT_REGION = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_DISK_ID = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_LOGICAL_SECTOR = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PHYSICAL_SECTOR = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
_PARENT_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_VHDX_PARENT = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")

_HEADERS = (64 * KIB, 128 * KIB)
_REGION_TABLES = (192 * KIB, 256 * KIB)
_KEEP_ALLOCATED, _HAS_PARENT = 1, 2
_VHD_KINDS: dict[int, Kind] = {2: "Fixed", 3: "Dynamic", 4: "Differencing"}


class NotADisk(Exception):
    """The file is no virtual hard disk of the format that its name promises."""


class Damaged(Exception):
    """It was one, but its structures contradict themselves."""


@dataclass(frozen=True)
class DiskFile:
    """One disk as its own headers describe it. `linkage` changes with the data, `parent_linkage` is the
    parent's at the time the child was made."""

    format: Literal["VHD", "VHDX"]
    kind: Kind
    size: int
    block_size: int
    logical_sector: int
    physical_sector: int
    identifier: UUID
    linkage: UUID
    parent_path: str = ""
    parent_linkage: UUID | None = None


def read(path: Path) -> DiskFile:
    """Raises NotADisk, Damaged, OSError. The format is the one that the extension names."""
    with path.open("rb") as file:
        try:
            return _read_vhdx(file) if path.suffix.lower() in {".vhdx", ".avhdx"} else _read_vhd(file)
        except (struct.error, KeyError, UnicodeDecodeError) as exc:
            raise Damaged(str(exc)) from exc


def set_identifier(path: Path, identifier: UUID) -> None:
    if path.suffix.lower() == ".vhdx":
        _patch(path, _DISK_ID, identifier.bytes_le)
    else:
        _patch_footer(path, 68, identifier.bytes)


def set_physical_sector(path: Path, size: int) -> None:
    """VHDX only."""
    _patch(path, _PHYSICAL_SECTOR, struct.pack("<I", size))


def set_logical_sector(path: Path, size: int) -> None:
    """VHDX only."""
    _patch(path, _LOGICAL_SECTOR, struct.pack("<I", size))


def set_size(path: Path, size: int) -> bool:
    """Change a dynamic VHDX's size in place; False when its table of blocks is too small for that."""
    with path.open("rb") as file:
        found = _read_vhdx(file)
        _, room = _regions(file)[_BAT_REGION]
    if _bat_entries(size, found) * 8 > room:
        return False
    _patch(path, _DISK_SIZE, struct.pack("<Q", size))
    return True


def make_differencing(path: Path, parent: DiskFile, parent_path: str) -> None:
    """Turn an empty dynamic disk into a child of `parent` (the data are kept elsewhere)."""
    if path.suffix.lower() == ".vhd":
        _make_vhd_child(path, parent, parent_path)
        return
    with path.open("r+b") as file:
        offset, length = _items(file)[_FILE_PARAMETERS]
        file.seek(offset)
        block, flags = struct.unpack("<II", file.read(length))
        file.seek(offset)
        file.write(struct.pack("<II", block, flags | _HAS_PARENT))
    set_parent(path, parent, parent_path)


def set_parent(path: Path, parent: DiskFile, parent_path: str) -> None:
    """Point an existing child at its parent."""
    if path.suffix.lower() == ".vhd":
        _make_vhd_child(path, parent, parent_path)
    else:
        _write_locator(path, parent.linkage, parent_path)


def _read_vhdx(file: BinaryIO) -> DiskFile:
    if _at(file, 0, 8) != b"vhdxfile":
        raise NotADisk("no VHDX signature")
    linkage = _active_data_guid(file)
    items = _items(file)
    block, flags = struct.unpack("<II", _item(file, items, _FILE_PARAMETERS))
    (size,) = struct.unpack("<Q", _item(file, items, _DISK_SIZE))
    parent = _read_locator(_item(file, items, _PARENT_LOCATOR)) if flags & _HAS_PARENT else {}
    return DiskFile(
        format="VHDX",
        kind="Differencing" if flags & _HAS_PARENT else "Fixed" if flags & _KEEP_ALLOCATED else "Dynamic",
        size=size,
        block_size=block,
        logical_sector=struct.unpack("<I", _item(file, items, _LOGICAL_SECTOR))[0],
        physical_sector=struct.unpack("<I", _item(file, items, _PHYSICAL_SECTOR))[0],
        identifier=UUID(bytes_le=_item(file, items, _DISK_ID)),
        linkage=linkage,
        parent_path=parent.get("absolute_win32_path", ""),
        parent_linkage=UUID(parent["parent_linkage"]) if parent else None,
    )


def _active_data_guid(file: BinaryIO) -> UUID:
    """DataWriteGuid of the newer of the two headers."""
    headers = [_at(file, offset, 4096) for offset in _HEADERS]
    valid = [header for header in headers if header[:4] == b"head"]
    if not valid:
        raise Damaged("no valid header")
    newest = max(valid, key=lambda header: struct.unpack_from("<Q", header, 8)[0])
    return UUID(bytes_le=newest[32:48])


def _regions(file: BinaryIO) -> dict[UUID, tuple[int, int]]:
    for offset in _REGION_TABLES:
        table = _at(file, offset, 64 * KIB)
        if table[:4] == b"regi":
            (count,) = struct.unpack_from("<I", table, 8)
            entries = (struct.unpack_from("<16sQII", table, 16 + 32 * at) for at in range(min(count, 2047)))
            return {UUID(bytes_le=guid): (start, length) for guid, start, length, _ in entries}
    raise Damaged("no valid region table")


def _items(file: BinaryIO) -> dict[UUID, tuple[int, int]]:
    """Offset in the file and length of each metadata item."""
    start, _ = _regions(file)[_METADATA_REGION]
    table = _at(file, start, 64 * KIB)
    if table[:8] != b"metadata":
        raise Damaged("no metadata table")
    (count,) = struct.unpack_from("<H", table, 10)
    entries = (struct.unpack_from("<16sII", table, 32 + 32 * at) for at in range(min(count, 2047)))
    return {UUID(bytes_le=guid): (start + offset, length) for guid, offset, length in entries}


def _item(file: BinaryIO, items: dict[UUID, tuple[int, int]], which: UUID) -> bytes:
    return _at(file, *items[which])


def _patch(path: Path, which: UUID, value: bytes) -> None:
    with path.open("r+b") as file:
        offset, length = _items(file)[which]
        if length != len(value):
            raise Damaged(f"metadata item of {length} bytes instead of {len(value)}")
        file.seek(offset)
        file.write(value)


def _bat_entries(size: int, disk: DiskFile) -> int:
    """MS-VHDX 2.5: payload blocks, and a sector bitmap entry after each chunk of them."""
    blocks = -(-size // disk.block_size)
    chunk = (1 << 23) * disk.logical_sector // disk.block_size
    return blocks + (blocks - 1) // chunk


def _read_locator(data: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from("<H", data, 18)
    found: dict[str, str] = {}
    for at in range(count):
        key, value, key_length, value_length = struct.unpack_from("<IIHH", data, 20 + 12 * at)
        name = data[key : key + key_length].decode("utf-16-le")
        found[name] = data[value : value + value_length].decode("utf-16-le")
    return found


def _write_locator(path: Path, linkage: UUID, parent_path: str) -> None:
    """The parent locator goes to the end of the metadata region's first megabyte."""
    values = {"parent_linkage": f"{{{linkage}}}", "absolute_win32_path": parent_path}
    data = _locator(values)
    with path.open("r+b") as file:
        start, length = _regions(file)[_METADATA_REGION]
        offset = length - 64 * KIB
        table = bytearray(_at(file, start, 64 * KIB))
        (count,) = struct.unpack_from("<H", table, 10)
        at = _entry_of(table, count, _PARENT_LOCATOR)
        struct.pack_into("<16sIIII", table, 32 + 32 * at, _PARENT_LOCATOR.bytes_le, offset, len(data), 4, 0)
        struct.pack_into("<H", table, 10, max(count, at + 1))
        file.seek(start)
        file.write(table)
        file.seek(start + offset)
        file.write(data)


def _entry_of(table: bytes | bytearray, count: int, which: UUID) -> int:
    for at in range(count):
        if table[32 + 32 * at : 48 + 32 * at] == which.bytes_le:
            return at
    return count


def _locator(values: dict[str, str]) -> bytes:
    head = _VHDX_PARENT.bytes_le + struct.pack("<HH", 0, len(values))
    at = len(head) + 12 * len(values)
    entries, text = b"", b""
    for key, value in values.items():
        name, content = key.encode("utf-16-le"), value.encode("utf-16-le")
        place = at + len(text)
        entries += struct.pack("<IIHH", place, place + len(name), len(name), len(content))
        text += name + content
    return head + entries + text


def _read_vhd(file: BinaryIO) -> DiskFile:
    footer = _footer(file)
    offset, size = struct.unpack_from(">Q", footer, 16)[0], struct.unpack_from(">Q", footer, 48)[0]
    kind = _VHD_KINDS[struct.unpack_from(">I", footer, 60)[0]]
    identifier = UUID(bytes=footer[68:84])
    block, parent, parent_path = 0, None, ""
    if kind != "Fixed":
        header = _at(file, offset, 1024)
        if header[:8] != b"cxsparse":
            raise Damaged("no dynamic disk header")
        (block,) = struct.unpack_from(">I", header, 32)
        parent = UUID(bytes=header[40:56]) if kind == "Differencing" else None
        parent_path = header[64:576].decode("utf-16-be").rstrip("\0")
    return DiskFile("VHD", kind, size, block, 512, 512, identifier, identifier, parent_path, parent)


def _footer(file: BinaryIO) -> bytes:
    file.seek(0, 2)
    end = file.tell()
    if end < 512:
        raise NotADisk("too short")
    footer = _at(file, end - 512, 512)
    if footer[:8] != b"conectix":
        if _at(file, 0, 8) == b"conectix":
            raise Damaged("no footer at the end")
        raise NotADisk("no VHD footer")
    if _sum(footer, 64) != struct.unpack_from(">I", footer, 64)[0]:
        raise Damaged("wrong checksum of the footer")
    return footer


def _sum(data: bytes | bytearray, at: int) -> int:
    """VHD's checksum: the ones' complement of the sum of all bytes but the checksum's own four at `at`."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


def _footers(file: BinaryIO) -> Iterator[int]:
    """Where footers are: at the end, and a copy at the start of what is not fixed."""
    file.seek(0, 2)
    yield file.tell() - 512
    if _at(file, 0, 8) == b"conectix":
        yield 0


def _patch_footer(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        footer = bytearray(_footer(file))
        footer[at : at + len(value)] = value
        struct.pack_into(">I", footer, 64, _sum(footer, 64))
        for offset in list(_footers(file)):
            file.seek(offset)
            file.write(footer)


def _make_vhd_child(path: Path, parent: DiskFile, parent_path: str) -> None:
    _patch_footer(path, 60, struct.pack(">I", 4))
    with path.open("r+b") as file:
        (offset,) = struct.unpack_from(">Q", _footer(file), 16)
        header = bytearray(_at(file, offset, 1024))
        header[40:56] = parent.identifier.bytes
        header[64:576] = parent_path.encode("utf-16-be").ljust(512, b"\0")[:512]
        struct.pack_into(">I", header, 36, _sum(header, 36))
        file.seek(offset)
        file.write(header)


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
