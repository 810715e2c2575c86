"""Tries one connection through a given socket, and returns the result."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from vmproxy.hosts.protocols import Answer, Connection
from vmproxy.model.net import Address

_SECONDS = 5.0
_UDP_TRIES = 3

_REFUSED = {errno.ECONNREFUSED: "refused", errno.EHOSTUNREACH: "no route to host"}


def try_connection(
    connection: Connection, open_socket: Callable[[Connection], socket.socket], *, via: Address | None
) -> Answer:
    """TCP succeeds if it connects, UDP if bytes come back; no UDP reply means unknown."""
    started = time.monotonic()
    try:
        with open_socket(connection) as channel:
            channel.settimeout(_SECONDS)
            channel.connect((str(connection.address), connection.port))
            if connection.protocol == "udp" and not _echoed(channel, connection.payload):
                return Answer(None, f"no answer to {_UDP_TRIES} datagrams", via)
    except TimeoutError:
        return Answer(ok=False, detail=f"no answer within {_SECONDS:.0f} s", via=via)
    except OSError as exc:
        return Answer(ok=False, detail=_REFUSED.get(exc.errno or 0, exc.strerror or str(exc)), via=via)
    return Answer(ok=True, detail=f"answered in {(time.monotonic() - started) * 1000:.1f} ms", via=via)


def _echoed(channel: socket.socket, payload: bytes) -> bool:
    """Datagrams may be lost: resend before giving up."""
    channel.settimeout(_SECONDS / _UDP_TRIES)
    for _ in range(_UDP_TRIES):
        channel.send(payload)
        try:
            channel.recv(65536)
        except TimeoutError:
            continue
        return True
    return False
