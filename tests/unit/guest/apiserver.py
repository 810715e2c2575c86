"""An HTTPS server on loopback that stands for the API server."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vmproxy.lab.pki import Pki


@dataclass
class ApiServer:
    """Gives `status` and `body` to every request, and has `promised` that many bytes more. `asked`: the
    requests' lines, headers and bodies."""

    status: int = 200
    body: bytes = b"ok"
    promised: int = 0
    port: int = 0
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def answering(pki: Pki) -> Iterator[ApiServer]:
    """The certificate is the one of `pki` for its API server."""
    state = ApiServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.certificate_file("apiserver"), pki.key_file("apiserver"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(state: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.requestline, dict(self.headers), json.loads(body) if body else None))
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.body) + state.promised))
            self.end_headers()
            self.wfile.write(state.body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    return Handler
