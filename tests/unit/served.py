"""A web server on loopback that can cut a download off, for tests of fetching."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """`files` by path. `cuts` is how many answers end after half of their bytes, `busy` how many say 503.
    `headers` go with each answer. `asked` are the requests."""

    files: dict[str, bytes]
    cuts: int = 0
    busy: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(
    files: dict[str, bytes], *, cuts: int = 0, busy: int = 0, headers: dict[str, str] | None = None
) -> Iterator[Served]:
    served = Served(files, cuts, busy, headers or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.append((self.path, self.headers.get("Range")))
            if served.busy:
                served.busy -= 1
                self.send_error(503)
                return
            content = served.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = _start(self.headers.get("Range"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            rest = content[start:]
            if served.cuts and not self.path.endswith(".sha256"):
                served.cuts -= 1
                rest = rest[: len(rest) // 2]
                self.close_connection = True
            self.wfile.write(rest)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _start(header: str | None) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", header or "")
    return int(match[1]) if match else 0
