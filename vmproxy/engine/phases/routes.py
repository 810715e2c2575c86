"""The host's routes to the VM: made last, removed first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Hop, Leaving, Phase, Progress
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer
from vmproxy.model.finding import Finding, failed
from vmproxy.model.seen import ClusterSeen, Unobservable
from vmproxy.model.steps import RouteStep, SetRoute
from vmproxy.resources import guest, route


def _plan(scope: Scope, world: World) -> Sequence[RouteStep]:
    """A route that a cold step takes away comes back with the same consent."""
    wanted = scope.wanted_routes(world.cluster, world.client, world.carrier.marker)
    steps = route.plan(wanted, world.marked, world.client, client=scope.member.client.name)
    return tuple(
        replace(step, cold=world.interrupted) if isinstance(step, SetRoute) else step for step in steps
    )


def _removal(scope: Scope, leaving: Leaving) -> Sequence[RouteStep]:
    marker, cluster = leaving.carrier.marker, leaving.cluster
    if isinstance(cluster, ClusterSeen):
        routes = scope.wanted_routes(cluster, leaving.client, None)
    else:
        routes = route.wanted(scope.site.topology.cluster.service_cidrs, scope.member.vm.address.ip)
    marked = marker.routes if marker else ()
    return route.remove_plan(routes, marked, leaving.client, why="before the VM behind it goes", cold=True)


def _answers(scope: Scope, world: World, progress: Progress) -> None:
    """A route is set only when kube-proxy has converged and a ClusterIP answers through the VM."""
    waits: list[Callable[[], None]] = [scope.wait_for_cloud_init] if world.booted else []
    if progress.steps or progress.changed or not guest.works(world.guest):
        waits.append(lambda: scope.wait_converged(world.cluster))
    _side_by_side(waits)
    if progress.steps:
        scope.try_route(world.cluster)


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


def _findings(look: Look) -> Iterator[Finding]:
    """Nothing where the host cannot be looked at, which the VM's phase has said."""
    if isinstance(or_why(look.carrier), Unobservable):
        return
    try:
        scope, seen, cluster = look.scope, look.carrier(), look.cluster()
        marked = seen.marker.routes if seen.marker else ()
        wanted = scope.wanted_routes(cluster, look.client(), seen.marker)
        route.plan(wanted, marked, look.client(), client=scope.member.client.name)
        yield Finding("routes", ok=True, detail="nothing overlaps the Service ranges")
    except VmproxyError as exc:
        yield failed("host", exc)


def _problems(look: Look) -> Iterator[str]:
    """A real request, where nothing before it is known to be wrong."""
    cluster, guest = or_why(look.cluster), or_why(look.guest)
    if isinstance(cluster, Unobservable) or isinstance(guest, Unobservable):
        return
    answer, (address, port) = look.scope.ask_through(cluster), cluster.canary
    if not answer.ok:
        yield f"{address}:{port} does not answer {look.scope.member.client.name}: {answer.detail}"


def _broken(look: Look, _target: Target, answer: Answer) -> tuple[Hop, str] | None:
    """Containers whose gateway is the VM do not use the host's routes."""
    if answer.container is not None and look.scope.member.vm.inside is not None:
        return None
    address = look.scope.address(look.carrier().marker).ip
    if answer.via == address:
        return None
    return "route", f"the host sends it to {answer.via or 'no next hop'}, not to the VM at {address}"


ROUTES = Phase(
    "routes",
    _plan,
    _removal,
    Scope.change_host,
    findings=_findings,
    problems=_problems,
    broken=_broken,
    gate=_answers,
)
