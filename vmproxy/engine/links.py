"""What a run is connected to. Connections are handed in, never made inside: hosts/memory.py has others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from vmproxy.hosts.protocols import Delivery, Drivers, Kind
from vmproxy.image import Base
from vmproxy.model.net import Address
from vmproxy.model.seen import (
    CloudInit,
    ClusterSeen,
    Endpoint,
    Grant,
    GuestQuery,
    GuestSeen,
    Reach,
    ServiceSeen,
)
from vmproxy.model.steps import ClusterStep, GuestStep, Object
from vmproxy.model.topology import Member
from vmproxy.resources.kubeproxy import Program
from vmproxy.seed import Seed
from vmproxy.util.events import Report


class GuestLink(Protocol):
    """The VM from inside; guest/connection.py has it."""

    def run(self, command: str) -> str: ...

    def observe(self, query: GuestQuery) -> GuestSeen: ...

    def do(self, steps: Sequence[GuestStep], report: Report) -> Iterator[GuestStep]:
        """Yields each step when it is done."""

    def wait_converged(self, canary: tuple[Address, int], seconds: float, report: Report) -> None: ...

    def cloud_init(self) -> CloudInit: ...

    def reach(self, endpoints: Sequence[Endpoint]) -> list[Reach]: ...

    def rule_present(self, address: Address, port: int, protocol: Literal["tcp", "udp"]) -> bool: ...

    def logs(self, which: Literal["proxy", "cloud-init"], lines: int) -> str: ...


class ClusterLink(Protocol):
    """The Kubernetes API; cluster/api.py has it."""

    def observe(self) -> ClusterSeen:
        """Without anybody's identity."""

    def identity(self, account: str) -> dict[str, Any]: ...

    def do(self, step: ClusterStep, warn: Callable[[str], None]) -> bool: ...

    def mint(self, account: str, *, seconds: int) -> str: ...

    def renewal(self, secret: Object) -> str:
        """The token in that Secret, which is made anew when the API server refuses its token."""

    def services(self) -> list[ServiceSeen]: ...

    def grants(self) -> tuple[Grant, ...]: ...

    def missing_rights(self, account: str) -> tuple[str, ...]: ...


class Artifacts(Protocol):
    """What VMs are made of, on this machine; engine/artifacts.py has it. Made once for all hosts."""

    def program(self, version: str) -> Program:
        """kube-proxy of that version, which may not be here yet."""

    def get_program(self, version: str, report: Report) -> None:
        """Have it here."""

    def base(self, kind: Kind) -> Base:
        """What a new VM of that kind of host is made from, which may not be here yet."""

    def get_image(self, kind: Kind, report: Report) -> None:
        """Have it here."""

    def fetched_by_host(self, kind: Kind) -> bool:
        """Whether such a host fetches the image itself."""

    def user_key(self) -> str:
        """The SSH public key that VMs let in, as a line of authorized_keys."""

    def user_key_file(self) -> Path:
        """Where its private half is."""

    def deliver(self, seed: Seed, kind: Kind, report: Report) -> Delivery:
        """What making a VM takes, with a new host key."""


@dataclass(frozen=True)
class Login:
    """How a guest is logged in to. `mint` makes a new token for its VM, `renewal` gets the one that renews
    it."""

    vm: str
    open_socket: Callable[[], socket.socket]
    host_key: str
    mint: Callable[[], str]
    renewal: Callable[[], str]


@dataclass(frozen=True)
class Links:
    cluster: Callable[[], ClusterLink]
    open_host: Callable[[Member], AbstractContextManager[Drivers]]
    log_in: Callable[[Login], AbstractContextManager[GuestLink]]
    artifacts: Artifacts
