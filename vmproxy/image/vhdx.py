"""VHDX for Hyper-V: dynamic, 1 MB blocks as Microsoft advises for Linux, kept by the raw disk's hash.

qemu-img writes a random identifier and the time into it, so the file itself has no stable hash.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

from vmproxy.image import cache
from vmproxy.image.cache import Image
from vmproxy.run import run


def vhdx(image: Image, *, compressed: bool, report: Callable[[str], None]) -> Path:
    """The image as VHDX, or as gzip'd VHDX for the way to a host."""
    plain = cache.folder() / f"{image.sha256}.vhdx"
    wanted = plain.with_name(plain.name + ".gz") if compressed else plain
    with cache.workshop(image.sha256) as work:
        if not plain.exists():
            report("converting the image to VHDX")
            options = "subformat=dynamic,block_size=1M"
            draft = work / "disk.vhdx"
            run(["qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, image.raw, draft])
            draft.replace(plain)
        if compressed and not wanted.exists():
            report("compressing the VHDX")
            _compress(plain, work / "disk.gz").replace(wanted)
    return wanted


def _compress(source: Path, target: Path) -> Path:
    with (
        source.open("rb") as reader,
        target.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as writer,
    ):
        shutil.copyfileobj(reader, writer, 1 << 20)
    return target
