"""powershell.exe of the emulated host: the stand-in that standin.py finds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.winhost import standin
from tests.winhost.standin import Missing

_NSENTER = shutil.which("nsenter") or "nsenter"


def program() -> Path:
    """Raises Missing where there is none."""
    found = _found()
    if isinstance(found, Missing):
        raise found
    return found


def missing() -> str | None:
    """Why Windows PowerShell can not be stood in for here, or None."""
    found = _found()
    return str(found) if isinstance(found, Missing) else None


@cache
def _found() -> Path | Missing:
    """Looked for once in a process: a program that is given is asked for its source."""
    try:
        return standin.obtain(standin.usual(), report=standin.tell)
    except Missing as exc:
        return exc


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
        inherited: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """A new process, the first of its own process group; `inherited` are files that it has open too."""
        return subprocess.Popen(
            [*self._inside, *command],
            env=self._environment,
            cwd=self._folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=inherited,
        )
