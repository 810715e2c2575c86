"""python -m vmproxy.lab.backend NAME HTTP_PORT UDP_PORT

A backend of the lab's Services. HTTP: /hostname returns NAME, /clientip the caller's address,
/bytes/N returns N bytes. UDP: returns NAME, a space, and the datagram.
"""

from __future__ import annotations

import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CHUNK = b"\0" * (1 << 16)


def handlers(name: str) -> tuple[type[BaseHTTPRequestHandler], type[socketserver.DatagramRequestHandler]]:
    class Http(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/bytes/") and self.path[7:].isdigit():
                self._bytes(int(self.path[7:]))
            elif self.path in {"/hostname", "/clientip"}:
                self._text(name if self.path == "/hostname" else self.client_address[0])
            else:
                self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the benchmarks send many requests."""

        def _text(self, text: str) -> None:
            content = (text + "\n").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _bytes(self, count: int) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(count))
            self.end_headers()
            for start in range(0, count, len(_CHUNK)):
                self.wfile.write(_CHUNK[: count - start])

    class Udp(socketserver.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(name.encode() + b" " + self.rfile.read())

    return Http, Udp


def serve(name: str, http_port: int, udp_port: int) -> None:
    http, udp = handlers(name)
    datagrams = socketserver.ThreadingUDPServer(("0.0.0.0", udp_port), udp)  # noqa: S104 (its own namespace)
    threading.Thread(target=datagrams.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", http_port), http).serve_forever()  # noqa: S104


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
