"""Images from other sources: a URL with a checksum, or a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vmproxy.errors import BadArtifact
from vmproxy.image import cache, convert
from vmproxy.image.cache import Image
from vmproxy.util import download
from vmproxy.util.events import Report


def fetch(url: str, *, sha256: str, report: Report, name: str | None = None) -> Image:
    """Fetch the image and convert it to a raw disk; `name` None: the file name without extensions.

    The checksum is that of the published file. Raises Unreachable, BadArtifact.
    """
    name = name or Path(unquote(urlsplit(url).path)).name.partition(".")[0] or "image"
    key = f"{name}-{sha256[:12]}"
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
    try:
        seen = path.stat()
    except OSError as exc:
        raise BadArtifact(f"cannot use image {path}: {exc.strerror}", hint="correct image.path") from exc
    stamp = f"{path.resolve()} {seen.st_size} {seen.st_mtime_ns}"
    key = f"file-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    with cache.workshop(key) as work:
        found = cache.find(key)
        if found is not None:
            return found
        report(f"converting {path} to a raw disk")
        disk = convert.to_raw(convert.unpacked(path, work), work)
        return cache.keep(key, disk, name=path.name, origin=str(path))
