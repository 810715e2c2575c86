"""What a run that was interrupted leaves: its workers are ended without their fixtures' ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests import names
from vmproxy import lab
from vmproxy.util import netns

_NAMESPACES = Path("/run/netns")


def clear_up() -> None:
    """Take down the labs and the namespaces of this run."""
    if os.geteuid() != 0 or not _NAMESPACES.is_dir():
        return
    for name in {lab_of(namespace) for namespace in _made(f"vmproxy-*-*{names.run()}-*")}:
        lab.down(name=name, report=print)
    for name in _made(f"vmproxy-*-*{names.run()}"):
        _remove(name)


def lab_of(namespace: str) -> str:
    """vmproxy-LAB-ROLE, where LAB ends with this run's mark."""
    before, mark, _ = namespace.removeprefix("vmproxy-").rpartition(f"{names.run()}-")
    return before + mark.removesuffix("-")


def _made(pattern: str) -> list[str]:
    return [path.name for path in _NAMESPACES.glob(pattern)]


def _remove(namespace: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    if netns.exists(namespace):
        subprocess.run(["ip", "netns", "del", namespace], check=False)
