"""WinRM's HTTP listeners: keep-alive, one log-in per connection, sealed messages."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import cast
from urllib.parse import urlsplit

from tests.winhost import soap
from tests.winhost.auth import SEALED, Account, Directory, Gate, Refused, Undecipherable, common_name
from tests.winhost.faults import Answered, Dropped, Switchboard, strike
from tests.winhost.soap import Fault
from tests.winhost.wsman import Service

SOAP = "application/soap+xml;charset=UTF-8"
_SEALED = f'multipart/encrypted;protocol="{SEALED}";boundary="Encrypted Boundary"'
_ROUND_IT = 4096
"""Bytes that sealing and MIME add to an envelope."""


@dataclass
class Listener:
    """One port: takes connections until it is closed."""

    port_socket: socket.socket
    directory: Directory
    service: Service
    switchboard: Switchboard
    tls: ssl.SSLContext | None = None
    certificate: bytes | None = None
    keeps_unread: bool = True
    """Whether output whose answer was lost comes again with the next Receive."""
    connections: set[socket.socket] = field(default_factory=set)
    accepted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.port: int = self.port_socket.getsockname()[1]

    def start(self) -> None:
        self.port_socket.listen(64)
        threading.Thread(target=self._accept, name=f"winrm :{self.port}", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.port_socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.port_socket.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Drop every connection."""
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self.port_socket.accept()
            except OSError:
                return
            with self.lock:
                self.connections.add(connection)
                self.accepted += 1
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: object) -> None:
        plain = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with self.lock:
                self.connections.discard(plain)
                self.connections.add(connection)
            _Handler(connection, address, self)  # type: ignore[arg-type]  # what a Server is to it
        except OSError:
            return  # the client went away, or spoke no TLS
        finally:
            with self.lock:
                self.connections -= {plain, connection}
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """The messages of one connection, in turn."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Microsoft-HTTPAPI/2.0", ""
    wbufsize = -1  # headers and body leave together
    rbufsize = 1 << 16

    def setup(self) -> None:
        super().setup()
        self.listener = cast(Listener, self.server)
        subject = None
        if isinstance(self.connection, ssl.SSLSocket):
            subject = common_name(self.connection.getpeercert())
        self.gate = Gate(self.listener.directory, self.listener.certificate, subject)

    def do_POST(self) -> None:
        try:
            self._answer()
        except Dropped as exc:
            self._drop(exc.part)
        except Answered as exc:
            headers = {"Location": exc.location} if exc.location else {}
            self._reply(exc.status, exc.body, "text/html", headers=headers)

    def do_GET(self) -> None:
        self._reply(405, b"")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the switchboard records what comes."""

    def version_string(self) -> str:
        return self.server_version

    def _answer(self) -> None:
        strike(self.listener.switchboard.matching("http"), "before")
        body = self._body()
        if body is None:
            return self._reply(413, b"")
        if urlsplit(self.path).path.rstrip("/").lower() != "/wsman":
            return self._reply(404, b"")
        try:
            account, token = self.gate.admit(self.headers.get("Authorization"))
            self._take(account, body, {"WWW-Authenticate": token} if token else {})
        except Refused as exc:
            self._refuse(exc)
        except Undecipherable:
            self._reply(400, b"")

    def _take(self, account: Account, body: bytes, headers: dict[str, str]) -> None:
        """Answer who is known by now."""
        sealed = "multipart/encrypted" in self.headers.get("Content-Type", "")
        if not body:  # a client that only wants to log in
            return self._reply(200, b"", headers=headers)
        if not sealed and not self._may_be_plain():
            raise Refused(self.gate.offers())
        message = self.gate.open(body) if sealed else body
        if len(message) > self.listener.service.quotas.envelope:
            return self._reply(413, b"")
        status, answer = self._processed(account, message)
        return self._reply(status, answer, sealed=sealed, headers=headers)

    def _may_be_plain(self) -> bool:
        return self.gate.secure or self.gate.directory.allow_unencrypted

    def _body(self) -> bytes | None:
        """None when it is above what the service takes; it is read all the same."""
        length = int(self.headers.get("Content-Length", "0"))
        if length > self.listener.service.quotas.envelope + _ROUND_IT:
            while length > 0 and (read := len(self.rfile.read(min(length, 1 << 20)))):
                length -= read
            return None
        body = self.rfile.read(length)
        if len(body) < length:
            raise Dropped
        return body

    def _processed(self, account: Account, message: bytes) -> tuple[int, bytes]:
        try:
            request = soap.parse(message)
        except ValueError:
            return 400, b""
        rules = self.listener.switchboard.matching(request.operation)
        machine = self.listener.service.machine
        try:
            try:
                strike(rules, "before")
                status, answer = 200, self.listener.service.handle(account, request, self._gone)
            except Fault as exc:
                status, answer = 500, soap.fault(request.message_id, exc, machine)
            strike(rules, "after", answer)
            if request.operation == "Receive" and self._gone():
                raise Dropped
        except Fault as exc:
            return 500, soap.fault(request.message_id, exc, machine)
        except (Dropped, Answered):
            if request.operation == "Receive" and self.listener.keeps_unread:
                self.listener.service.unread(request)
            raise
        return status, answer

    def _gone(self) -> bool:
        """Whether the client hung up while it waits: it sends nothing else in that time."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def _refuse(self, refused: Refused) -> None:
        self.send_response(401)
        for offer in refused.offers:
            self.send_header("WWW-Authenticate", offer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _reply(
        self,
        status: int,
        body: bytes,
        kind: str = SOAP,
        *,
        sealed: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        if sealed and body:
            body, kind = self.gate.seal(body), _SEALED
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drop(self, part: bytes) -> None:
        """Leave the client with nothing, or with the first half of an answer."""
        if part:
            self.send_response(200)
            self.send_header("Content-Type", SOAP)
            self.send_header("Content-Length", str(len(part) * 2))
            self.end_headers()
            self.wfile.write(part)
            self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
