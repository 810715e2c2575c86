"""One powershell.exe on a Windows host, fed frames on stdin; its answers are lines of JSON.

The scripts are static text; everything that varies travels beside them as JSON. How the other end
works: templates/powershell/bootstrap.ps1.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from vmproxy.errors import NotReady, RemoteFailed, Unreachable, VmproxyError
from vmproxy.transport import clixml
from vmproxy.util import assets

Json = Any
IDLE = 60.0
"""Seconds without a frame after which the process ends by itself."""
AGAIN = "run the same command again: it looks first at what is there"


@dataclass(frozen=True)
class Output:
    """What a process wrote since the last look; `exit_code` is None while it runs."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int | None = None


class Process(Protocol):
    """A process on a host, as the transport gives it."""

    host: str

    def send(self, data: bytes) -> None: ...
    def receive(self, timeout: float) -> Output: ...
    def end(self) -> None: ...


@dataclass(frozen=True)
class WindowsError:
    """An error record as PowerShell gave it. `code` is the innermost HRESULT, as 80070070."""

    type: str
    id: str
    category: str
    message: str
    position: str
    code: str = ""


class PowerShellFailed(RemoteFailed):
    """A script ended with an error; `record` is Windows' own account of it."""

    def __init__(self, host: str, record: WindowsError) -> None:
        position = [line for line in record.position.splitlines() if line.strip()]
        super().__init__(
            f"cannot run PowerShell on {host}: {record.message.strip()}",
            details=[f"{record.type} ({record.id})", *position],
        )
        self.record = record


def command_line() -> tuple[str, list[str]]:
    """The command that starts the other end, and its arguments."""
    bootstrap = assets.text("powershell/bootstrap.ps1")
    kept = [line.strip() for line in bootstrap.splitlines() if not line.startswith("#")]
    encoded = base64.b64encode("\n".join(kept).encode("utf-16-le")).decode()
    return "powershell.exe", ["-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]


class PowerShell:
    """Frames in, answers out; one call at a time, from any thread.

    While it is open, an empty frame is sent whenever `keepalive` seconds pass without a call, as
    the process ends by itself after `idle` seconds: a controller that dies leaves nothing behind.
    """

    def __init__(self, process: Process, *, idle: float = IDLE, keepalive: float | None = None) -> None:
        self._process = process
        self._answers = _Answers(process, secrets.token_hex(16))
        self._idle = idle
        self._every = idle / 3 if keepalive is None else keepalive
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._frames = 0
        self._broken: VmproxyError | None = None
        self._closing = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="winrm-keepalive", daemon=True)

    def __enter__(self) -> PowerShell:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._heart.join()
        self._process.end()

    def call(
        self,
        script: str,
        data: Json = None,
        *,
        timeout: float = 120.0,
        each: Callable[[Json], None] | None = None,
    ) -> Json:
        """Run a script and return the last object it emitted; `each` is given every one as it arrives.

        `script` is the name of a file in templates/powershell, or script text. It runs with
        `param($Data, $Session)`: `data` as ConvertFrom-Json reads it, and a hashtable that lives as
        long as the process. `timeout` is in seconds; when it has passed, the process is given up.
        """
        with self._lock:
            return self._exchange(self._frame(script, data), timeout, each)

    def feed(
        self, script: str, data: Json, pieces: Callable[[Json], bytes | None], *, timeout: float
    ) -> Json:
        """As `call`, for a script that asks for input: each line it emits goes to `pieces`.

        What that returns is sent to it as it is; it reads it from `$Session.Reader`. `timeout` is
        for each answer.
        """
        with self._lock:
            answers = self._send(self._frame(script, data))
            while True:
                answer = self._answer(answers, timeout)
                if "line" not in answer:
                    return None
                piece = pieces(answer["line"])
                if piece is not None:
                    self._put(piece)

    def _exchange(self, frame: bytes, timeout: float, each: Callable[[Json], None] | None) -> Json:
        deadline = time.monotonic() + timeout
        identity = self._send(frame)
        last: Json = None
        while True:
            answer = self._answer(identity, deadline - time.monotonic())
            if "line" not in answer:
                return last
            last = answer["line"]
            if each is not None:
                each(last)

    def _frame(self, script: str, data: Json) -> bytes:
        text = assets.text(f"powershell/{script}") if script.endswith(".ps1") else script
        self._frames += 1
        frame = _line({"id": self._frames, "script": text, "data": data})
        if self._frames > 1:
            return frame
        return _line({"mark": self._answers.mark, "idle": int(self._idle * 1000)}) + frame

    def _send(self, frame: bytes) -> int:
        self._put(frame)
        return self._frames

    def _put(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            self._process.send(data)
        except VmproxyError as exc:
            self._broken = exc
            raise
        finally:
            self._last = time.monotonic()

    def _answer(self, identity: int, timeout: float) -> dict[str, Json]:
        try:
            answer = self._answers.next(identity, timeout)
        except VmproxyError as exc:
            self._broken = exc
            raise
        finally:
            self._last = time.monotonic()
        if "error" in answer:
            raise PowerShellFailed(self._process.host, WindowsError(**answer["error"]))
        return answer

    def _beat(self) -> None:
        while not self._closing.wait(max(0.05, self._last + self._every - time.monotonic())):
            with self._lock:
                if self._broken is not None or self._frames == 0:
                    self._last = time.monotonic()
                elif time.monotonic() - self._last >= self._every:
                    self._ping()

    def _ping(self) -> None:
        try:
            self._exchange(self._frame("", None), self._idle, None)
        except VmproxyError as exc:
            self._broken = exc  # told to whoever calls next


def _line(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


@dataclass
class _Answers:
    """Finds the answers among what the process writes."""

    process: Process
    mark: str
    unread: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    seen: int = 0
    scanned: int = 0
    exit_code: int | None = None

    def next(self, identity: int, timeout: float) -> dict[str, Json]:
        """The next answer to that frame; those to earlier frames are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self._read()
            if answer is None:
                self._receive(deadline - time.monotonic())
            elif answer["id"] == identity:
                return answer

    def _read(self) -> dict[str, Json] | None:
        while (end := self.unread.find(b"\n", self.scanned)) >= 0:
            line = bytes(self.unread[:end])
            del self.unread[: end + 1]
            self.scanned = 0
            _, found, text = line.partition(self.mark.encode())
            if found:
                return self._checked(text)
        self.scanned = len(self.unread)
        return None

    def _checked(self, text: bytes) -> dict[str, Json]:
        """An answer, if it is the one that follows: a gap is output that a lost connection took along."""
        self.seen += 1
        try:
            answer: dict[str, Json] = json.loads(text)
        except ValueError:
            answer = {}
        if answer.get("n") != self.seen:
            raise Unreachable(
                f"cannot read PowerShell's answer on {self.process.host}: a part of it was lost", hint=AGAIN
            )
        return answer

    def _receive(self, timeout: float) -> None:
        if timeout <= 0:
            raise NotReady(
                f"cannot wait any longer for PowerShell on {self.process.host}",
                hint=f"is the host very busy? {AGAIN}",
            )
        if self.exit_code is not None:
            raise self._ended(self.exit_code)
        output = self.process.receive(timeout)
        self.unread += output.stdout
        self.stderr += output.stderr
        self.exit_code = output.exit_code

    def _ended(self, code: int) -> RemoteFailed:
        streams = clixml.parse(bytes(self.stderr))
        told = streams.get("error", "") + "\n" + streams.get("plain", "")
        return RemoteFailed(
            f"cannot go on with PowerShell on {self.process.host}: it ended with exit code {code}",
            hint=AGAIN,
            details=[line for line in told.splitlines() if line.strip()],
        )
