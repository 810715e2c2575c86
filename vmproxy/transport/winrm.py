"""A Windows host's WinRM; the only module that uses pywinrm.

It uses only pywinrm's low-level Protocol. A message whose response was lost is not sent again, because
it may have taken effect; only Receive is, which returns the same output again, and once a Create that the
host did not complete in time. A shell that could not be deleted ends by itself after five minutes without
a message. No redirect is followed: it would take the log-in and the message to another server.
"""

from __future__ import annotations

import logging
import ssl
import struct
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from requests import exceptions as http
from spnego.exceptions import SpnegoError
from winrm import exceptions as wsman
from winrm import transport
from winrm.protocol import Protocol

from vmproxy.errors import Forbidden, NotReady, Unreachable, UsageError, VmproxyError
from vmproxy.transport import powershell
from vmproxy.transport import winrm_hints as hints
from vmproxy.transport.accounts import Accounts, Refused
from vmproxy.transport.powershell import AGAIN, InputClosed, Output, PowerShell
from vmproxy.util.wait import until

T = TypeVar("T")
Auth = Literal["ntlm", "kerberos", "certificate", "basic"]
_Meaning = tuple[type[VmproxyError], str, str]
_log = logging.getLogger(__name__)
logging.getLogger("winrm.vendor.requests_kerberos").setLevel(logging.CRITICAL)  # vmproxy reports its errors

_SIZES = (375_000, 110_000, 30_000)
"""Bytes per Send: with base64 and envelope, they stay below the host's 500 KB; after HTTP 413 below 150 KB,
and below the 48 KB that http.sys reads while it renegotiates TLS for a client certificate."""
_CONNECT_SECONDS = 20
_NO_SUCH_SHELL = 2150858843
_TOO_MANY = {2150859173, 2150859174, 2150859175, *range(2150859236, 2150859243)}
_ACCESS_DENIED = 5
_NO_REMOTE_SHELLS = 2150859180
_BUSY = 170
_INPUT_CLOSED = {109, 232, 233}
_LOST = (http.ConnectionError, http.Timeout, http.ChunkedEncodingError, http.ContentDecodingError)
_KERBEROS_ERRORS = {"KerberosExchangeError", "MutualAuthenticationError"}
"""By name, because importing their module needs pykerberos."""
_NOT_SOAP = (ET.ParseError, StopIteration, AssertionError, LookupError, ValueError, struct.error)
_FAULTS = (
    wsman.WinRMError,
    wsman.WinRMTransportError,
    wsman.WinRMOperationTimeoutError,
    http.RequestException,
    SpnegoError,
    PermissionError,
    *_NOT_SOAP,
)


@dataclass
class Counters:
    """The resources used so far."""

    messages: int = 0
    processes: int = 0
    connections: int = 0


@dataclass(frozen=True)
class Login:
    """How to log in. Basic and certificate need https; kerberos uses an existing ticket, and gets one for
    `service` on the host."""

    auth: Auth = "ntlm"
    username: str | None = None
    password: str | None = None
    certificate: str | None = None
    key: str | None = None
    service: str = "HTTP"

    def __repr__(self) -> str:
        return f"Login(auth={self.auth!r}, username={self.username!r})"


@dataclass(frozen=True)
class Limits:
    """In seconds: how long one message may take, and how long a lost connection is retried.

    `slow` is for messages that wait for something: an account's first log-in, which makes its profile, or a
    program that does not read its input.
    """

    operation: int = 20
    slow: int = 60
    lost: float = 30.0


class WinRM:
    """A shell on a Windows host. For use by one thread: its messages must not overlap."""

    def __init__(
        self,
        endpoint: str,
        login: Login,
        *,
        ca: str | None = None,
        limits: Limits | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        """`endpoint` is, for example, https://host:5986; `ca` is a PEM file, None means the system's CAs.
        `accounts` knows what other hosts said of the same account."""
        self.endpoint, self.host = _address(endpoint, login)
        if login.auth == "kerberos" and not transport.HAVE_KERBEROS:
            raise UsageError(
                f"cannot log in to {self.host}: pykerberos is not installed", hint=hints.KERBEROS_EXTRA
            )
        self.counters = Counters()
        self.limits = limits or Limits()
        self._login = login
        self._accounts = accounts or Accounts()
        self._ca = ca
        self._protocol: Protocol | None = None
        self._shell: str | None = None
        self._refused = False

    def __enter__(self) -> WinRM:
        try:
            with self._log_in():
                self._shell = self._open_shell()
        except VmproxyError as exc:
            if _may_have_arrived(exc.__cause__):
                exc.hint = f"{exc.hint}; {hints.LEFT}"
            raise
        finally:
            if self._shell is None:
                self._hang_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tidy("delete the shell", lambda wire: wire.close_shell(self.shell), otherwise=hints.EXPIRES)
        self._shell = None
        self._hang_up()

    def _log_in(self) -> AbstractContextManager[None]:
        """A ticket or a certificate locks no account, and neither does a local account on other hosts."""
        account, password = self._login.username, self._login.password
        if (
            self._login.auth not in {"ntlm", "basic"}
            or not account
            or not password
            or self._is_local(account)
        ):
            return nullcontext()
        return self._accounts.logging_in(account, password, self.host)

    def _is_local(self, account: str) -> bool:
        domain, backslash, _ = account.rpartition("\\")
        machine = self.host.rpartition(":")[0].partition(".")[0]
        return bool(backslash) and domain.casefold() in {".", machine.casefold()}

    def _open_shell(self) -> str:
        """Once more after a timeout: an account's first log-in can take longer than a message may."""

        def create(wire: Protocol) -> str:
            return wire.open_shell(codepage=65001, idle_timeout="PT300S")

        try:
            return self._message("open a shell", create, self.limits.slow)
        except VmproxyError as exc:
            if not isinstance(exc.__cause__, wsman.WinRMOperationTimeoutError | http.ReadTimeout):
                raise
        return self._message("open a shell", create, self.limits.slow)

    @property
    def shell(self) -> str:
        assert self._shell is not None, "the shell is open only inside its `with` block"
        return self._shell

    def powershell(self, *, idle: float = powershell.IDLE, keepalive: float | None = None) -> PowerShell:
        """Start powershell.exe, which answers frames until the `with` block ends."""
        return PowerShell(self.start(*powershell.command_line()), idle=idle, keepalive=keepalive)

    def start(self, command: str, arguments: list[str]) -> Process:
        """Start a program; cmd.exe parses the line, so it must not contain external input."""
        shell = self.shell

        def run(wire: Protocol) -> str:
            # A pipe: a console would edit and cut the input's lines.
            return wire.run_command(shell, command, arguments, console_mode_stdin=False)

        identity = self._message(f"start {command}", run, self.limits.slow)
        self.counters.processes += 1
        return Process(self, identity)

    def send(self, doing: str, action: Callable[[Any], T]) -> T:
        """Send one message with pywinrm; translates all its errors."""
        return self._message(doing, action, self.limits.slow)

    def receive(self, doing: str, action: Callable[[Any], T], *, timeout: float) -> T:
        """Send a message that may be repeated, until it is answered."""
        deadline = time.monotonic() + timeout
        lost_at: float | None = None

        def probe() -> tuple[T] | str:
            nonlocal lost_at
            try:
                answer = self._attempt(action, self._seconds(deadline))
            except wsman.WinRMOperationTimeoutError:
                lost_at = None
                return "no output"
            except _FAULTS as exc:
                lost_at = lost_at or time.monotonic()
                if not _is_lost(exc) or time.monotonic() - lost_at > self.limits.lost:
                    raise self._error(doing, exc) from exc
                return f"the connection was lost: {exc}"
            return (answer,)

        return until(f"cannot {doing} on {self.host}", probe, timeout=timeout, hint=AGAIN)[0]

    def tidy(self, doing: str, action: Callable[[Any], object], *, otherwise: str) -> None:
        """Send a last message; `otherwise` says what happens if it fails. Never retries a wrong password."""
        if self._refused:
            return
        try:
            self._message(doing, action, self.limits.operation)
        except VmproxyError as exc:
            _log.info("%s; %s", exc, otherwise)

    def _message(self, doing: str, action: Callable[[Any], T], seconds: int) -> T:
        try:
            try:
                return self._attempt(action, seconds)
            except wsman.WinRMTransportError as exc:
                if not self._was_not_opened(exc):
                    raise
                return self._attempt(action, seconds)
        except _FAULTS as exc:
            raise self._error(doing, exc) from exc

    def _was_not_opened(self, exc: wsman.WinRMTransportError) -> bool:
        """400 to an encrypted message: the host could not decrypt it, so it had no effect."""
        return exc.code == 400 and self.endpoint.startswith("http:")

    def _attempt(self, action: Callable[[Any], T], seconds: int) -> T:
        try:
            wire = self._wire()
            wire.operation_timeout_sec = seconds
            wire.transport.read_timeout_sec = _timeouts(max(seconds, self.limits.operation))
            self.counters.messages += 1
            return action(wire)
        except wsman.AuthenticationError:
            self._refused = True
            raise
        except _FAULTS as exc:
            if _is_lost(exc):
                self._hang_up()
            raise

    def _seconds(self, deadline: float) -> int:
        return max(1, min(self.limits.operation, int(deadline - time.monotonic())))

    def _wire(self) -> Protocol:
        if self._protocol is None:
            self._protocol = _protocol(self.endpoint, self._login, self._ca, self.limits)
            self.counters.connections += 1
        return self._protocol

    def _hang_up(self) -> None:
        if self._protocol is not None:
            self._protocol.transport.close_session()
            self._protocol = None

    def _error(self, doing: str, exc: Exception) -> VmproxyError:
        kind, cause, hint = _meaning(exc)
        return kind(f"cannot {doing} on {self.host}: {cause}", hint=hint)


class Process:
    """A program in the host's shell; `end` ends it, or the end of the shell."""

    def __init__(self, winrm: WinRM, identity: str) -> None:
        self.host = winrm.host
        self._winrm = winrm
        self._shell = winrm.shell
        self._identity = identity
        self._sizes = list(_SIZES)

    def send(self, data: bytes) -> None:
        """Write to its stdin. After an error, it is unknown how much arrived."""
        sent = 0
        while sent < len(data):
            piece = data[sent : sent + self._sizes[0]]
            try:
                self._deliver(piece)
            except _TooLarge:
                self._sizes = [size for size in self._sizes if size < len(piece)]
                if not self._sizes:
                    raise
            else:
                sent += len(piece)

    def _deliver(self, piece: bytes) -> None:
        """Again while the host is busy: then nothing was delivered."""

        def probe() -> Literal[True] | str:
            try:
                self._winrm.send("send input", self._sender(piece))
            except _Busy as exc:
                return exc.message
            return True

        slow = self._winrm.limits.slow
        until(f"cannot send input on {self.host}", probe, timeout=slow, every=1.0, hint=AGAIN)

    def receive(self, timeout: float) -> Output:
        """Wait for the next output. Raises NotReady after `timeout` seconds without any."""
        shell, identity = self._shell, self._identity
        out, err, code, done = self._winrm.receive(
            "read output", lambda wire: wire.get_command_output_raw(shell, identity), timeout=timeout
        )
        return Output(out, err, code if done else None)

    def end(self) -> None:
        """End it; otherwise the host ends it when its shell is deleted."""
        self._winrm.tidy(
            "end the process",
            lambda wire: wire.cleanup_command(self._shell, self._identity),
            otherwise="it ends with its shell",
        )

    def _sender(self, piece: bytes) -> Callable[[Any], None]:
        def send(wire: Protocol) -> None:
            wire.send_command_input(self._shell, self._identity, piece)

        return send


class _TooLarge(Unreachable):
    """The host, or a proxy in front of it, rejects a message of this size; it had no effect."""


class _Busy(NotReady):
    """The host cannot take a message now; it had no effect."""


def _address(endpoint: str, login: Login) -> tuple[str, str]:
    """The full URL, and host:port for messages. Rejects an endpoint that would expose a password."""
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise UsageError(f"cannot use the endpoint {endpoint}", hint="write it as https://host:5986")
    if parts.scheme == "http" and login.auth in {"basic", "certificate"}:
        raise UsageError(
            f"cannot log in to {parts.hostname}: {login.auth} over http does not protect the login",
            hint="use an https endpoint (port 5986), or auth: ntlm or kerberos, which encrypt by themselves",
        )
    port = parts.port or (5986 if parts.scheme == "https" else 5985)
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path if parts.path.strip("/") else "/wsman"
    return f"{parts.scheme}://{name}:{port}{path}", f"{name}:{port}"


def _protocol(endpoint: str, login: Login, ca: str | None, limits: Limits) -> Protocol:
    username, password = _credentials(login)
    wire = Protocol(
        endpoint,
        transport=login.auth,
        username=username,
        password=password,
        cert_pem=login.certificate,
        cert_key_pem=login.key,
        service=login.service,
        ca_trust_path=ca or _system_authorities(),  # type: ignore[arg-type]  # None: requests' own
        message_encryption="always" if endpoint.startswith("http:") else "auto",
        operation_timeout_sec=limits.operation,
        read_timeout_sec=limits.operation + 10,
        send_cbt=True,
        proxy=None,
    )
    wire.transport.__class__ = _Direct
    if login.auth == "certificate":  # otherwise requests would add a password from ~/.netrc
        wire.transport.build_session().trust_env = False
    return wire


class _Direct(transport.Transport):
    """Follows no redirect."""

    def _send_message_request(self, session: Any, prepared_request: Any) -> Any:
        session.max_redirects = 0
        return super()._send_message_request(session, prepared_request)


def _credentials(login: Login) -> tuple[Any, Any]:
    """For basic, as UTF-8: requests would take Latin-1 only."""
    if login.auth != "basic":
        return login.username, login.password
    return (login.username or "").encode(), (login.password or "").encode()


def _timeouts(seconds: int) -> Any:
    """For connecting, and for the answer, which may come a little after the operation's own timeout."""
    return _CONNECT_SECONDS, seconds + 10


def _system_authorities() -> str | None:
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath


def _is_lost(exc: Exception) -> bool:
    """Whether the connection caused the error: a new one may work."""
    if isinstance(exc, wsman.WinRMTransportError):
        return bool(exc.code == 400)
    return isinstance(exc, _LOST) and "CERTIFICATE_VERIFY_FAILED" not in str(exc)


def _may_have_arrived(exc: BaseException | None) -> bool:
    """Whether the message may have been sent, and only its response is missing."""
    lost = isinstance(exc, http.ReadTimeout | http.ChunkedEncodingError | http.ContentDecodingError)
    return lost or (isinstance(exc, http.ConnectionError) and "Connection aborted" in str(exc))


def _meaning(exc: Exception) -> _Meaning:
    """Our error class, the cause and the next step, for any error from pywinrm."""
    meaning: _Meaning
    match exc:
        case wsman.AuthenticationError():
            meaning = Refused, "the login was refused", hints.REFUSED
        case wsman.WSManFaultError():
            meaning = _fault(exc)
        case wsman.WinRMTransportError():
            meaning = _status(exc.code)
        case wsman.WinRMOperationTimeoutError():
            meaning = NotReady, "the host did not complete it in time", AGAIN
        case http.TooManyRedirects():
            meaning = Unreachable, hints.redirected(exc), hints.NOT_WINRM
        case http.SSLError():
            meaning = _certificate(str(exc))
        case http.RequestException() if type(exc).__name__ in _KERBEROS_ERRORS:
            meaning = Unreachable, f"Kerberos: {hints.gss_reason(str(exc))}", hints.NO_TICKET
        case http.RequestException():
            meaning = Unreachable, hints.root(exc), hints.NO_ANSWER
        case wsman.WinRMError() | SpnegoError() | PermissionError():
            meaning = Unreachable, str(exc), hints.REFUSED
        case _:
            meaning = Unreachable, f"the response is not from WinRM ({type(exc).__name__})", hints.NOT_WINRM
    return meaning


def _fault(exc: wsman.WSManFaultError) -> _Meaning:
    reason = " ".join((exc.reason or "").split())
    codes = {exc.wsman_fault_code, exc.wmierror_code}
    if _ACCESS_DENIED in codes:
        return Forbidden, reason, hints.NOT_ADMINISTRATOR
    if codes & _INPUT_CLOSED:
        return InputClosed, reason, AGAIN
    if _BUSY in codes:
        return _Busy, reason, AGAIN
    if _NO_REMOTE_SHELLS in codes:
        return Forbidden, reason, hints.NO_REMOTE_SHELLS
    if codes & _TOO_MANY or (exc.fault_subcode or "").endswith("QuotaLimit"):
        return NotReady, reason, hints.QUOTA
    if _NO_SUCH_SHELL in codes:
        return (
            Unreachable,
            f"its shell no longer exists: {reason}",
            f"the host or its WinRM may have restarted; {AGAIN}",
        )
    return Unreachable, f"{reason} (code {exc.wsman_fault_code or exc.wmierror_code})", AGAIN


def _status(code: int) -> _Meaning:
    if code == 413:
        return _TooLarge, "the message is too large for it (HTTP 413)", hints.QUOTA
    if code == 500:
        return Unreachable, "it rejected the message without giving a reason (HTTP 500)", hints.NOT_WINRM
    return Unreachable, f"it answered HTTP {code}", hints.NOT_WINRM


def _certificate(text: str) -> _Meaning:
    if "Hostname mismatch" in text or "IP address mismatch" in text or "doesn't match" in text:
        return Unreachable, "its certificate is for another name", hints.OTHER_NAME
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]
        return Unreachable, f"its certificate is not trusted: {reason}", hints.UNKNOWN_CA
    return Unreachable, "TLS failed", hints.NOT_TLS
