"""The lab's background processes: they outlive the command; only the lab's own are ever ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmproxy.errors import NotReady, ToolFailed
from vmproxy.util import netns, wait

_LAST_LINES = 12


@dataclass(frozen=True)
class Process:
    """One program of the lab. `namespace` None: it runs in the machine's own network.

    `folder` holds its log and NAME.pid: the process id and its start time in clock ticks since boot,
    so that a later process with the same id is not mistaken for it.
    """

    name: str
    folder: Path
    namespace: str | None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The process id, if it runs."""
        try:
            pid, started = self._pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _start_time(int(pid)) == started else None

    def start(self, command: Sequence[str | Path], *, pass_fds: Sequence[int] = ()) -> None:
        """Start it unless it runs. Raises ToolFailed if the program is missing."""
        if self.pid is not None:
            return
        words = netns.run_in(self.namespace, command) if self.namespace else [str(word) for word in command]
        with self.log.open("wb") as log:
            try:
                started = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=pass_fds,
                    cwd=self.folder,
                )
            except OSError as exc:
                raise ToolFailed(f"cannot start {self.name}: {exc.strerror}: {words[0]}") from exc
        started.returncode = 0  # it keeps running: nothing here waits for its end
        part = self._pid_file.with_suffix(".part")
        part.write_text(f"{started.pid} {_start_time(started.pid)}")
        part.replace(self._pid_file)

    def stop(self) -> None:
        pid = self.pid
        if pid is not None:
            end([pid])
        self._pid_file.unlink(missing_ok=True)

    def alive(self) -> bool:
        return self.pid is not None

    def last_lines(self) -> list[str]:
        try:
            return self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        except FileNotFoundError:
            return []

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"


def end(pids: Sequence[int]) -> None:
    """Send SIGTERM, then SIGKILL to those that still run."""
    started = {pid: _start_time(pid) for pid in pids}  # a later process with the same id is another's
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _left(started):
            _signal(pid, number)
        if _gone(started, seconds=5.0):
            return


def _left(started: Mapping[int, str | None]) -> list[int]:
    return [pid for pid, when in started.items() if when is not None and _start_time(pid) == when]


def _gone(started: Mapping[int, str | None], *, seconds: float) -> bool:
    def probe() -> bool | str:
        left = _left(started)
        return f"{left} still run" if left else True

    try:
        return wait.until("the end of the lab's processes", probe, timeout=seconds, every=0.05)
    except NotReady:
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None for an ended process or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]
