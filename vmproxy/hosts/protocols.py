"""The interface to a host: lock, observe, apply, probe."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vmproxy.image import Download
from vmproxy.model.plan import Action, Outcome
from vmproxy.model.seen import HostSeen

Report = Callable[[str], None]
"""Receives progress, one line per call."""


@dataclass(frozen=True)
class Connection:
    """A connection to try from the host. UDP sends `payload` and waits for any reply."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    payload: bytes = b"vmproxy\n"


@dataclass(frozen=True)
class Answer:
    """`ok` None: no reply, which proves nothing for UDP. `via` is the next hop that was used."""

    ok: bool | None
    detail: str
    via: str | None


class HostPlace(Protocol):
    """A machine that runs the VM."""

    def __enter__(self) -> HostPlace: ...

    def __exit__(self, *exc: object) -> None: ...

    def lock(self, report: Report) -> AbstractContextManager[None]:
        """Held while changing the host. Raises Busy if another vmproxy holds it."""

    def settings(self) -> dict[str, object]:
        """The VM settings of this kind of host that do not come from the site file."""

    def observe(self) -> HostSeen: ...

    def apply(self, actions: Sequence[Action], report: Report) -> Iterator[Outcome]:
        """Carry out actions in order; stop after the first that fails. Images are passed as files."""

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        """Connect from the host itself, as its applications do."""

    def trial(self, connection: Connection, via: str) -> Answer:
        """Connect over a temporary route to this one address."""

    def open_guest(self, address: str, port: int) -> socket.socket:
        """A TCP connection from here to the guest. Raises OSError."""

    def console(self, lines: int) -> list[str]:
        """The last lines of the VM's serial console; empty if there is none."""

    def died(self) -> str | None:
        """Why the VM no longer runs, or None while it runs."""

    def ssh_command(self) -> list[str]:
        """The first words of the ssh command line that reaches the guest from this machine."""

    def symptoms(self) -> list[str]:
        """What this host observes of a VM that does not answer, one line each."""

    def image_format(self) -> Literal["raw", "vhdx"]:
        """The format of image file that `create` needs: raw, or VHDX compressed with gzip."""


@dataclass(frozen=True)
class Delivery:
    """What `create` and `recreate` need in addition to the plan, prepared during apply.

    `image` creates the file when called, which happens only if the host lacks it. `download` is where
    the host can download it itself.
    """

    image: Callable[[], Path]
    seed: bytes
    host_key: str
    download: Download | None = None
