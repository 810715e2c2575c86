"""PowerShell processes that run one command line after another, each as a process of its own would.

A start, with the modules of the first cmdlets, takes three times what a plan then takes. What runs is the
same: bridge/warm.psm1 calls the stand-in's own Main(), in a new session. A command gets a process that is new
where another's could make a difference: where a policy, an antivirus or an event log is part of the
environment, where a stream is a file, and where the command before left open what only the end of its process
closes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.winhost.powershell import Starter

_MODULE = Path(__file__).parent / "bridge/warm.psm1"
_READ = 0
"""The number of read() on x86-64, the only processor that the stand-in is built for."""
_MOMENT = 0.25
_OF_A_PROCESS = {"WINPS_LANGUAGE_MODE", "WINPS_BLOCKED", "WINPS_EVENTS"}
"""Read once by a process, or written while it starts."""


class Running(Protocol):
    """A program that was started: the first of its own process group."""

    @property
    def pid(self) -> int: ...

    def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""

    def release(self, *, killed: bool) -> None:
        """To be called once after the end, when nobody signals the group any more; `killed`: one did."""

    def waits_for_input(self) -> bool:
        """Of a process that is kept: nothing happens in it before there is more input, or the end of it."""


@dataclass
class Alone:
    """A process that runs one command."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> int:
        return self.process.wait()

    def release(self, *, killed: bool) -> None:
        pass

    def waits_for_input(self) -> bool:
        return False


@dataclass
class _Process:
    key: str
    process: subprocess.Popen[bytes]
    connection: socket.socket


@dataclass
class _Run:
    """One command of a process that may run others later."""

    pool: Pool
    kept: _Process
    stdin: int
    over: bool = False

    @property
    def pid(self) -> int:
        return self.kept.process.pid

    def wait(self) -> int:
        answer = b""
        with suppress(ConnectionResetError):
            while not answer.endswith(b"\n") and (piece := self.kept.connection.recv(64)):
                answer += piece
        if answer.endswith(b"\n"):
            return int(answer)
        self.over = True
        return self.kept.process.wait()

    def waits_for_input(self) -> bool:
        """Also if that begins within a moment: its last output comes before it."""
        deadline = time.monotonic() + _MOMENT
        while not _reads(self.pid, self.stdin):
            if self.kept.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def release(self, *, killed: bool) -> None:
        if self.over or killed:  # also one that answered just before the signal
            _end(self.kept)
        else:
            self.pool.put(self.kept)


@dataclass
class Pool:
    """The processes of one host; those that run a command are not in it.

    Without `keep` a process runs one command.
    """

    keep: bool = False
    idle: list[_Process] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def start(
        self,
        program: Path,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        namespace: str | None,
        folder: Path | None,
        streams: Sequence[int],
    ) -> Running:
        """`streams` are the command's three, open until it ended."""
        starter = Starter(environment, namespace, folder)
        wanted = self.keep and not _OF_A_PROCESS & environment.keys()
        if not wanted or not all(map(_can_be_reopened, streams)):
            stdin, stdout, stderr = streams
            command = [str(program), *arguments]
            return Alone(starter.start(command, stdin=stdin, stdout=stdout, stderr=stderr))
        key = json.dumps([str(program), dict(environment), namespace, str(folder)], sort_keys=True)
        kept = self._take(key) or _started(key, program, starter)
        paths = [f"/proc/{os.getpid()}/fd/{one}" for one in streams]
        request = json.dumps({"arguments": list(arguments), "streams": paths}) + "\n"
        with suppress(BrokenPipeError):  # it was killed: its end is what wait() finds
            kept.connection.sendall(request.encode())
        return _Run(self, kept, streams[0])

    def put(self, kept: _Process) -> None:
        with self.lock:
            if not self.closed:
                self.idle.append(kept)
                return
        _end(kept)

    def close(self) -> None:
        """End the idle ones; the others end when they are put back."""
        with self.lock:
            self.closed = True
        self.end()

    def end(self) -> None:
        """End the idle ones."""
        with self.lock:
            idle, self.idle = self.idle, []
        for one in idle:
            _end(one)

    def _take(self, key: str) -> _Process | None:
        with self.lock:
            found = next((one for one in self.idle if one.key == key), None)
            if found:
                self.idle.remove(found)
        if found and found.process.poll() is not None:  # somebody killed it
            _end(found)
            return self._take(key)
        return found


def _reads(pid: int, stream: int) -> bool:
    """Whether a thread of the process is inside read(), of the file that is `stream` here."""
    wanted = os.readlink(f"/proc/self/fd/{stream}")
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            call = (thread / "syscall").read_text().split()
            if call[0] == str(_READ) and os.readlink(f"/proc/{pid}/fd/{int(call[1], 16)}") == wanted:
                return True
    return False


def _can_be_reopened(stream: int) -> bool:
    """By its path in /proc, which makes a file begin anew."""
    mode = os.fstat(stream).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _started(key: str, program: Path, starter: Starter) -> _Process:
    ours, its = socket.socketpair()
    with its:
        script = f"Import-Module '{_MODULE}'; Invoke-CommandLine {its.fileno()}"
        command = [str(program), "-NoProfile", "-NonInteractive", "-Command", script]
        nothing = subprocess.DEVNULL
        process = starter.start(
            command, stdin=nothing, stdout=nothing, stderr=nothing, inherited=[its.fileno()]
        )
    return _Process(key, process, ours)


def _end(kept: _Process) -> None:
    kept.connection.close()
    if kept.process.poll() is None:
        os.killpg(kept.process.pid, signal.SIGKILL)
        kept.process.wait()
