"""One powershell.exe on a Windows host, which reads frames from stdin and answers with lines of JSON.

The scripts are static text; all variable data is sent separately, as JSON. The other end is
templates/powershell/bootstrap.ps1.
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

from vmproxy.errors import Forbidden, NotReady, RemoteFailed, Unreachable, VmproxyError
from vmproxy.transport import clixml
from vmproxy.util import assets

Json = Any
IDLE = 60.0
"""Seconds without a frame after which the process exits by itself."""
SCANNER = (
    "a virus scanner on the host (AMSI) blocked vmproxy's script: allow it there for this account; to "
    "exclude a folder does not help, because the script is not a file"
)
_BLOCKED = "ScriptContainedMaliciousContent"
_LANGUAGE_MODE = "LanguageMode: "
_CONSTRAINED = (
    "an application control policy (AppLocker, WDAC) restricts PowerShell for this account: let it run "
    "unrestricted (FullLanguage), or use an account that the policy does not cover"
)
_OUT_OF_MEMORY = {0xC0000017, 0xC000012D, 0xC0000044}
"""Exit codes: STATUS_NO_MEMORY, STATUS_COMMITMENT_LIMIT, STATUS_QUOTA_EXCEEDED."""
_MEMORY_QUOTA = "raise MaxMemoryPerShellMB (`winrm get winrm/config/winrs` on the host); 1024 is the default"
_LAST_WORDS_SECONDS = 10.0
AGAIN = "run the same command again: it first checks what was already done"


@dataclass(frozen=True)
class Output:
    """What a process wrote since the last call; `exit_code` is None while it runs."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int | None = None


class Process(Protocol):
    """A process on a host, as provided by the transport."""

    host: str

    def send(self, data: bytes) -> None: ...
    def receive(self, timeout: float) -> Output: ...
    def end(self) -> None: ...


class InputClosed(Unreachable):
    """The process does not read its input any more: it has exited, or is about to."""


@dataclass(frozen=True)
class WindowsError:
    """A PowerShell error record. `code` is the innermost HRESULT, such as 80070070."""

    type: str
    id: str
    category: str
    message: str
    position: str
    code: str = ""


class PowerShellFailed(RemoteFailed):
    """A script failed; `record` is the error record from Windows."""

    def __init__(self, host: str, record: WindowsError) -> None:
        position = [line for line in record.position.splitlines() if line.strip()]
        super().__init__(
            f"cannot run PowerShell on {host}: {record.message.strip()}",
            details=[f"{record.type} ({record.id})", *position],
        )
        self.record = record


def command_line() -> tuple[str, list[str]]:
    """The program that runs the other end, and its arguments."""
    bootstrap = assets.text("powershell/bootstrap.ps1")
    kept = [line.strip() for line in bootstrap.splitlines() if not line.startswith("#")]
    encoded = base64.b64encode("\n".join(kept).encode("utf-16-le")).decode()
    return "powershell.exe", ["-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]


class PowerShell:
    """Sends frames and reads answers; one call at a time, from any thread.

    While it is open, it sends an empty frame whenever `keepalive` seconds pass without a call, because
    the process exits after `idle` seconds without one: a controller that dies leaves nothing behind.
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
        """Run a script and return the last object that it emits; `each` gets every object as it arrives.

        `script` is the name of a file in templates/powershell, or script text. It runs with
        `param($Data, $Session)`: `data` as ConvertFrom-Json parses it, and a hashtable that lives as
        long as the process. `timeout` is in seconds; after it, the process is no longer usable.
        """
        with self._lock:
            return self._exchange(self._frame(script, data), timeout, each)

    def feed(
        self, script: str, data: Json, pieces: Callable[[Json], bytes | None], *, timeout: float
    ) -> Json:
        """Like `call`, for a script that requests input: each line that it emits goes to `pieces`.

        The script reads the result, sent unchanged, from `$Session.Reader`. `timeout` is for each
        answer.
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
        except InputClosed as exc:
            self._broken = self._answers.last_words(_LAST_WORDS_SECONDS) or exc
            raise self._broken from exc
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
            self._broken = exc  # the next call raises it


def _line(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


@dataclass
class _Answers:
    """Finds the answers in the process's output."""

    process: Process
    mark: str
    unread: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    beside: tuple[str, ...] = ()
    """The last lines that are no answers."""
    seen: int = 0
    scanned: int = 0
    exit_code: int | None = None

    def next(self, identity: int, timeout: float) -> dict[str, Json]:
        """The next answer to that frame; answers to earlier frames are dropped."""
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
            self.beside = (*self.beside[-9:], line.decode(errors="replace").strip())
        self.scanned = len(self.unread)
        return None

    def _checked(self, text: bytes) -> dict[str, Json]:
        """Checks the sequence number of an answer: a gap means that a lost connection lost output."""
        self.seen += 1
        try:
            answer: dict[str, Json] = json.loads(text)
        except ValueError:
            answer = {}
        if answer.get("n") != self.seen:
            raise Unreachable(
                f"cannot read PowerShell's answer on {self.process.host}: part of the output was lost",
                hint=AGAIN,
            )
        return answer

    def last_words(self, timeout: float) -> VmproxyError | None:
        """Why the process ended; None if it cannot be found out."""
        deadline = time.monotonic() + timeout
        try:
            while self.exit_code is None:
                self._receive(deadline - time.monotonic())
        except VmproxyError:
            return None
        self._read()
        return self._ended(self.exit_code)

    def _receive(self, timeout: float) -> None:
        if timeout <= 0:
            raise NotReady(
                f"cannot get an answer from PowerShell on {self.process.host}: timed out",
                hint=f"the host may be overloaded; {AGAIN}",
            )
        if self.exit_code is not None:
            raise self._ended(self.exit_code)
        output = self.process.receive(timeout)
        self.unread += output.stdout
        self.stderr += output.stderr
        self.exit_code = output.exit_code

    def _ended(self, code: int) -> VmproxyError:
        host = self.process.host
        mode = [line.removeprefix(_LANGUAGE_MODE) for line in self.beside if line.startswith(_LANGUAGE_MODE)]
        if mode:
            return Forbidden(f"cannot run PowerShell on {host}: it is in {mode[0]} mode", hint=_CONSTRAINED)
        if code & 0xFFFFFFFF in _OUT_OF_MEMORY:
            return NotReady(f"cannot continue PowerShell on {host}: it ran out of memory", hint=_MEMORY_QUOTA)
        streams = clixml.parse(bytes(self.stderr))
        written = streams.get("error", "") + "\n" + streams.get("plain", "")
        return RemoteFailed(
            f"cannot continue PowerShell on {host}: it exited with code {code}",
            hint=SCANNER if _BLOCKED in "".join(written.split()) else AGAIN,
            details=[line for line in (*self.beside, *written.splitlines()) if line.strip()],
        )
