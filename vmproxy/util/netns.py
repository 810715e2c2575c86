"""Linux network namespaces: sockets and commands inside them, for a process that stays outside."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Literal, TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def exists(namespace: str) -> bool:
    return _path(namespace).exists()


def run_in(namespace: str, command: Sequence[str | Path]) -> list[str]:
    """The command line that runs `command` in the namespace."""
    return ["ip", "netns", "exec", namespace, *map(str, command)]


def open_socket(namespace: str, protocol: Literal["tcp", "udp"]) -> socket.socket:
    """An IPv4 socket of the namespace, usable from outside. Raises OSError."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    return _inside(namespace, lambda: socket.socket(socket.AF_INET, kind))


def connect(namespace: str, address: tuple[str, int], *, timeout: float) -> socket.socket:
    """A TCP connection from inside the namespace. `timeout`, in seconds, is for connecting only."""
    channel = open_socket(namespace, "tcp")
    try:
        channel.settimeout(timeout)
        channel.connect(address)
        channel.settimeout(None)
    except OSError:
        channel.close()
        raise
    return channel


def _path(namespace: str) -> Path:
    return Path("/run/netns", namespace)


def _inside(namespace: str, make: Callable[[], T]) -> T:
    """Call `make` in a separate thread that enters the namespace, so that the process itself stays."""
    made: list[T] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            enter(namespace)
            made.append(make())
        except OSError as exc:
            failed.append(exc)

    thread = Thread(target=work, name=f"netns {namespace}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def enter(namespace: str) -> None:
    """This thread, and those that it starts later. Raises OSError."""
    descriptor = os.open(_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        os.close(descriptor)
