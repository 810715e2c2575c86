"""Conversion of disk formats with qemu-img."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
from pathlib import Path
from typing import BinaryIO, cast

from vmproxy.errors import BadArtifact, ToolFailed
from vmproxy.util.run import run

_PACKED = {b"\x1f\x8b": "gzip", b"\xfd7": "xz"}
_FORMATS = frozenset({"raw", "qcow2", "vhdx", "vpc", "vmdk"})


def unpacked(file: Path, work: Path) -> Path:
    """The file itself, or its decompressed content if it is a gzip or xz file."""
    with file.open("rb") as head:
        kind = _PACKED.get(head.read(2))
    if kind is None:
        return file
    target = work / "unpacked"
    try:
        with _unpacking(file, kind) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as exc:
        raise BadArtifact(f"cannot unpack {file.name}: {exc}", hint="fetch it again") from exc
    return target


def _unpacking(file: Path, kind: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file) if kind == "gzip" else lzma.open(file))


def to_raw(file: Path, work: Path) -> Path:
    """Convert a disk in any known format to raw. Raises BadArtifact if it is not a disk."""
    info = json.loads(run(["qemu-img", "info", "--output=json", file]).stdout)
    kind = info["format"]
    if kind not in _FORMATS:
        raise BadArtifact(f"cannot use {file.name}: unsupported format {kind}")
    target = work / "disk.raw"
    try:
        run(["qemu-img", "convert", "-f", kind, "-O", "raw", "-S", "4k", file, target])
    except ToolFailed as exc:
        raise BadArtifact(f"cannot convert {file.name}: {exc.message}", details=exc.details) from exc
    _check_bootable(target, file.name)
    return target


def _check_bootable(disk: Path, name: str) -> None:
    """A disk starts with a partition table: MBR's signature, which GPT keeps too."""
    with disk.open("rb") as file:
        if file.read(512)[510:] != b"\x55\xaa":
            raise BadArtifact(
                f"cannot use {name}: it is not a disk image (no partition table)",
                hint="use a cloud image for x86-64 with UEFI boot, in qcow2, raw, VHD or VHDX format",
            )
