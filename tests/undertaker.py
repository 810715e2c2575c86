"""Ends what an emulated host started, also when its process is killed.

A small process of its own, with the host's end of a pipe as its only tie: it is told what has to be ended,
line by line, and does that when the pipe closes, in reverse order. It is this file, run as a script.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PATIENCE_SECONDS = 10


class Undertaker:
    """The host's side. `key` names a task, to forget it when it has been done already."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, key: str, command: Iterable[str | Path]) -> None:
        """Run `command` at the end."""
        self._tell({"key": key, "command": [str(word) for word in command]})

    def kill(self, key: str, pid: int, word: str) -> None:
        """Kill the process at the end if `word` is in its command line: a number may be another's by then."""
        self._tell({"key": key, "pid": pid, "word": word})

    def forget(self, key: str) -> None:
        self._tell({"forget": key})

    def close(self) -> None:
        """Do all that is left, and wait for it."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    tasks: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        told = json.loads(line)
        if "forget" in told:
            tasks.pop(told["forget"], None)
        else:
            tasks[told["key"]] = told
    for task in reversed(tasks.values()):
        if "pid" in task:
            _kill(task["pid"], task["word"])
        else:
            subprocess.run(task["command"], capture_output=True, check=False)


def _kill(pid: int, word: str) -> None:
    if word not in _command_line(pid):
        return
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + _PATIENCE_SECONDS
    while word in _command_line(pid) and time.monotonic() < end:
        time.sleep(0.02)


def _command_line(pid: int) -> str:
    """Empty for a process that has ended, and for one that waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    _main()
