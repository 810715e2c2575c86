"""An API server on loopback that answers as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.unit.https import https
from vmproxy.lab.pki import Pki


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Answers = Callable[[str, str], Answer]
"""By method and path, with its query."""


@dataclass
class Api:
    """`asked`: method and path of each request; `headers` of each."""

    port: int
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[Message] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@contextmanager
def serving(pki: Pki, answers: Answers) -> Iterator[Api]:
    api = Api(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            api.asked.append((self.command, self.path))
            api.headers.append(self.headers)
            answer = answers(self.command, self.path)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with https(pki, Handler) as api.port:
        yield api
