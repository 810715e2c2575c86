"""What a run that was interrupted leaves: its workers are ended without their fixtures' ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from vmproxy import lab, netns

_LABS = ("it", "wh", "t1", "t2")
_NAMESPACES = Path("/run/netns")


def clear_up(since: float) -> None:
    """Take down the labs and namespaces of tests that were made after `since`, in seconds of the epoch."""
    if os.geteuid() != 0 or not _NAMESPACES.is_dir():
        return
    for name in _LABS:
        if _made(f"vmproxy-{name}-*", since):
            lab.down(name=name, report=print)
    for name in (*_made("vmproxy-p-*", since), *_made("vmproxy-n-*", since)):
        _remove(name)


def _made(pattern: str, since: float) -> list[str]:
    return [path.name for path in _NAMESPACES.glob(pattern) if path.stat().st_ctime >= since]


def _remove(namespace: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    if netns.exists(namespace):
        subprocess.run(["ip", "netns", "del", namespace], check=False)
