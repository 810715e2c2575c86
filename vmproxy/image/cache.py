"""The image cache: KEY.raw and KEY.json; KEY.json is written last, so incomplete images do not count."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock
from pydantic import TypeAdapter

from vmproxy.util import paths
from vmproxy.util.download import file_sha256


@dataclass(frozen=True)
class Image:
    """A raw disk in the cache. `origin` is its source, `size` is the disk's size in bytes, `made` when it was
    built or fetched, in seconds since the epoch."""

    name: str
    raw: Path
    sha256: str
    origin: str
    size: int
    made: float = 0.0

    @property
    def key(self) -> str:
        """What it was made of: it changes with the recipe, not with the packages."""
        return self.raw.stem

    @property
    def day(self) -> str:
        """When it was made, as 2026-01-31."""
        return datetime.fromtimestamp(self.made, UTC).date().isoformat()


def folder() -> Path:
    return paths.cache_dir("images")


def find(key: str) -> Image | None:
    note, raw = folder() / f"{key}.json", folder() / f"{key}.raw"
    try:
        data = {"made": raw.stat().st_mtime, **json.loads(note.read_bytes())}
        image = TypeAdapter(Image).validate_python({**data, "raw": raw})
        return image if raw.stat().st_size == image.size else None
    except (OSError, ValueError, TypeError):
        return None


def keep(key: str, disk: Path, *, name: str, origin: str) -> Image:
    """Move a finished raw disk into the cache."""
    raw, note, before = folder() / f"{key}.raw", folder() / f"{key}.json", find(key)
    image = Image(name, raw, file_sha256(disk), origin, disk.stat().st_size, time.time())
    disk.chmod(0o644)
    note.unlink(missing_ok=True)  # it is of the disk before
    disk.replace(raw)
    if before and before.sha256 != image.sha256:
        for old in folder().glob(f"{before.sha256}.*"):
            old.unlink()
    part = note.with_suffix(".part")
    part.write_text(json.dumps({**asdict(image), "raw": str(raw)}))
    part.replace(note)
    return image


def listing() -> list[Image]:
    """All images, by name."""
    keys = sorted(path.stem for path in folder().glob("*.json"))
    return sorted((image for key in keys if (image := find(key))), key=lambda image: image.name)


@contextmanager
def workshop(key: str) -> Iterator[Path]:
    """A work folder for one image, on the cache's own disk, locked by one process at a time.

    The next run removes what a killed run left there.
    """
    with filelock.FileLock(folder() / f"{key}.lock"):
        for left in folder().glob(f".{key}-*"):
            _remove(left)
        with TemporaryDirectory(prefix=f".{key}-", dir=folder()) as work:
            yield Path(work)


def _remove(path: Path) -> None:
    for item in sorted(path.rglob("*"), reverse=True):
        item.rmdir() if item.is_dir() and not item.is_symlink() else item.unlink()
    path.rmdir()
