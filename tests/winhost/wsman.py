"""The service behind WinRM's wire: shells, their commands, and its quotas."""

from __future__ import annotations

import base64
import binascii
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.winhost import soap, wsman_faults
from tests.winhost.auth import Account
from tests.winhost.cmd import Cmd
from tests.winhost.command import Broken, Command, Full
from tests.winhost.soap import Request

_SIGNALS = {"terminate": True, "ctrl_c": False, "ctrl_break": False}
"""By the last word of the code: whether the command is forgotten too."""
_OVERHEAD = 2_000
"""Bytes of an answer to Receive that are not output."""


@dataclass
class Quotas:
    """`winrm get winrm/config`."""

    envelope: int = 500 * 1024
    shells_per_user: int = 30
    users: int = 10
    processes_per_shell: int = 25
    operations_per_user: int = 1500
    longest_wait: float = 60.0
    remote_shells: bool = True
    """AllowRemoteShellAccess."""
    first_login: float = 0.0
    """Seconds that an account's first shell takes: its profile is made."""
    idle: float = 7200.0


@dataclass
class Shell:
    """One winrs shell: it belongs to its user, and outlives connections."""

    identity: str
    owner: Account
    interpreter: Callable[[], Cmd]
    idle: float
    commands: dict[str, Command] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)
    busy: int = 0
    """Messages that are being answered."""

    def expires(self) -> float:
        return time.monotonic() + self.idle if self.busy else self.used + self.idle

    def running(self) -> int:
        return sum(one.exit_code is None for one in self.commands.values())

    def close(self) -> None:
        """As its client deletes it."""
        for command in self.commands.values():
            command.close()

    def end(self) -> None:
        for command in self.commands.values():
            command.end()


@dataclass
class Service:
    """WS-Management's windows/shell/cmd resource."""

    machine: str
    may_open: Callable[[Account], bool]
    interpreter: Callable[[Account, Mapping[str, str]], Cmd]
    """A cmd.exe for that account, with the shell's own variables."""
    quotas: Quotas = field(default_factory=Quotas)
    shells: dict[str, Shell] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    """How many an account started in shells that are still open."""
    command_lines: list[str] = field(default_factory=list)
    profiles: dict[str, float] = field(default_factory=dict)
    """When each account's profile is complete."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, account: Account, request: Request, gone: Callable[[], bool]) -> bytes:
        """Answer a message; `gone` tells that nobody waits for the answer any more."""
        self.expire()
        if not request.resource.startswith(soap.SHELL):
            raise wsman_faults.unsupported(request.resource)
        if request.operation == "Create":
            return self._create(account, request)
        answer = _OPERATIONS.get(request.operation)
        if answer is None:
            raise wsman_faults.unsupported(request.operation)
        shell = self._shell(account, request.shell)
        shell.busy += 1
        try:
            return answer(self, shell, request, gone)
        finally:
            shell.busy -= 1
            shell.used = time.monotonic()

    def expire(self) -> None:
        """End the shells that no message came for."""
        with self.lock:
            late = [one for one in self.shells.values() if one.expires() <= time.monotonic()]
            for shell in late:
                self._forget(shell)
        for shell in late:
            shell.end()

    def end(self) -> None:
        """The service stops: every shell ends."""
        with self.lock:
            shells = list(self.shells.values())
            for shell in shells:
                self._forget(shell)
        for shell in shells:
            shell.end()

    def _create(self, account: Account, request: Request) -> bytes:
        if not self.quotas.remote_shells:
            raise wsman_faults.no_remote_shells()
        if not self.may_open(account):
            raise wsman_faults.denied()
        self._wait_for_profile(account, time.monotonic() + self._patience(request))
        idle = request.text("rsp:Shell/rsp:IdleTimeOut") or f"PT{self.quotas.idle:.3f}S"
        try:
            seconds = soap.seconds(idle)
        except ValueError as exc:
            raise wsman_faults.invalid("IdleTimeOut") from exc
        variables = self._settings(request)
        shell = Shell(
            identity=str(uuid.uuid4()).upper(),
            owner=account,
            interpreter=lambda: self.interpreter(account, variables),
            idle=seconds,
        )
        with self.lock:
            self._admit(account)
            self.shells[shell.identity] = shell
        return soap.created(request, shell.identity, _described(shell, request))

    def _wait_for_profile(self, account: Account, deadline: float) -> None:
        """It goes on being made when the message that began it has timed out."""
        with self.lock:
            done = self.profiles.setdefault(account.name, time.monotonic() + self.quotas.first_login)
        time.sleep(max(0.0, min(done, deadline) - time.monotonic()))
        if done > deadline:
            raise wsman_faults.timed_out()

    @staticmethod
    def _settings(request: Request) -> dict[str, str]:
        """The shell's variables, and its options and folder as the interpreter's own."""
        settings = {
            one.get("Name", ""): one.text or ""
            for one in request.body.iterfind("rsp:Shell/rsp:Environment/rsp:Variable", soap.NAMESPACES)
        }
        settings["WINPS_CODEPAGE"] = request.options.get("WINRS_CODEPAGE", "437")
        folder = request.text("rsp:Shell/rsp:WorkingDirectory")
        return settings | ({"USERPROFILE": folder} if folder else {})

    def _admit(self, account: Account) -> None:
        own = [one for one in self.shells.values() if one.owner is account]
        if len(own) >= self.quotas.shells_per_user:
            raise wsman_faults.too_many_shells()
        if not own and len({one.owner.name for one in self.shells.values()}) >= self.quotas.users:
            raise wsman_faults.too_many_users()

    def _shell(self, account: Account, identity: str | None) -> Shell:
        with self.lock:
            shell = self.shells.get((identity or "").upper())
        if shell is None or shell.owner is not account:
            raise wsman_faults.gone("shell")
        return shell

    def _forget(self, shell: Shell) -> None:
        del self.shells[shell.identity]
        if not any(one.owner is shell.owner for one in self.shells.values()):
            self.commands.pop(shell.owner.name, None)

    def _command(self, shell: Shell, request: Request, gone: Callable[[], bool]) -> bytes:
        name = request.text("rsp:CommandLine/rsp:Command")
        words = request.body.iterfind("rsp:CommandLine/rsp:Arguments", soap.NAMESPACES)
        line = " ".join([name, *(one.text or "" for one in words)])
        with self.lock:
            started = self.commands.get(shell.owner.name, 0)
            if started >= self.quotas.operations_per_user:
                raise wsman_faults.too_many_operations()
            if shell.running() >= self.quotas.processes_per_shell:
                raise wsman_faults.too_many_processes()
            self.commands[shell.owner.name] = started + 1
            self.command_lines.append(line)
            console = request.options.get("WINRS_CONSOLEMODE_STDIN", "FALSE").upper() == "TRUE"
            command = Command(shell.interpreter(), line, console)
            command.start()
            identity = str(uuid.uuid4()).upper()
            shell.commands[identity] = command
        body = f"<rsp:CommandResponse><rsp:CommandId>{identity}</rsp:CommandId></rsp:CommandResponse>"
        return soap.answer(request, body)

    def _send(self, shell: Shell, request: Request, gone: Callable[[], bool]) -> bytes:
        deadline = time.monotonic() + self._patience(request)
        for stream in request.body.iterfind("rsp:Send/rsp:Stream", soap.NAMESPACES):
            _, command = _named(shell, stream.get("CommandId"))
            if stream.get("Name") != "stdin":
                raise wsman_faults.invalid("Stream")
            try:
                data = base64.b64decode(stream.text or "", validate=True)
                command.write(data, deadline, end=stream.get("End", "").lower() in {"true", "1"})
            except binascii.Error as exc:
                raise wsman_faults.invalid("Stream") from exc
            except Broken as exc:
                raise wsman_faults.pipe_closed() from exc
            except Full as exc:
                raise wsman_faults.timed_out() from exc
        return soap.answer(request, "<rsp:SendResponse/>")

    def _receive(self, shell: Shell, request: Request, gone: Callable[[], bool]) -> bytes:
        wanted = request.find("rsp:Receive/rsp:DesiredStream")
        identity, command = _named(shell, wanted.get("CommandId") if wanted is not None else None)
        room = (min(request.envelope, self.quotas.envelope) - _OVERHEAD) * 3 // 4
        output = command.read(room, time.monotonic() + self._patience(request), gone)
        if output is None:
            raise wsman_faults.timed_out()
        streams = [
            soap.stream(name, identity, base64.b64encode(piece).decode()) for name, piece in output.pieces
        ]
        if output.exit_code is not None:
            streams += [soap.stream(name, identity, "", end=True) for name in ("stdout", "stderr")]
        told = "".join(streams) + soap.state(identity, output.exit_code)
        return soap.answer(request, f"<rsp:ReceiveResponse>{told}</rsp:ReceiveResponse>")

    def unread(self, request: Request) -> None:
        """The answer to a Receive did not arrive: the next one gets the same output."""
        wanted = request.find("rsp:Receive/rsp:DesiredStream")
        shell = self.shells.get((request.shell or "").upper())
        if wanted is not None and shell is not None:
            command = shell.commands.get((wanted.get("CommandId") or "").upper())
            if command is not None:
                command.unread()

    def _signal(self, shell: Shell, request: Request, gone: Callable[[], bool]) -> bytes:
        signal = request.find("rsp:Signal")
        identity, command = _named(shell, signal.get("CommandId") if signal is not None else None)
        word = request.text("rsp:Signal/rsp:Code").rsplit("/", 1)[-1].lower()
        if word not in _SIGNALS:
            raise wsman_faults.invalid("Code")
        command.close()
        if _SIGNALS[word]:
            shell.commands.pop(identity, None)
        return soap.answer(request, "<rsp:SignalResponse/>")

    def _delete(self, shell: Shell, request: Request, gone: Callable[[], bool]) -> bytes:
        with self.lock:
            if shell.identity in self.shells:
                self._forget(shell)
        shell.close()
        return soap.answer(request, "")

    def _patience(self, request: Request) -> float:
        return min(request.timeout, self.quotas.longest_wait)


def _described(shell: Shell, request: Request) -> dict[str, str]:
    return {
        "ResourceUri": soap.CMD,
        "Owner": shell.owner.name,
        "ClientIP": "127.0.0.1",
        "IdleTimeOut": f"PT{shell.idle:.3f}S",
        "InputStreams": request.text("rsp:Shell/rsp:InputStreams", "stdin"),
        "OutputStreams": request.text("rsp:Shell/rsp:OutputStreams", "stdout stderr"),
        "ShellRunTime": "P0DT0H0M0S",
        "ShellInactivity": "P0DT0H0M0S",
    }


def _named(shell: Shell, identity: str | None) -> tuple[str, Command]:
    if not identity:
        raise wsman_faults.wrong_parameter()
    command = shell.commands.get(identity.upper())
    if command is None:
        raise wsman_faults.gone("command")
    return identity, command


_Operation = Callable[[Service, Shell, Request, Callable[[], bool]], bytes]
_OPERATIONS: dict[str, _Operation] = {
    "Command": Service._command,
    "Send": Service._send,
    "Receive": Service._receive,
    "Signal": Service._signal,
    "Delete": Service._delete,
}
