"""Where actions happen. A place can observe, apply and probe, nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vmproxy.image import Download
from vmproxy.model.net import Address
from vmproxy.model.seen import HostSeen
from vmproxy.model.steps import HostStep

Report = Callable[[str], None]
"""Takes one line about what happens now."""


@dataclass(frozen=True)
class Connection:
    """A real connection to be tried from the host. UDP sends `payload` and waits for any answer."""

    protocol: Literal["tcp", "udp"]
    address: Address
    port: int
    payload: bytes = b"vmproxy\n"


@dataclass(frozen=True)
class Answer:
    """`ok` None: nothing came back and, for UDP, that proves nothing. `via` is the next hop used."""

    ok: bool | None
    detail: str
    via: Address | None


class HostPlace(Protocol):
    """A machine that carries the VM."""

    def __enter__(self) -> HostPlace: ...

    def __exit__(self, *exc: object) -> None: ...

    def lock(self, report: Report) -> AbstractContextManager[None]:
        """Held while changing the host. Raises Busy when another vmproxy keeps it."""

    def settings(self) -> dict[str, object]:
        """The VM settings of this kind of host that do not come from the site file."""

    def observe(self) -> HostSeen: ...

    def check(self, steps: Sequence[HostStep]) -> None:
        """Raises VmproxyError when one of the steps is sure to fail: before anything is changed."""

    def do(self, step: HostStep, report: Report) -> None:
        """Carry out one step. Raises VmproxyError."""

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        """Connect from the host itself, as its applications do."""

    def trial(self, connection: Connection, via: Address) -> Answer:
        """Connect by way of a route to that one address, which is gone again afterwards."""

    def open_guest(self, address: Address, port: int) -> socket.socket:
        """A TCP connection from here to the guest. Raises OSError."""

    def console(self, lines: int) -> list[str]:
        """The last lines of the VM's serial console; empty when there is none."""

    def died(self) -> str | None:
        """Why the VM does not run any more, or None while it runs."""

    def ssh_command(self) -> list[str]:
        """What a command line for the ssh client starts with on this machine to reach the guest."""

    def symptoms(self) -> list[str]:
        """What this host sees of a VM that does not answer; a line each."""

    def image_format(self) -> Literal["raw", "vhdx"]:
        """What kind of image file `create` takes: raw, or gzip'd VHDX."""


@dataclass(frozen=True)
class Delivery:
    """What `create` and `recreate` need beside the plan: made at the time of applying.

    `image` makes the file when it is called: only when the host lacks it. `download` is where the host
    may fetch it itself.
    """

    image: Callable[[], Path]
    seed: bytes
    host_key: str
    download: Download | None = None
