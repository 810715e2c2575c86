"""SSH to a guest; the only module that uses paramiko. The host key is pinned: no trust on first use."""

from __future__ import annotations

import io
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import paramiko

from vmproxy.errors import Conflict, Forbidden, ToolFailed, Unreachable

USER = "root"
_SECONDS = 60.0
_SILENCE = 300.0
_CHUNK = 1 << 18
_MOST = 64 << 20
"""Bytes of one answer, or of one command's output."""
_NO_INPUT = "exec </dev/null\n"
"""By the shell: when the command has ended already, an end of input that we send can follow our end of the
channel, for which sshd ends the connection ("ieof packet referred to nonexistent channel")."""
_NO_CODE = -1
"""What paramiko's recv_exit_status() gives when the server gave none."""


class Ssh:
    """One connection. Use as a context manager."""

    def __init__(self, transport: paramiko.Transport, what: str) -> None:
        self._transport = transport
        self._what = what

    def __enter__(self) -> Ssh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    def alive(self) -> bool:
        return self._transport.is_active()

    def run(self, command: str) -> bytes:
        """Run a shell command, without any input, and return its stdout. It may be silent for at most five
        minutes.

        Raises ToolFailed if the command's exit code is not 0, Unreachable if the connection is lost.
        """
        with self._errors(), self._start(_NO_INPUT + command) as channel:
            out, err = self._read(channel)
            code = channel.recv_exit_status()
            if code != 0:
                raise self._failed(code, err)
        return out

    def converse(self, command: str) -> Conversation:
        """Start a command that answers each request with one line, until its stdin ends."""
        with self._errors():
            return Conversation(self, self._start(command))

    def _start(self, command: str) -> paramiko.Channel:
        channel = self._transport.open_session(timeout=_SECONDS)
        channel.settimeout(_SILENCE)
        channel.exec_command(command)
        return channel

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as exc:
            raise Unreachable(
                f"cannot continue in {self._what}: the connection was lost: {str(exc) or 'it was closed'}",
                hint="run it again",
            ) from exc

    def _read(self, channel: paramiko.Channel) -> tuple[bytes, bytes]:
        """Both streams to their end. Our commands write little to stderr, so it fits into its buffer."""
        return b"".join(self._pieces(channel.recv)), b"".join(self._pieces(channel.recv_stderr))

    def _pieces(self, receive: Callable[[int], bytes]) -> Iterator[bytes]:
        """Until the stream ends. One that never does, or that drips, is an error: Unreachable."""
        size, deadline = 0, time.monotonic() + 2 * _SILENCE
        while piece := receive(_CHUNK):
            size += len(piece)
            if size > _MOST or time.monotonic() > deadline:
                self._transport.close()
                raise Unreachable(
                    f"cannot continue in {self._what}: it does not stop sending",
                    hint="look at what runs in that VM; if nobody changed it: remove it on its host, "
                    "then run apply",
                )
            yield piece

    def _failed(self, code: int, err: bytes) -> ToolFailed:
        """Of a command that has ended: with no exit code when a signal or a lost connection ended it. Another
        channel tells which, and raises the library's error when the connection is lost."""
        if code == _NO_CODE:
            self._transport.open_session(timeout=_SECONDS).close()
        lines = err.decode(errors="replace").strip().splitlines()
        cause = lines[-1] if lines else "a signal ended it" if code == _NO_CODE else f"exit code {code}"
        return ToolFailed(f"cannot run a command in {self._what}: {cause}", details=lines[-12:-1])


class Conversation:
    """A command in the guest that answers one request at a time. It ends with its connection."""

    def __init__(self, ssh: Ssh, channel: paramiko.Channel) -> None:
        self._ssh = ssh
        self._channel = channel

    def ask(self, pieces: Iterable[bytes]) -> bytes:
        """Send one request and return the line that answers it.

        Raises ToolFailed with the last line of its stderr if the command exits instead, Unreachable
        if the connection is lost. Both end the conversation.
        """
        self.send(pieces)
        with self._ssh._errors():
            answer = bytearray()
            for piece in self._ssh._pieces(self._channel.recv):
                answer += piece
                if piece.endswith(b"\n"):
                    return bytes(answer)
            _, err = self._ssh._read(self._channel)
            raise self._ssh._failed(self._channel.recv_exit_status(), err)

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send without waiting for an answer. If the command exits early, the next `ask` raises its error.

        Raises Unreachable if the connection is lost.
        """
        with self._ssh._errors():
            try:
                for piece in pieces:
                    self._channel.sendall(piece)
            except OSError:
                if not (self._ssh.alive() and self._channel.closed):
                    raise


def connect(
    open_socket: Callable[[], socket.socket], *, host_key: str, identity: Path, key: str, what: str
) -> Ssh:
    """Log in as root with the private key `key`, in OpenSSH format, if the host presents the OpenSSH public
    key `host_key`. `identity` is the key's file, for messages.

    Raises Unreachable if nothing answers, Conflict for another host key, Forbidden if the key is refused.
    """
    try:
        channel = open_socket()
    except OSError as exc:
        raise Unreachable(f"cannot reach {what} by SSH: {exc.strerror or exc}") from exc
    channel.settimeout(_SECONDS)
    transport = paramiko.Transport(channel)
    try:
        _log_in(transport, host_key, identity, key, what)
    except BaseException:
        transport.close()
        channel.close()  # a transport that has not started leaves it open
        raise
    return Ssh(transport, what)


def _log_in(transport: paramiko.Transport, host_key: str, identity: Path, key: str, what: str) -> None:
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = _SECONDS
    wanted = _public_key(host_key, what)
    options = transport.get_security_options()
    options.key_types = (wanted.get_name(),)
    options.digests = sorted(options.digests, key=lambda name: "sha2-512" not in name)
    try:
        transport.start_client(timeout=_SECONDS)
        seen = transport.get_remote_server_key()
        if seen.asbytes() != wanted.asbytes():
            raise _other_key(what)
        transport.auth_publickey(USER, private_key(key))
    except paramiko.AuthenticationException as exc:
        raise Forbidden(
            f"cannot log in to {what}: it refuses the key {identity}",
            hint="the VM was created with another key, or its image did not read the seed",
        ) from exc
    except paramiko.SSHException as exc:
        if "no acceptable host key" in str(exc).lower() or "incompatible ssh peer" in str(exc).lower():
            raise _other_key(what) from exc
        raise Unreachable(f"cannot reach {what} by SSH: {exc}") from exc
    except (OSError, EOFError) as exc:
        raise Unreachable(f"cannot reach {what} by SSH: {str(exc) or 'the connection was lost'}") from exc


def private_key(openssh: str) -> paramiko.PKey:
    """Raises ValueError if the text contains no Ed25519, ECDSA or RSA key."""
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(openssh))
        except paramiko.SSHException:
            continue
    raise ValueError("no private key in OpenSSH format")


def _other_key(what: str) -> Conflict:
    return Conflict(
        f"cannot trust {what}: its SSH host key is not the one that vmproxy generated for it",
        hint="another machine uses its address, or its image did not read the seed (cloud-init)",
    )


def _public_key(line: str, what: str) -> paramiko.PKey:
    try:
        kind, data = line.split()[:2]
        return paramiko.PKey.from_type_string(kind, b64decode(data))
    except Exception as exc:  # a text that others may have changed; the library documents no errors here
        raise Conflict(
            f"cannot trust {what}: the SSH host key in its marker is damaged",
            hint="the marker was edited; remove that VM on its host, then run apply",
        ) from exc
