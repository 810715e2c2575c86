"""look → plan → change → look again, for one member of a site and for many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from vmproxy.engine import phases
from vmproxy.engine.phases import PHASES
from vmproxy.engine.phases.phase import Leaving, Phase, Progress
from vmproxy.engine.scope import Scope, World
from vmproxy.engine.site import SiteRun
from vmproxy.errors import NotReady, VmproxyError
from vmproxy.model.seen import ClusterSeen, Unobservable
from vmproxy.model.steps import Plan, Step, SwitchStep, VmStep
from vmproxy.model.topology import Member
from vmproxy.util import crash, events
from vmproxy.util.events import Reporter

T = TypeVar("T")
_HOSTS_AT_ONCE = 8


@dataclass(frozen=True)
class HostResult:
    """What came of one host. `left` is what a last look found still to do, cold steps only, and its warnings.

    `error` is why it stopped after the steps that are `done`; None: it came to its end.
    """

    host: str
    done: tuple[Step, ...] = ()
    left: Plan = field(default_factory=Plan)
    error: VmproxyError | None = None


def apply_host(
    site: SiteRun, member: Member, report: Reporter, *, yes: bool, new_image: bool = False
) -> HostResult:
    """Make it so. Cold steps are done only with `yes`. `new_image`: the VM is made anew of the image that is
    here now, when it was made of another one."""
    done: list[Step] = []
    try:
        with Scope(site, member, report, new_image=new_image) as scope, scope.carrier.lock(report):
            run = _Apply(scope, done, report, yes=yes)
            run.all_phases()
            return _ended(HostResult(member.name, tuple(done), run.left), report)
    except Exception as exc:  # also a fault of ours keeps what was done, and the other hosts' results
        return _ended(HostResult(member.name, tuple(done), error=_error(exc, member)), report)


def destroy_host(site: SiteRun, member: Member, report: Reporter, *, yes: bool) -> HostResult:
    """Without `yes` nothing is done and the result's `left` is what would be.

    The last of the run's members takes what they share. A cluster that does not answer does not keep the
    host's part from going; what stays in the cluster then is named by the error in the result.
    """
    done: list[Step] = []
    warned: list[str] = []
    try:
        with Scope(site, member, report) as scope:
            warned = scope.warned
            if not yes:
                todo = phases.removal(scope, _leaving(scope)[0])
                left = Plan(tuple(step for _, some in todo for step in some))
                return _ended(HostResult(member.name, left=left), report)
            with scope.carrier.lock(report):
                _destroy(scope, done, report)
    except Exception as exc:  # also a fault of ours keeps what was done, and the other hosts' results
        left = Plan(warnings=tuple(warned))
        return _ended(HostResult(member.name, tuple(done), left, error=_error(exc, member)), report)
    return _ended(HostResult(member.name, tuple(done), Plan(warnings=tuple(warned))), report)


def for_each(members: Iterable[Member], work: Callable[[Member], T]) -> list[T | VmproxyError]:
    """`work` on each member, several at once; an error of one never stops the others."""

    def safely(member: Member) -> T | VmproxyError:
        try:
            return work(member)
        except Exception as exc:
            return _error(exc, member)

    some = list(members)
    if len(some) == 1:
        return [safely(some[0])]
    pool = ThreadPoolExecutor(_HOSTS_AT_ONCE)
    try:
        return list(pool.map(safely, some))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the others


def _error(exc: Exception, member: Member) -> VmproxyError:
    return crash.as_error(exc, f"continue on {member.name}")


def _ended(result: HostResult, report: Reporter) -> HostResult:
    for warning in result.left.warnings:
        report.send(events.Warned(warning))
    report.send(events.Ended(len(result.done), result.error.message if result.error else None))
    return result


def _destroy(scope: Scope, done: list[Step], report: Reporter) -> None:
    leaving, unreachable = _leaving(scope)
    for phase, steps in phases.removal(scope, leaving):
        report.send(events.Phase(phase.name))
        for step in phase.change(scope, steps):  # one by one: they stay when a later one fails
            done.append(step)
    if unreachable is not None:
        raise VmproxyError(
            f"removed all of {scope.member.name} but its identity in the cluster: {unreachable.message}",
            hint="run destroy again when the cluster answers",
        ) from unreachable


def _leaving(scope: Scope) -> tuple[Leaving, VmproxyError | None]:
    """And why the cluster cannot be asked."""
    accounts = frozenset(member.vm.account for member in scope.site.members)
    cluster: ClusterSeen | Unobservable
    unreachable = None
    try:
        cluster = scope.cluster_seen()
    except VmproxyError as exc:
        cluster, unreachable = Unobservable(exc.message), exc
    return Leaving(cluster, scope.look_at_carrier(), scope.client.observe(), accounts), unreachable


class _Apply:
    """One run of apply on one member: the phases, one after the other. `done` grows as it goes."""

    def __init__(self, scope: Scope, done: list[Step], report: Reporter, *, yes: bool) -> None:
        self._scope = scope
        self._report = report
        self._yes = yes
        self.done = done
        self.left = Plan()

    def all_phases(self) -> None:
        world = self._scope.look()
        planned = phases.plan(self._scope, world)
        if planned.in_sync:
            self._scope.check_answer(world.cluster)
            self.left = planned
            return
        if isinstance(world.guest, Unobservable) and self._refused(planned.steps):
            self.left = planned
            return
        self._scope.obtain(self._allowed(planned.steps))  # before anything is changed
        if not any(isinstance(step, SwitchStep | VmStep) for step in planned.steps):
            world = self._ready(world)
        for phase in PHASES:
            world = self._phase(phase, world)
        self._look_again()

    def _ready(self, world: World) -> World:
        """Where the VM and its switch stay as they are, what keeps it from being changed is found before
        anything is that its guest relies on: the rights of an account, above all."""
        for phase in PHASES:
            world = phase.ready(self._scope, world)
        return world

    def _refused(self, steps: Sequence[Step]) -> bool:
        """Whether a cold change of the VM is not allowed: only it would let us in to the guest again."""
        return not self._yes and any(isinstance(step, VmStep) and step.cold for step in steps)

    def _phase(self, phase: Phase, world: World) -> World:
        self._report.send(events.Phase(phase.name))
        world = phase.ready(self._scope, world)
        steps = self._allowed(phase.plan(self._scope, world))
        if self._scope.obtain(steps):
            steps = self._allowed(phase.plan(self._scope, world))
        phase.gate(self._scope, world, Progress(bool(steps), bool(self.done)))
        before = len(self.done)
        if steps:
            for step in phase.change(self._scope, steps):  # one by one: they stay when a later one fails
                self.done.append(step)
        return phase.after(self._scope, world) if len(self.done) > before else world

    def _look_again(self) -> None:
        """What is left must be cold and not allowed; anything else is an error."""
        left = phases.plan(self._scope, self._scope.look())
        wrong = self._allowed(left.steps)
        if wrong:
            raise NotReady(
                f"cannot bring {self._scope.member.name} in sync: still different after the change",
                details=[
                    f"{step.target}: {item.field}: wanted {item.wanted}, seen {item.seen}"
                    for step in wrong
                    for item in step.drift
                ],
                hint="something else changes it back; run plan to look again",
            )
        self.left = left

    def _allowed(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        return tuple(step for step in steps if self._yes or not step.cold)
