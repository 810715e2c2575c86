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
from vmproxy.model.plan import Action, Outcome, Plan
from vmproxy.model.seen import ClusterSeen, GuestSeen, HostSeen, Unobservable
from vmproxy.resources import credential, proxy, route, switch, vm
from vmproxy.site.model import Host, Site

Report = Callable[[str], None]
T = TypeVar("T")
_HOSTS_AT_ONCE = 8


@dataclass(frozen=True)
class Seen:
    """One look at everything that belongs to a host."""

    cluster: ClusterSeen
    host: HostSeen
    guest: GuestSeen | Unobservable


@dataclass(frozen=True)
class Steps:
    """A host's plan by layer."""

    cluster: tuple[Action, ...]
    machine: tuple[Action, ...]
    guest: tuple[Action, ...]
    routes: tuple[Action, ...]
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def plan(self) -> Plan:
        actions = (*self.cluster, *self.machine, *self.guest, *self.routes)
        return Plan(actions, self.unseen, self.warnings)


@dataclass(frozen=True)
class HostResult:
    """What came of one host. `left` is what a last look found still to do: cold actions only.

    `error` is why it stopped after `outcomes`; None: it came to its end.
    """

    host: str
    outcomes: tuple[Outcome, ...] = ()
    left: Plan = field(default_factory=Plan)
    error: VmproxyError | None = None


def plan_host(site: Site, host: Host, report: Report) -> Plan:
    with Machine(site, host, report) as machine:
        seen = observe(machine)
        planned = steps(machine, seen)
        if isinstance(seen.guest, GuestSeen) and not planned.machine:
            report("trying the Services' endpoints from the VM")
            lost = endpoints.unreachable(machine.guest(), machine.cluster.services(), seen.cluster)
            planned = replace(planned, warnings=(*planned.warnings, *lost))
        return planned.plan()


def apply_host(site: Site, host: Host, report: Report, *, yes: bool) -> HostResult:
    """Make it so. Cold actions are done only with `yes`."""
    done: list[Outcome] = []
    try:
        with Machine(site, host, report) as machine, machine.place.lock(report):
            run = _Apply(machine, report, done, yes=yes)
            run.all_layers()
            return HostResult(host.name, tuple(done), run.left)
    except VmproxyError as exc:
        return HostResult(host.name, tuple(done), error=exc)


def observe(machine: Machine) -> Seen:
    """Look at the cluster and at the host and its guest at the same time."""
    with ThreadPoolExecutor(1) as pool:
        cluster = pool.submit(machine.observe_cluster)
        host = machine.place.observe()
        machine.note_host(host)
        guest = _look_inside(machine, host, cluster.result)
        return Seen(cluster.result(), host, guest)


def steps(machine: Machine, seen: Seen) -> Steps:
    """The plan from what was seen; pure but for the wanted state that `machine` holds ready."""
    site, host = machine.site, machine.host
    switch.check(host, seen.host)
    routes = machine.wanted_routes(seen.cluster)
    wanted_guest = machine.wanted_guest(seen.cluster, seen.guest)
    wanted = machine.wanted_vm()
    on_machine = vm.plan(wanted, seen.host)
    cold = any(action.cold for action in on_machine)
    if cold or (on_machine and vm.moves(wanted, seen.host)):
        why = "the VM behind it is about to stop or move; set again afterwards"
        on_machine = (*route.remove_plan(routes, seen.host, why=why, cold=cold), *on_machine)
    return Steps(
        credential.plan(site, host, seen.cluster),
        on_machine,
        proxy.plan(wanted_guest, seen.guest),
        route.plan(routes, seen.host, host=host.name),
        _unseen(seen.guest),
        machine.warnings(wanted_guest, seen.guest),
    )


def for_each(hosts: Iterable[Host], work: Callable[[Host], T]) -> list[T | VmproxyError]:
    """`work` on each host, several at once; an error of one never stops the others."""

    def safely(host: Host) -> T | VmproxyError:
        try:
            return work(host)
        except VmproxyError as exc:
            return exc
        except OSError as exc:
            return unexpected(exc)

    some = list(hosts)
    if len(some) == 1:
        return [safely(some[0])]
    pool = ThreadPoolExecutor(_HOSTS_AT_ONCE)
    try:
        return list(pool.map(safely, some))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the others


def _look_inside(
    machine: Machine, host: HostSeen, cluster: Callable[[], ClusterSeen]
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
    """One run of apply on one host: the layers, one after the other. `outcomes` grows as it goes."""

    def __init__(self, machine: Machine, report: Report, outcomes: list[Outcome], *, yes: bool) -> None:
        self._machine = machine
        self._report = report
        self._yes = yes
        self.outcomes = outcomes
        self.left = Plan()

    def all_layers(self) -> None:
        seen = observe(self._machine)
        todo = steps(self._machine, seen)
        if todo.plan().in_sync:
            return
        if isinstance(seen.guest, Unobservable) and len(self._allowed(todo.machine)) < len(todo.machine):
            self.left = todo.plan()  # only the cold change lets us in again
            return
        if self._do(todo.cluster, self._machine.apply_cluster):
            seen = observe(self._machine)
            todo = steps(self._machine, seen)
        if self._do(todo.machine, self._machine.apply_host):
            self._machine.forget_guest()
        booted = isinstance(seen.guest, Unobservable) or self._done(todo.machine)
        if booted:
            seen = self._first_look()
            todo = steps(self._machine, seen)
        self._do(todo.guest, self._machine.apply_guest)
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
        if routes or self.outcomes:
            waits.append(lambda: self._machine.wait_converged(seen.cluster))
        _side_by_side(waits)
        if routes:
            self._machine.try_route(seen.cluster)
            self._do(todo.routes, self._machine.apply_host)

    def _look_again(self) -> None:
        """What is left must be cold and not allowed; anything else is an error."""
        left = steps(self._machine, observe(self._machine)).plan()
        wrong = [action for action in left.actions if self._yes or not action.cold]
        if wrong:
            raise NotReady(
                f"cannot bring {self._machine.host.name} in sync: still different after the change",
                details=[
                    f"{action.target}: {item.field}: wanted {item.wanted}, seen {item.seen}"
                    for action in wrong
                    for item in action.drift
                ],
                hint="something else changes it back; run plan to look again",
            )
        self.left = left

    def _do(
        self,
        actions: tuple[Action, ...],
        carry_out: Callable[[tuple[Action, ...]], Iterable[Outcome]],
    ) -> bool:
        """Whether anything was done."""
        before = len(self.outcomes)
        allowed = self._allowed(actions)
        if allowed:
            for outcome in carry_out(allowed):  # one by one: they stay when a later one fails
                self.outcomes.append(outcome)
        return len(self.outcomes) > before

    def _allowed(self, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        return tuple(action for action in actions if self._yes or not action.cold)

    def _done(self, actions: tuple[Action, ...]) -> bool:
        done = {id(outcome.action) for outcome in self.outcomes}
        return any(id(action) in done for action in actions)
