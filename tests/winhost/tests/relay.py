"""Something between client and host that passes bytes on."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.winhost.certificates import Pair
from vmproxy.util import netns

Both = tuple[socket.socket, socket.socket]


@contextmanager
def forwarding(
    to: int, *, address: str = "127.0.0.1", seen: bytearray | None = None, into: str | None = None
) -> Iterator[int]:
    """To a port of this machine, byte by byte; gives its own port.

    `seen` gets what passes; `into` is the network namespace with that port.
    """

    def both(one: socket.socket) -> Both:
        if into is not None:
            return one, netns.connect(into, ("127.0.0.1", to), timeout=5)
        return one, socket.create_connection(("127.0.0.1", to))

    with _listening(address, both, seen) as port:
        yield port


@contextmanager
def reencrypting(to: int, own: Pair, ca: Path) -> Iterator[int]:
    """Ends TLS with a certificate of its own, and opens another TLS connection to the host."""
    inwards = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inwards.load_cert_chain(own.certificate, own.key)
    outwards = ssl.create_default_context(cafile=str(ca))

    def both(one: socket.socket) -> Both:
        target = socket.create_connection(("127.0.0.1", to))
        return (
            inwards.wrap_socket(one, server_side=True),
            outwards.wrap_socket(target, server_hostname="localhost"),
        )

    with _listening("127.0.0.1", both, None) as port:
        yield port


@contextmanager
def _listening(
    address: str, connect: Callable[[socket.socket], Both], seen: bytearray | None
) -> Iterator[int]:
    over = threading.Event()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                thread = threading.Thread(target=_pass_on, args=(connect, client, over, seen))
                thread.start()
                stack.callback(thread.join)

    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((address, 0)))
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield int(server.getsockname()[1])
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join()


def _pass_on(
    connect: Callable[[socket.socket], Both],
    client: socket.socket,
    over: threading.Event,
    seen: bytearray | None,
) -> None:
    with suppress(OSError):
        one, other = connect(client)
        with one, other:
            while not over.is_set():
                for source in select.select([one, other], [], [], 0.05)[0]:
                    data = _read(source)
                    if data == b"":
                        return
                    if data is not None:
                        _write(other if source is one else one, data)
                        (seen if seen is not None else bytearray()).extend(data)


def _read(source: socket.socket) -> bytes | None:
    """None when TLS had something to say, but the peer had not."""
    source.settimeout(0)
    try:
        data = source.recv(1 << 16)
    except (ssl.SSLWantReadError, BlockingIOError):
        return None
    while isinstance(source, ssl.SSLSocket) and source.pending():
        data += source.recv(1 << 16)
    return data


def _write(target: socket.socket, data: bytes) -> None:
    target.settimeout(5)
    target.sendall(data)
