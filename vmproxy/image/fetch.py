"""Images from other sources: a URL with a checksum, or a file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from vmproxy.errors import BadArtifact
from vmproxy.image import cache, convert
from vmproxy.image.cache import Image
from vmproxy.util import download
from vmproxy.util.events import Report


def name_of_url(url: str) -> str:
    return Path(unquote(urlsplit(url).path)).name.partition(".")[0] or "image"


def key_of_url(url: str, sha256: str, name: str | None = None) -> str:
    return f"{name or name_of_url(url)}-{sha256[:12]}"


def key_of_file(path: Path) -> str:
    """By the file's content. Raises BadArtifact when it cannot be read."""
    try:
        return f"file-{download.file_sha256(path)[:12]}"
    except OSError as exc:
        raise BadArtifact(f"cannot use image {path}: {exc.strerror}", hint="correct image.path") from exc


def fetch(url: str, *, sha256: str, report: Report, name: str | None = None) -> Image:
    """Fetch the image and convert it to a raw disk; `name` None: the file name without extensions.

    The checksum is that of the published file. Raises Unreachable, BadArtifact.
    """
    name = name or name_of_url(url)
    key = key_of_url(url, sha256, name)
    found = cache.find(key)
    if found is not None:
        return found
    part = cache.folder() / f"{key}.download"
    with cache.workshop(key) as work:
        found = cache.find(key)
        if found is not None:
            return found
        if not part.exists():
            report(f"fetching {download.shown(url)}")
            download.fetch(url, part, sha256=sha256, report=report)
        report("converting the image to a raw disk")
        disk = convert.to_raw(convert.unpacked(part, work), work)
        image = cache.keep(key, disk, name=name, origin=download.shown(url))
    part.unlink()
    return image


def use_file(path: Path, *, report: Report) -> Image:
    """Convert the user's image file into the cache, unless it is there and the file is unchanged."""
    key = key_of_file(path)
    with cache.workshop(key) as work:
        found = cache.find(key)
        if found is not None:
            return found
        report(f"converting {path} to a raw disk")
        disk = convert.to_raw(convert.unpacked(path, work), work)
        return cache.keep(key, disk, name=path.name, origin=str(path))
