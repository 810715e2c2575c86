"""VHDX for Hyper-V: dynamic, 1 MB blocks as Microsoft recommends for Linux, cached by the raw disk's hash.

qemu-img writes a random identifier and the time into it, so the file itself has no stable hash.
"""

from __future__ import annotations

import gzip
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vmproxy.image import cache
from vmproxy.image.cache import Image
from vmproxy.site import model
from vmproxy.util import download
from vmproxy.util.events import Report
from vmproxy.util.run import run


@dataclass(frozen=True)
class Download:
    """A VHDX, plain or compressed with gzip, that a Hyper-V host can download and use unchanged."""

    url: str
    sha256: str

    @property
    def shown(self) -> str:
        return download.shown(self.url)


def download_of(wanted: model.Image) -> Download | None:
    """The site file's image, if a host can download it itself; None: it must be converted first."""
    if wanted.url is None or wanted.sha256 is None:
        return None
    parts = urlsplit(str(wanted.url))
    usable = parts.scheme in {"http", "https"} and unquote(parts.path).endswith((".vhdx", ".vhdx.gz"))
    return Download(str(wanted.url), wanted.sha256) if usable else None


def packed(source: Download, *, report: Report) -> Path:
    """The same file, fetched to this machine and compressed: for a host that cannot download it."""
    target = cache.folder() / f"{source.sha256}.fetched.vhdx.gz"
    with cache.workshop(source.sha256) as work:
        if not target.exists():
            report(f"fetching {source.shown}")
            file = work / "fetched"
            download.fetch(source.url, file, sha256=source.sha256, report=report)
            with file.open("rb") as head:
                is_packed = head.read(2) == b"\x1f\x8b"
            (file if is_packed else _compress(file, work / "fetched.gz")).replace(target)
    return target


def vhdx(image: Image, *, compressed: bool, report: Report) -> Path:
    """The image as VHDX; `compressed` with gzip for the transfer to a host."""
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
