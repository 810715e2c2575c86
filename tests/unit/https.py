"""An HTTPS server on loopback with the certificate that a PKI has for its API server."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vmproxy.lab.pki import Pki
from vmproxy.util import netns


@contextmanager
def https(pki: Pki, handler: type[BaseHTTPRequestHandler], namespace: str | None = None) -> Iterator[int]:
    """Its port, on this machine's loopback or on that of a network namespace."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
    if namespace:
        server.socket.close()
        server.socket = netns.open_socket(namespace, "tcp")
    server.server_bind()
    server.server_activate()
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.certificate_file("apiserver"), pki.key_file("apiserver"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
