"""One command of a shell: its standard streams as WinRM hands them on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.winhost.cmd import Cmd, Pipes

_PIPE = 1 << 16
"""Bytes that the program's stdin holds unread: a Send waits while it is full."""
_CONSOLE_LINE = 4094
"""Bytes of a line that a console's line input takes; the rest is lost."""
_PIECE = 16_384
_AHEAD = 4 << 20
"""Bytes of output that are kept before the program has to wait."""
_LOOK = 0.2
_ENDING = 1.0
"""Seconds for a program that waited for input and got the end of it."""
_DYING = 5.0
"""Seconds; a program that left its process group may hold the streams open for longer."""


class Broken(Exception):
    """The program does not read its stdin any more."""


class Full(Exception):
    """The program did not read its stdin in time; a part may have been written."""


@dataclass(frozen=True)
class Output:
    pieces: list[tuple[str, bytes]]
    exit_code: int | None


@dataclass
class Command:
    """Runs a line in its own interpreter, with pipes at its three streams."""

    interpreter: Cmd
    line: str
    console: bool = False
    """stdin is a console's line input (WINRS_CONSOLEMODE_STDIN): it edits and cuts lines, and never ends."""
    column: int = 0
    exit_code: int | None = None
    stdin: int | None = None
    pieces: deque[tuple[str, bytes]] = field(default_factory=deque)
    last: list[tuple[str, bytes]] = field(default_factory=list)
    """What the latest read gave."""
    waiting: int = 0
    """Bytes in `pieces`."""
    ended: bool = False
    runner: threading.Thread = field(init=False)
    changed: threading.Condition = field(default_factory=threading.Condition)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        inside, self.stdin = os.pipe()
        os.set_blocking(self.stdin, False)
        with contextlib.suppress(OSError):  # a smaller pipe serves as well
            fcntl.fcntl(self.stdin, fcntl.F_SETPIPE_SZ, _PIPE)
        outputs = {name: os.pipe() for name in ("stdout", "stderr")}
        pipes = Pipes(inside, outputs["stdout"][1], outputs["stderr"][1])
        readers = [
            threading.Thread(target=self._collect, args=(name, ends[0]), daemon=True)
            for name, ends in outputs.items()
        ]
        for reader in readers:
            reader.start()
        self.runner = threading.Thread(target=self._run, args=(pipes, readers), name="command", daemon=True)
        self.runner.start()

    def write(self, data: bytes, deadline: float, *, end: bool) -> None:
        with self.writing:
            view = memoryview(self._edited(data) if self.console else data)
            while view:
                view = view[self._write_some(view, deadline) :]
            if end and not self.console:
                self._close_stdin()

    def read(self, room: int, deadline: float, gone: Callable[[], bool]) -> Output | None:
        """The next output, at most `room` bytes; None when there is none until `deadline`."""
        with self.changed:
            while not self.pieces and self.exit_code is None:
                left = deadline - time.monotonic()
                if left <= 0 or gone():
                    return None
                self.changed.wait(min(left, _LOOK))
            return self._taken(room)

    def unread(self) -> None:
        """Put back what the latest read gave."""
        with self.changed:
            self.pieces.extendleft(reversed(self.last))
            self.waiting += sum(len(piece) for _, piece in self.last)
            self.last = []
            self.changed.notify_all()

    def close(self) -> None:
        """What a client's signal does: as end(), but a process that is kept is not killed."""
        if self.interpreter.waits_for_input():
            with self.writing:
                self._close_stdin()
            self.runner.join(_ENDING)
        self.end()

    def end(self) -> None:
        """Kill what runs, and wait until it is gone."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        self.interpreter.kill()
        self.runner.join(_DYING)

    def _edited(self, data: bytes) -> bytes:
        """Each line cut, and without control characters."""
        kept = bytearray()
        for byte in data:
            if byte == 0x0A:
                self.column = 0
                kept.append(byte)
            elif byte >= 0x20 and self.column < _CONSOLE_LINE:
                self.column += 1
                kept.append(byte)
        return bytes(kept)

    def _taken(self, room: int) -> Output:
        self.last = []
        while self.pieces and len(self.pieces[0][1]) <= room:
            name, piece = self.pieces.popleft()
            room -= len(piece) + 200  # the element around it
            self.waiting -= len(piece)
            self.last.append((name, piece))
        self.changed.notify_all()
        return Output(list(self.last), None if self.pieces else self.exit_code)

    def _write_some(self, view: memoryview, deadline: float) -> int:
        if self.stdin is None or self.ended:
            raise Broken
        try:
            return os.write(self.stdin, view)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Full from None
            select.select([], [self.stdin], [], _LOOK)
            return 0
        except OSError as exc:
            raise Broken from exc

    def _close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def _collect(self, name: str, end: int) -> None:
        while piece := os.read(end, _PIECE):
            with self.changed:
                self.pieces.append((name, piece))
                self.waiting += len(piece)
                self.changed.notify_all()
                while self.waiting > _AHEAD and not self.ended:
                    self.changed.wait()
        os.close(end)

    def _run(self, pipes: Pipes, readers: list[threading.Thread]) -> None:
        code = 1
        try:
            code = self.interpreter.run(self.line, pipes)
        finally:
            for end in (pipes.stdin, pipes.stdout, pipes.stderr):
                os.close(end)
            for reader in readers:
                reader.join()
            with self.writing:
                self._close_stdin()
            with self.changed:
                self.exit_code = code
                self.changed.notify_all()
