"""What cmdlets do: a request from PowerShell in, objects and errors out."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.winhost.values import (
    Byte,
    CimEnum,
    DateTime,
    Enum,
    Guid,
    Int64,
    Item,
    Ref,
    TimeSpan,
    UInt16,
    UInt32,
    UInt64,
    Version,
    encoded,
)

if TYPE_CHECKING:
    from tests.winhost.state import Host

__all__ = [
    "Byte",
    "Call",
    "CimEnum",
    "CmdletError",
    "CmdletFault",
    "DateTime",
    "Enum",
    "Guid",
    "Int64",
    "Item",
    "Ref",
    "TimeSpan",
    "UInt16",
    "UInt32",
    "UInt64",
    "Version",
    "Warn",
    "emulates",
    "rereads",
    "serving",
]


class CmdletError(Exception):
    """An error record.

    `error_id` is without the ",Cmdlet" that PowerShell adds. Yielded among the items, or raised
    with `terminating=False`, it is a record on the error stream; else it ends the command.
    """

    def __init__(
        self,
        message: str,
        *,
        exception: str = "System.InvalidOperationException",
        error_id: str = "InvalidOperation",
        category: str = "InvalidOperation",
        target: object = None,
        terminating: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exception = exception
        self.error_id = error_id
        self.category = category
        self.target = target
        self.terminating = terminating


@dataclass(frozen=True)
class Warn:
    """A line on the warning stream."""

    message: str


@dataclass(frozen=True)
class Call:
    """One call of a cmdlet: for pipeline input, one for each object."""

    cmdlet: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameter_set: str = ""
    version: str = "2022"

    def get(self, name: str, default: Any = None) -> Any:
        return self.parameters.get(name, default)

    def switch(self, name: str) -> bool:
        return bool(self.parameters.get(name, False))

    def has(self, name: str) -> bool:
        """Given at all: `-Path $null` is."""
        return name in self.parameters

    def list(self, name: str) -> list[Any]:
        """The values of a parameter that takes several; one alone too."""
        value = self.parameters.get(name)
        if value is None:
            return []
        return list(value) if isinstance(value, list) else [value]


Output = Item | CmdletError | Warn | str | int | bool | None
Behaviour = Callable[["Host", Call], Iterable[Any] | None]


@dataclass(frozen=True)
class Emulated:
    """A cmdlet's behaviour; `alone` means that nothing else changes the host meanwhile."""

    function: Behaviour
    alone: bool


BEHAVIOURS: dict[str, Emulated] = {}


def emulates(*names: str, alone: bool = True) -> Callable[[Behaviour], Behaviour]:
    """Register what cmdlets do; `alone=False` for those that wait: they take `host.lock` themselves."""

    def register(function: Behaviour) -> Behaviour:
        for name in names:
            if name.lower() in BEHAVIOURS:
                raise ValueError(f"{name} is emulated twice")
            BEHAVIOURS[name.lower()] = Emulated(function, alone)
        return function

    return register


Reading = Callable[["Host", str], Item | None]
LIVE: dict[str, Reading] = {}
"""Classes whose objects show what is now: how one is read again, by its id. None: it is gone."""


def rereads(kind: str) -> Callable[[Reading], Reading]:
    """Register how objects of a class are read again."""

    def register(function: Reading) -> Reading:
        LIVE[kind] = function
        return function

    return register


@dataclass
class CmdletFault:
    """The `nth` call of a cmdlet, and `times` from there on, is slow or fails; it fails without `seconds`.

    `after`: the error comes when the cmdlet has done its work.
    """

    cmdlet: str
    nth: int = 1
    times: int = 1
    seconds: float = 0.0
    error: CmdletError | None = None
    after: bool = False
    seen: int = 0

    def hits(self) -> bool:
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times

    def strike(self) -> None:
        time.sleep(self.seconds)
        if self.error is not None or not self.seconds:
            raise self.error or CmdletError("The operation failed.", error_id="OperationFailed")


def outputs(host: Host, call: Call) -> Iterator[Output]:
    """What a call gives, item by item; raises CmdletError where it ends."""
    emulated = BEHAVIOURS.get(call.cmdlet.lower())
    if emulated is None:
        raise not_emulated(call.cmdlet)
    host.calls.append(call)
    faults = [fault for fault in host.faults if fault.cmdlet.lower() == call.cmdlet.lower() and fault.hits()]
    for fault in (one for one in faults if not one.after):
        fault.strike()
    with host.lock if emulated.alone else nullcontext():
        host.require(call)
        yield from emulated.function(host, call) or ()
    for fault in (one for one in faults if one.after):
        fault.strike()


def not_emulated(what: str) -> CmdletError:
    return CmdletError(
        f"not emulated: {what}",
        exception="System.NotImplementedException",
        error_id="NotEmulated",
        category="NotImplemented",
        target=what,
    )


def answer(host: Host, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request's answer, ready for JSON: `outputs`, and `error` where it ended early.

    For an object that is read again, `item`.
    """
    if "refresh" in request:
        ref = _decoded(request["refresh"])
        with host.lock:
            return {"item": encoded(LIVE[ref.type](host, ref.id))}
    call = Call(request["cmdlet"], _decoded(request["parameters"]), request["set"], host.version)
    sent: list[Any] = []
    try:
        for output in outputs(host, call):
            sent.append(_outgoing(output))
    except CmdletError as exc:
        return {"outputs": sent, "error": _record(exc)}
    return {"outputs": sent, "error": None}


def _outgoing(output: Output) -> dict[str, Any]:
    if isinstance(output, CmdletError):
        return {"error": _record(output)}
    if isinstance(output, Warn):
        return {"warning": output.message}
    return {"value": encoded(output)}


def _record(error: CmdletError) -> dict[str, Any]:
    return {
        "message": error.message,
        "exception": error.exception,
        "id": error.error_id,
        "category": error.category,
        "target": encoded(error.target),
        "terminating": error.terminating,
    }


def _decoded(value: Any) -> Any:
    """A parameter as PowerShell sent it: `{"$ref": …}` is an object of ours."""
    if isinstance(value, dict) and "$ref" in value:
        return Ref(value["$type"], value["$ref"])
    if isinstance(value, dict):
        return {name: _decoded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    host: Host


class _Handler(socketserver.StreamRequestHandler):
    """One PowerShell process's connection: a request a line, an answer a line."""

    server: _Server

    def handle(self) -> None:
        """Until PowerShell ends; killed in the middle of a call, it does not read the answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer()

    def _answer(self) -> None:
        for line in self.rfile:
            try:
                said = answer(self.server.host, json.loads(line))
            except Exception as exc:
                self.server.host.mistakes.append(exc)
                said = {"outputs": [], "error": _record(not_emulated(f"mistake in the emulator: {exc!r}"))}
            self.wfile.write(json.dumps(said).encode() + b"\n")


@contextmanager
def serving(host: Host, socket: Path) -> Iterator[Path]:
    """Answer PowerShell's requests on a unix socket: what WINHOST_ENGINE names."""
    socket.unlink(missing_ok=True)
    with _Server(str(socket), _Handler) as server:
        server.host = host
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield socket
        finally:
            server.shutdown()
            thread.join()
            socket.unlink(missing_ok=True)
