r"""Windows paths as programs of the host see them: `C:\x` lies in the folder that WINPS_DRIVE_C names."""

from __future__ import annotations

import os
import re
from pathlib import Path


class Refused(Exception):
    """The program's own words, and its exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def local(path: str) -> Path:
    """The file of a Windows path, absolute or not; in whatever letters."""
    match = re.match(r"([A-Za-z]):[\\/]?(.*)", path)
    if match is None:
        start, rest = Path.cwd(), path
    else:
        root = os.environ.get(f"WINPS_DRIVE_{match[1].upper()}")
        if root is None:
            raise Refused("The system cannot find the drive specified.")
        start, rest = Path(root), match[2]
    found = start
    for name in filter(None, re.split(r"[\\/]", rest)):
        found = _entry(found, name)
    return found


def windows(path: Path) -> str:
    """The Windows path of a file on a drive."""
    for letter in "CDEFGHIJKLMNOPQRSTUVWXYZ":
        root = os.environ.get(f"WINPS_DRIVE_{letter}")
        if root and path.is_relative_to(root):
            return f"{letter}:\\" + str(path.relative_to(root)).replace("/", "\\").removeprefix(".")
    raise Refused(f"not emulated: {path} is on no drive")


def _entry(folder: Path, name: str) -> Path:
    exact = folder / name
    if name in (".", "..") or exact.exists() or not folder.is_dir():
        return exact
    return next((one for one in folder.iterdir() if one.name.lower() == name.lower()), exact)
