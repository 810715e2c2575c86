"""The interface to a host: lock, observe, apply, probe."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from vmproxy.image import Download
from vmproxy.model.finding import Finding
from vmproxy.model.net import Address, Network, Route
from vmproxy.model.seen import CarrierSeen, ClientSeen, ContainersSeen, Marker, NameRule
from vmproxy.model.steps import CniFile, SwitchStep, VmStep
from vmproxy.model.topology import Client, Vm
from vmproxy.site.model import Containers
from vmproxy.transport.accounts import Accounts
from vmproxy.util.events import Report

Facts = Mapping[str, Mapping[str, Any]]
"""What doctor is told of a host, by name: {"value"} or {"error"}."""
DISK_NEEDED = 3 << 30
"""Bytes that a VM's disk and its image may take."""


@dataclass(frozen=True)
class Connection:
    """A connection to try from the host. UDP sends `payload` and waits for any reply."""

    protocol: Literal["tcp", "udp"]
    address: Address
    port: int
    payload: bytes = b"vmproxy\n"


@dataclass(frozen=True)
class Answer:
    """`ok` None: no reply, which proves nothing for UDP. `via` is the next hop that the host uses.
    `container`: the one that it was tried from; None: the host itself. `host_ok`: of one that a container did
    not get, whether the host itself is answered; None: not tried."""

    ok: bool | None
    detail: str
    via: Address | None
    container: str | None = None
    host_ok: bool | None = None


@dataclass(frozen=True)
class Delivery:
    """What making a VM needs beside the plan: made at the time of applying.

    `image` makes the file when it is called: only when the carrier lacks it. `download` is where the carrier
    may fetch it itself.
    """

    image: Callable[[], Path]
    seed: bytes
    host_key: str
    download: Download | None = None


class CarrierDriver(Protocol):
    """One VM on the machine that carries it."""

    def lock(self, report: Report) -> AbstractContextManager[None]:
        """Held while changing the host. Raises Busy if another vmproxy holds it."""

    def observe(self) -> CarrierSeen: ...

    def check(self, steps: Sequence[VmStep]) -> None:
        """Raises VmproxyError when one of the steps is sure to fail: before anything is changed."""

    def do(
        self, step: VmStep, deliver: Callable[[], Delivery], marker: Marker | None, report: Report
    ) -> None:
        """Carry out one step. A VM that is made gets `new_marker`, after `marker`, the one that there is now.
        Raises VmproxyError."""

    def change_switch(self, step: SwitchStep) -> None:
        """Make, change or remove the VM's own switch. Raises VmproxyError."""

    def mark(self, marker: Marker) -> None:
        """Write the marker on the VM."""

    def open_guest(self, address: Address, port: int) -> socket.socket:
        """A TCP connection from here to the guest. Raises OSError."""

    def console(self, lines: int) -> list[str]:
        """The last lines of the VM's serial console; empty if there is none."""

    def died(self) -> str | None:
        """Why the VM no longer runs, or None while it runs."""

    def ssh_command(self, address: Address) -> list[str]:
        """The first words of the ssh command line that reaches the guest at that address from here."""

    def symptoms(self) -> list[str]:
        """What the carrier sees of a VM that does not answer; a line each."""

    def examine(self) -> Facts:
        """For doctor; none where this machine is the carrier."""


@dataclass(frozen=True)
class Resolved:
    """A name as the machine's own applications look it up. `ways`: what each of its ways finds, by the name
    of the way: addresses, or why there are none."""

    name: str
    ways: Mapping[str, tuple[Address, ...] | str]


class ClientDriver(Protocol):
    """The routes of a machine, its rules for names, and connections from it."""

    def observe(self) -> ClientSeen: ...

    def set_route(self, route: Route, before: Sequence[Route]) -> None:
        """Set it in place of `before`, now and after a restart, and see that packets take it. Raises
        VmproxyError."""

    def remove_route(self, route: Route) -> None:
        """That it is gone already is fine."""

    def set_names(self, rule: NameRule, before: Sequence[NameRule]) -> None:
        """Make it in place of `before`, now and after a restart, and forget what was looked up before. Raises
        VmproxyError."""

    def remove_names(self, rule: NameRule) -> None:
        """The one with its id. That it is gone already is fine."""

    def resolve(self, names: Sequence[str]) -> list[Resolved]:
        """Look the names up by each way that the machine has, in their order."""

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        """Connect from the machine itself, as its applications do."""

    def trial(self, connection: Connection, route: Route) -> Answer:
        """Connect by way of a route that is gone again afterwards."""


class ContainersDriver(Protocol):
    """The containers of a machine, and their way to its gateway."""

    def observe(self, asked: Containers, network: Network, cni: CniFile | None) -> ContainersSeen:
        """`network` is the VM's. `cni` None: the configuration is not vmproxy's to write."""

    def set_forwarding(self, alias: str, *, on: bool) -> None:
        """Of an interface; one that is gone has none to turn off. Raises VmproxyError."""

    def write_cni(self, file: CniFile, content: bytes) -> None:
        """In the place of one that has those labels, or of none. Raises VmproxyError."""

    def remove_cni(self, file: CniFile) -> None:
        """One that is gone already is fine. Raises VmproxyError for one without those labels."""

    def probe(self, container: str, connections: Sequence[Connection]) -> list[Answer]:
        """Connect by TCP from inside a container. Raises VmproxyError when it cannot be entered."""


@dataclass(frozen=True)
class Drivers:
    """Open, until the run ends. `containers` None: a kind of host that has none."""

    carrier: CarrierDriver
    client: ClientDriver
    containers: ContainersDriver | None = None


@dataclass(frozen=True)
class Kind:
    """What a kind of host is like, as data.

    `settings` are the VM settings, by the VM's name, that do not come from the site file; those in `hot`
    change while the VM runs, those in `fixed` never, all others only while it is off. `image_format` is
    what it makes a VM of: a raw disk or a gzip'd VHDX. `fetches`: it can fetch an image itself. `local`: it
    is this machine. `scripts` are the folders of templates/ that run on it. `needs` says what this machine
    needs for it, where it converts images or not; `findings` judges the facts that were found on the host.
    """

    name: Literal["hyperv", "qemu"]
    image_format: Literal["raw", "vhdx"]
    fetches: bool
    local: bool
    scripts: tuple[str, ...]
    settings: Callable[[str], dict[str, object]]
    hot: frozenset[str]
    fixed: frozenset[str]
    needs: Callable[[Vm, bool], Iterator[Finding]]
    findings: Callable[[Vm, Facts], Iterator[Finding]]
    open: Callable[[Vm, Client, Accounts], AbstractContextManager[Drivers]]
