"""An HTTPS server on loopback that stands for the API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.unit.https import https
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
    with https(pki, _handler(state)) as state.port:
        yield state


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
