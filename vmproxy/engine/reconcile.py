"""observe → plan → apply → observe again, for one host and for many.

The layers, in the order that keeps traffic safe: the identity in the cluster, the VM on the host,
what runs in the guest, and only when kube-proxy has converged the routes on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vmproxy.engine import endpoints
from vmproxy.engine.machine import Machine
from vmproxy.errors import Forbidden, NotReady, Unreachable, VmproxyError, unexpected
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.steps import ClusterStep, GuestStep, Plan, RouteStep, Step, VmStep
from vmproxy.model.topology import Member, Topology
from vmproxy.resources import identity, proxy, route, switch, vm

Report = Callable[[str], None]
T = TypeVar("T")
S = TypeVar("S", bound=Step)
_HOSTS_AT_ONCE = 8


@dataclass(frozen=True)
class Seen:
    """One look at everything that belongs to a host."""

    cluster: ClusterSeen
    carrier: CarrierSeen
    client: ClientSeen
    guest: GuestSeen | Unobservable


@dataclass(frozen=True)
class Steps:
    """A host's plan by layer. `withdrawn`: routes that go before the VM behind them stops or moves."""

    cluster: tuple[ClusterStep, ...]
    withdrawn: tuple[RouteStep, ...]
    machine: tuple[VmStep, ...]
    guest: tuple[GuestStep, ...]
    routes: tuple[RouteStep, ...]
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def plan(self) -> Plan:
        every = (*self.cluster, *self.withdrawn, *self.machine, *self.guest, *self.routes)
        return Plan(every, self.unseen, self.warnings)


@dataclass(frozen=True)
class HostResult:
    """What came of one host. `left` is what a last look found still to do: cold steps only.

    `error` is why it stopped after the steps that are `done`; None: it came to its end.
    """

    host: str
    done: tuple[Step, ...] = ()
    left: Plan = field(default_factory=Plan)
    error: VmproxyError | None = None


def plan_host(topology: Topology, member: Member, report: Report) -> Plan:
    with Machine(topology, member, report) as machine:
        seen = observe(machine)
        planned = steps(machine, seen)
        if isinstance(seen.guest, GuestSeen) and not planned.machine:
            report("trying the Services' endpoints from the VM")
            lost = endpoints.unreachable(machine.guest(), machine.cluster.services(), seen.cluster)
            planned = replace(planned, warnings=(*planned.warnings, *lost))
        return planned.plan()


def apply_host(topology: Topology, member: Member, report: Report, *, yes: bool) -> HostResult:
    """Make it so. Cold steps are done only with `yes`."""
    done: list[Step] = []
    try:
        with Machine(topology, member, report) as machine, machine.carrier.lock(report):
            run = _Apply(machine, report, done, yes=yes)
            run.all_layers()
            return HostResult(member.name, tuple(done), run.left)
    except VmproxyError as exc:
        return HostResult(member.name, tuple(done), error=exc)


def observe(machine: Machine) -> Seen:
    """Look at the cluster and at the host and its guest at the same time."""
    with ThreadPoolExecutor(1) as pool:
        cluster = pool.submit(machine.observe_cluster)
        carrier, client = machine.carrier.observe(), machine.client.observe()
        machine.note_carrier(carrier)
        guest = _look_inside(machine, carrier, cluster.result)
        return Seen(cluster.result(), carrier, client, guest)


def steps(machine: Machine, seen: Seen) -> Steps:
    """The plan from what was seen; pure but for the wanted state that `machine` holds ready."""
    member, marker = machine.member, seen.carrier.marker
    switch.check(member.carrier, seen.carrier)
    routes, marked = machine.wanted_routes(seen.cluster), marker.routes if marker else ()
    wanted_guest = machine.wanted_guest(seen.cluster, seen.guest)
    wanted = machine.wanted_vm()
    on_machine = vm.plan(wanted, seen.carrier)
    cold = any(step.cold for step in on_machine)
    withdrawn: tuple[RouteStep, ...] = ()
    if cold or (on_machine and vm.moves(wanted, seen.carrier)):
        why = "the VM behind it is about to stop or move; set again afterwards"
        withdrawn = route.remove_plan(routes, marked, seen.client, why=why, cold=cold)
    return Steps(
        identity.plan(member.vm, seen.cluster),
        withdrawn,
        on_machine,
        proxy.plan(wanted_guest, seen.guest),
        route.plan(routes, marked, seen.client, client=member.client.name),
        _unseen(seen.guest),
        machine.warnings(wanted_guest, seen.guest),
    )


def for_each(members: Iterable[Member], work: Callable[[Member], T]) -> list[T | VmproxyError]:
    """`work` on each member, several at once; an error of one never stops the others."""

    def safely(member: Member) -> T | VmproxyError:
        try:
            return work(member)
        except VmproxyError as exc:
            return exc
        except OSError as exc:
            return unexpected(exc)

    some = list(members)
    if len(some) == 1:
        return [safely(some[0])]
    pool = ThreadPoolExecutor(_HOSTS_AT_ONCE)
    try:
        return list(pool.map(safely, some))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the others


def _look_inside(
    machine: Machine, host: CarrierSeen, cluster: Callable[[], ClusterSeen]
) -> GuestSeen | Unobservable:
    if host.vm is None:
        return Unobservable("there is no VM yet")
    if not host.vm.running:
        return Unobservable("the VM is stopped")
    if host.vm.marker is None:
        return Unobservable("the VM was not made by vmproxy")
    try:
        return machine.observe_guest(cluster())
    except (Forbidden, Unreachable) as exc:
        return Unobservable(exc.message)


def _unseen(guest: GuestSeen | Unobservable) -> tuple[str, ...]:
    if isinstance(guest, Unobservable):
        return (f"guest: {guest.because}; looked at after the start",)
    return ()


def _side_by_side(waits: Sequence[Callable[[], None]]) -> None:
    """The first that fails ends it: the other may wait for what will never be."""
    if not waits:
        return
    pool = ThreadPoolExecutor(len(waits))
    try:
        for done in as_completed([pool.submit(work) for work in waits]):
            done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Apply:
    """One run of apply on one host: the layers, one after the other. `done` grows as it goes."""

    def __init__(self, machine: Machine, report: Report, done: list[Step], *, yes: bool) -> None:
        self._machine = machine
        self._report = report
        self._yes = yes
        self.done = done
        self.left = Plan()

    def all_layers(self) -> None:
        seen = observe(self._machine)
        todo = steps(self._machine, seen)
        if todo.plan().in_sync:
            return
        cold = (*todo.withdrawn, *todo.machine)
        if isinstance(seen.guest, Unobservable) and len(self._allowed(cold)) < len(cold):
            self.left = todo.plan()  # only the cold change lets us in again
            return
        if self._do(todo.cluster, self._machine.change_cluster):
            seen = observe(self._machine)
            todo = steps(self._machine, seen)
        withdrawn = self._do(todo.withdrawn, self._machine.change_routes)
        changed = self._do(todo.machine, self._machine.change_vm) or withdrawn
        if changed:
            self._machine.forget_guest()
        booted = isinstance(seen.guest, Unobservable) or changed
        if booted:
            seen = self._first_look()
            todo = steps(self._machine, seen)
        self._do(todo.guest, self._machine.change_guest)
        self._converge_and_route(seen, todo, booted=booted)
        self._look_again()

    def _first_look(self) -> Seen:
        """At a guest that boots, once it has what kube-proxy needs."""
        self._machine.wait_for_boot()
        seen = observe(self._machine)
        if isinstance(seen.guest, GuestSeen) and not seen.guest.writes_rules:
            self._machine.wait_for_cloud_init()
            seen = observe(self._machine)
        return seen

    def _converge_and_route(self, seen: Seen, todo: Steps, *, booted: bool) -> None:
        routes = self._allowed(todo.routes)
        waits: list[Callable[[], None]] = [self._machine.wait_for_cloud_init] if booted else []
        if routes or self.done:
            waits.append(lambda: self._machine.wait_converged(seen.cluster))
        _side_by_side(waits)
        if routes:
            self._machine.try_route(seen.cluster)
            self._do(todo.routes, self._machine.change_routes)

    def _look_again(self) -> None:
        """What is left must be cold and not allowed; anything else is an error."""
        left = steps(self._machine, observe(self._machine)).plan()
        wrong = self._allowed(left.steps)
        if wrong:
            raise NotReady(
                f"cannot bring {self._machine.member.name} in sync: still different after the change",
                details=[
                    f"{step.target}: {item.field}: wanted {item.wanted}, seen {item.seen}"
                    for step in wrong
                    for item in step.drift
                ],
                hint="something else changes it back; run plan to look again",
            )
        self.left = left

    def _do(self, todo: tuple[S, ...], change: Callable[[tuple[S, ...]], Iterable[Step]]) -> bool:
        """Whether anything was done."""
        before = len(self.done)
        allowed = self._allowed(todo)
        if allowed:
            for step in change(allowed):  # one by one: they stay when a later one fails
                self.done.append(step)
        return len(self.done) > before

    def _allowed(self, todo: tuple[S, ...]) -> tuple[S, ...]:
        return tuple(step for step in todo if self._yes or not step.cold)
