"""Folders for files that outlive a run, according to the XDG base directory rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs

from vmproxy.errors import UsageError


def cache_dir(*parts: str) -> Path:
    """A folder for files that can be recreated: images, binaries. Created if missing."""
    return _made(_of_user(platformdirs.user_cache_dir, "~/.cache"), *parts)


def state_dir(*parts: str) -> Path:
    """A folder for files that cannot be recreated, readable by its owner only. Created if missing."""
    return _made(_of_user(platformdirs.user_state_dir, "~/.local/state"), *parts, mode=0o700)


def expanded(path: str) -> Path:
    """With `~` replaced. Raises UsageError where this user has no home folder, as in some containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise _homeless(path) from exc


def _of_user(folder: Callable[[str], str], usual: str) -> Path:
    """platformdirs raises RuntimeError where there is no home folder; older ones leave a `~` in the path."""
    try:
        path = Path(folder("vmproxy"))
    except RuntimeError as exc:
        raise _homeless(usual) from exc
    if path.parts[:1] == ("~",):
        raise _homeless(usual)
    return path


def _made(base: Path, *parts: str, mode: int = 0o755) -> Path:
    path = base.joinpath(*parts)
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    return path


def _homeless(path: str) -> UsageError:
    return UsageError(
        f"cannot use {path}: this user has no home folder",
        hint="set HOME, or XDG_CACHE_HOME, XDG_STATE_HOME and KUBECONFIG",
    )
