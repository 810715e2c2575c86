"""The image cache: KEY.raw and KEY.json; KEY.json is written last, so incomplete images do not count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock

from vmproxy.util import paths
from vmproxy.util.download import file_sha256


@dataclass(frozen=True)
class Image:
    """A raw disk in the cache. `origin` is its source, `size` is the disk's size in bytes."""

    name: str
    raw: Path
    sha256: str
    origin: str
    size: int


def folder() -> Path:
    return paths.cache_dir("images")


def find(key: str) -> Image | None:
    note, raw = folder() / f"{key}.json", folder() / f"{key}.raw"
    try:
        data = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return None
    image = Image(**{**data, "raw": raw})
    return image if raw.exists() and raw.stat().st_size == image.size else None


def keep(key: str, disk: Path, *, name: str, origin: str) -> Image:
    """Move a finished raw disk into the cache."""
    raw = folder() / f"{key}.raw"
    image = Image(name, raw, file_sha256(disk), origin, disk.stat().st_size)
    disk.chmod(0o644)
    disk.replace(raw)
    note = folder() / f"{key}.json"
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
