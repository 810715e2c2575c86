"""powershell.exe of the emulated host: the stand-in `winps`, which is not a part of this project."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_NSENTER = shutil.which("nsenter") or "nsenter"
ROOT = Path(__file__).resolve().parents[2]


def shared() -> Path:
    """Where the stand-in and the tables of cmdlets are."""
    return Path(os.environ.get("VMPROXY_SHARED", ROOT.parent / "shared"))


def program() -> Path:
    return shared() / "tools/winps/bin/winps"


def missing() -> str | None:
    """Why Windows PowerShell can not be stood in for here, or None."""
    return None if os.access(program(), os.X_OK) else f"{program()} is missing (set VMPROXY_SHARED)"


class Starter:
    """Starts programs of the emulated host: with its environment, inside its network namespace.

    The environment holds WINPS_*, PSModulePath, PATH, USERPROFILE, …
    """

    def __init__(
        self, environment: Mapping[str, str], namespace: str | None = None, folder: Path | None = None
    ) -> None:
        self._environment = dict(environment)
        self._folder = folder
        # Not `ip netns exec`: that makes a namespace of mounts too, and files.py pins files by mounts.
        self._inside = [_NSENTER, f"--net=/run/netns/{namespace}"] if namespace else []

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """A new process, the first of its own process group."""
        return subprocess.Popen(
            [*self._inside, *command],
            env=self._environment,
            cwd=self._folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
