"""Folders for files that outlive a run, according to the XDG base directory rules."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def cache_dir(*parts: str) -> Path:
    """A folder for files that can be recreated: images, binaries. Created if missing."""
    return _made(Path(platformdirs.user_cache_dir("vmproxy"), *parts))


def state_dir(*parts: str) -> Path:
    """A folder for files that cannot be recreated, readable by its owner only. Created if missing."""
    return _made(Path(platformdirs.user_state_dir("vmproxy"), *parts), mode=0o700)


def _made(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    return path
