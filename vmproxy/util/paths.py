"""Folders for files that outlive a run, according to the XDG base directory rules."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from vmproxy.errors import UsageError


def cache_dir(*parts: str) -> Path:
    """A folder for files that can be recreated: images, binaries. Created if missing."""
    return _made(Path(platformdirs.user_cache_dir("vmproxy"), *parts))


def state_dir(*parts: str) -> Path:
    """A folder for files that cannot be recreated, readable by its owner only. Created if missing."""
    return _made(Path(platformdirs.user_state_dir("vmproxy"), *parts), mode=0o700)


def expanded(path: str) -> Path:
    """With `~` replaced. Raises UsageError where this user has no home folder, as in some containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise _homeless(path) from exc


def _made(path: Path, mode: int = 0o755) -> Path:
    if path.parts[:1] == ("~",):  # platformdirs leaves it there
        raise _homeless(str(path))
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    return path


def _homeless(path: str) -> UsageError:
    return UsageError(
        f"cannot use {path}: this user has no home folder",
        hint="set HOME, or XDG_CACHE_HOME, XDG_STATE_HOME and KUBECONFIG",
    )
