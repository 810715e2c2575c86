"""The way of the host's containers to the VM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Hop, Leaving, Phase, Unsettled
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer
from vmproxy.model.finding import Finding, failed
from vmproxy.model.seen import Unobservable
from vmproxy.model.steps import ContainerStep
from vmproxy.resources import containers


def _plan(scope: Scope, world: World) -> Sequence[ContainerStep]:
    marked = world.carrier.marker.forwarding if world.carrier.marker else ()
    if world.containers is None:
        return containers.remove_plan(marked)
    return containers.plan(scope.member.vm, world.containers, marked, host=scope.member.name)


def _unsettled(scope: Scope, world: World) -> Unsettled:
    if world.containers is None:
        return Unsettled()
    ranges = world.cluster.service_cidrs
    return Unsettled(warnings=containers.warnings(scope.member.vm, ranges, world.containers))


def _removal(_scope: Scope, leaving: Leaving) -> Sequence[ContainerStep]:
    marker = leaving.carrier.marker
    return containers.remove_plan(marker.forwarding if marker else ())


def _findings(look: Look) -> Iterator[Finding]:
    """Nothing where the host cannot be looked at, which the VM's phase has said."""
    vm, carrier = look.scope.member.vm, or_why(look.carrier)
    if vm.containers is None or isinstance(carrier, Unobservable):
        return
    try:
        seen = look.containers()
        assert seen is not None
        network = containers.check(vm, seen, host=look.scope.member.name)
    except VmproxyError as exc:
        yield failed("containers", exc)
        return
    yield Finding("containers", ok=True, detail=f"{network.name}: {network.kind}, {vm.containers.subnet}")
    cluster = or_why(look.cluster)
    if isinstance(cluster, Unobservable):
        return
    lacks = containers.warnings(vm, cluster.service_cidrs, seen)
    for lack in lacks:
        yield Finding("container policies", ok=False, detail=lack, next_step=_POLICIES)
    if not lacks:
        yield Finding("container policies", ok=True, detail=f"{len(seen.endpoints)} endpoints have them")


_POLICIES = (
    "compare the network plugin's configuration with what `vmproxy render` writes into containers/; policies "
    "are given to an endpoint when it is made: start its container anew"
)


def _problems(look: Look) -> Iterator[str]:
    """The host's own Services are answered without it, the containers' are not."""
    vm, seen = look.scope.member.vm, or_why(look.containers)
    if vm.containers is None or seen is None:
        return
    if isinstance(seen, Unobservable):
        yield seen.because
        return
    try:
        steps = containers.plan(vm, seen, (), host=look.scope.member.name)
    except VmproxyError as exc:
        yield exc.message
        return
    yield from (f"{step.target} is off: the containers of {vm.containers.network} need it" for step in steps)


def _broken(look: Look, _target: Target, answer: Answer) -> tuple[Hop, str] | None:
    """Of a connection from a container: what is before the host's own way."""
    if answer.container is None:
        return None
    vm, seen = look.scope.member.vm, look.containers()
    assert seen is not None
    ranges = look.cluster().service_cidrs
    for why in (*_problems(look), *containers.warnings(vm, ranges, seen)):
        return "container", why
    return None


CONTAINERS = Phase(
    "containers",
    _plan,
    _removal,
    Scope.change_host,
    findings=_findings,
    problems=_problems,
    broken=_broken,
    unsettled=_unsettled,
)
