"""One host, its VM and its routes through the product's drivers, without a cluster or a guest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields

from vmproxy.engine.marking import Marking
from vmproxy.hosts.hyperv.kind import Connect, open_host
from vmproxy.hosts.protocols import Answer, Connection, Delivery, Drivers
from vmproxy.model.net import Address, Route
from vmproxy.model.seen import CarrierSeen, ClientSeen
from vmproxy.model.steps import CreateVm, DeleteVm, ReconfigureVm, RouteStep, SetVm, StartVm, VmStep
from vmproxy.model.topology import Member
from vmproxy.resources import route
from vmproxy.util.events import Report


@dataclass(frozen=True)
class HostSeen(CarrierSeen):
    """The carrier, and the client's routes and addresses."""

    client: ClientSeen = field(default_factory=lambda: ClientSeen(()))

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.client.routes

    @property
    def marked(self) -> tuple[Route, ...]:
        return self.marker.routes if self.marker else ()


def route_plan(wanted: tuple[Route, ...], seen: HostSeen) -> tuple[RouteStep, ...]:
    return route.plan(wanted, seen.marked, seen.client, client="win-01")


def route_removal(wanted: tuple[Route, ...], seen: HostSeen) -> tuple[RouteStep, ...]:
    return route.remove_plan(wanted, seen.marked, seen.client, why="", cold=True)


@dataclass
class Opened:
    """`seen` is what the last look found."""

    drivers: Drivers
    deliver: Callable[[], Delivery]
    seen: HostSeen | None = None

    def lock(self, report: Report) -> AbstractContextManager[None]:
        return self.drivers.carrier.lock(report)

    def observe(self) -> HostSeen:
        carrier = self.drivers.carrier.observe()
        known = {item.name: getattr(carrier, item.name) for item in fields(CarrierSeen)}
        self.seen = HostSeen(**known, client=self.drivers.client.observe())
        return self.seen

    def carry_out(self, steps: Iterable[VmStep | RouteStep], report: Report) -> None:
        for step in steps:
            report(f"{step.verb} {step.target}")
            self.do(step, report)

    def do(self, step: VmStep | RouteStep, report: Report) -> None:
        marked = self.seen.marker if self.seen else None
        if isinstance(step, CreateVm | StartVm | SetVm | ReconfigureVm | DeleteVm):
            self.drivers.carrier.do(step, self.deliver, marked, report)
        else:
            self._marking().do(step)

    def trial(self, connection: Connection, via: Address) -> Answer:
        return self._marking().trial(connection, via)

    def died(self) -> str | None:
        return self.drivers.carrier.died()

    def console(self, lines: int) -> list[str]:
        return self.drivers.carrier.console(lines)

    def symptoms(self) -> list[str]:
        return self.drivers.carrier.symptoms()

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        return self.drivers.client.probe(connections)

    def _marking(self) -> Marking:
        marker = self.drivers.carrier.observe().marker
        return Marking(self.drivers, marker)


@contextmanager
def opened(member: Member, connect: Connect, deliver: Callable[[], Delivery]) -> Iterator[Opened]:
    """A Windows host, by the PowerShell that `connect` opens."""
    with open_host(member.vm, member.client, connect=connect) as drivers:
        yield Opened(drivers, deliver)
