"""The product in ten lines: what is made of a site, in this order, and removed in the reverse one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from vmproxy import seed
from vmproxy.engine.scope import Scope, World
from vmproxy.model.net import Route
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.steps import ClusterStep, CreateVm, HostStep, Plan, RemoveRoute, RouteStep, SetRoute, Step
from vmproxy.resources import guest, identity, route, switch, vm
from vmproxy.seed.keys import KeyPair
from vmproxy.util import assets

_REDACTED = KeyPair(private="(redacted: generated for each seed)", public="(generated with the private key)")


@dataclass(frozen=True)
class Leaving:
    """What is seen of a member that goes. `accounts` are those of all members that go in the same run."""

    cluster: ClusterSeen | Unobservable
    carrier: CarrierSeen
    client: ClientSeen
    accounts: frozenset[str]


@dataclass(frozen=True)
class Phase:
    """`plan` is pure but for the artifacts that the scope holds; `removal` is what takes it away again;
    `change` carries the steps out, one by one. `ready` waits for what the phase needs, and gives the world
    then; `gate` raises VmproxyError when its steps must not be done yet; `after` is the world as far as later
    phases need it when some were done. `files` are what it would put on host, guest or cluster, by path,
    secrets redacted."""

    name: str
    plan: Callable[[Scope, World], Sequence[Step]]
    removal: Callable[[Scope, Leaving], Sequence[Step]]
    change: Callable[[Scope, Sequence[Any]], Iterator[Step]]
    ready: Callable[[Scope, World], World] = lambda _scope, world: world
    gate: Callable[[Scope, World, Progress], None] = lambda _scope, _world, _progress: None
    after: Callable[[Scope, World], World] = lambda _scope, world: world
    files: Callable[[Scope], Mapping[str, bytes]] = lambda _scope: {}


@dataclass(frozen=True)
class Progress:
    """Where a run is: whether this phase has steps to do, and whether any step was done before."""

    steps: bool
    changed: bool


def _identity(scope: Scope, world: World) -> Sequence[ClusterStep]:
    return identity.plan(scope.member.vm, world.cluster)


def _identity_removal(scope: Scope, leaving: Leaving) -> Sequence[ClusterStep]:
    return identity.destroy_plan(scope.member.vm, leaving.cluster, going=leaving.accounts)


def _identity_again(scope: Scope, world: World) -> World:
    return replace(world, cluster=scope.cluster_seen())


def _vm(scope: Scope, world: World) -> Sequence[HostStep]:
    """The routes go first where the VM behind them stops or moves; they are set again afterwards."""
    switch.check(scope.member.carrier, world.carrier)
    wanted = scope.wanted_vm(world.carrier)
    steps = vm.plan(wanted, world.carrier)
    cold = any(step.cold for step in steps)
    if not (cold or (steps and vm.moves(wanted, world.carrier))):
        return steps
    routes = scope.wanted_routes(world.cluster, world.carrier.marker)
    why = "the VM behind it is about to stop or move; set again afterwards"
    return (*route.remove_plan(routes, world.marked, world.client, why=why, cold=cold), *steps)


def _vm_removal(scope: Scope, leaving: Leaving) -> Sequence[HostStep]:
    own = scope.member.vm
    return vm.destroy_plan(own.name, site=own.site, host=own.host, seen=leaving.carrier)


def _vm_again(scope: Scope, world: World) -> World:
    scope.forget_guest()
    return replace(world, guest=Unobservable("the VM was changed"))


def _guest(scope: Scope, world: World) -> Sequence[Step]:
    wanted = scope.wanted_guest(world)
    return guest.plan(wanted, world.guest)


def _routes(scope: Scope, world: World) -> Sequence[RouteStep]:
    wanted = scope.wanted_routes(world.cluster, world.carrier.marker)
    return route.plan(wanted, world.marked, world.client, client=scope.member.client.name)


def _routes_removal(scope: Scope, leaving: Leaving) -> Sequence[RouteStep]:
    marker, known = leaving.carrier.marker, scope.site.topology.cluster.service_cidrs
    ranges = leaving.cluster.service_cidrs if isinstance(leaving.cluster, ClusterSeen) else known
    routes = route.wanted(ranges, scope.member.vm.address.ip)
    marked = marker.routes if marker else ()
    return route.remove_plan(routes, marked, leaving.client, why="before the VM behind it goes", cold=True)


def _goes_with_the_vm(_scope: Scope, _leaving: Leaving) -> Sequence[Step]:
    return ()


def _let_in(scope: Scope, world: World) -> World:
    """Wait for a VM that boots, until it lets us in and has what kube-proxy needs."""
    if not isinstance(world.guest, Unobservable):
        return world
    scope.wait_for_boot()
    world = scope.look()
    if isinstance(world.guest, GuestSeen) and not world.guest.writes_rules:
        scope.wait_for_cloud_init()
        world = scope.look()
    return replace(world, booted=True)


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


def _identity_files(scope: Scope) -> Mapping[str, bytes]:
    documents = identity.documents(scope.member.vm)
    return {f"cluster/{name}": text.encode() for name, text in documents.items()}


def _vm_files(scope: Scope) -> Mapping[str, bytes]:
    """The seed's documents, and the scripts that run on the host."""
    documents = seed.documents(seed.redacted(scope.wanted_seed(None)), host_key=_REDACTED)
    scripts = [name for folder in scope.kind.scripts for name in assets.names(folder)]
    return {
        **{f"seed/{name}": text.encode() for name, text in documents.items()},
        **{name: assets.text(name).encode() for name in scripts},
    }


def _guest_files(scope: Scope) -> Mapping[str, bytes]:
    """Without the host's own addresses among the clients: no host is asked."""
    nothing = CarrierSeen(None, None), ClientSeen(()), Unobservable("not observed")
    wanted = scope.wanted_guest(World(scope.site.cluster_seen(), *nothing))
    found = {path: file.content for path, file in wanted.files.items()}
    return {f"guest/{path.lstrip('/')}": content for path, content in found.items() if content is not None}


IDENTITY = Phase(
    "identity",
    _identity,
    _identity_removal,
    Scope.change_cluster,
    after=_identity_again,
    files=_identity_files,
)
VM = Phase("vm", _vm, _vm_removal, Scope.change_host, after=_vm_again, files=_vm_files)
GUEST = Phase("guest", _guest, _goes_with_the_vm, Scope.change_guest, ready=_let_in, files=_guest_files)
ROUTES = Phase("routes", _routes, _routes_removal, Scope.change_host, gate=_answers)

PHASES = (IDENTITY, VM, GUEST, ROUTES)


def plan(scope: Scope, world: World) -> Plan:
    """Every phase's steps, in order: what follows the change of a VM is planned for the world after it."""
    before = (*IDENTITY.plan(scope, world), *VM.plan(scope, world))
    world = _after(scope, world, before)
    steps = (*before, *GUEST.plan(scope, world), *_set_again(ROUTES.plan(scope, world), before))
    wanted = scope.wanted_guest(world)
    unseen = guest.unsettled(wanted, world.guest)
    if isinstance(world.guest, Unobservable):
        unseen = (f"guest: {world.guest.because}; observed after the start",)
    return Plan(steps, unseen, guest.warnings(wanted, world.guest))


def _after(scope: Scope, world: World, steps: Sequence[Step]) -> World:
    """The world when these steps of the VM's phase are done."""
    removed = {step.route for step in steps if isinstance(step, RemoveRoute)}
    carrier, inside = world.carrier, world.guest
    if removed:
        carrier = _marked(carrier, ())
    if any(isinstance(step, CreateVm) for step in steps):
        inside = Unobservable("the VM is created again" if carrier.vm else "there is no VM yet")
        carrier = replace(carrier, vm=None) if _moves(scope, world) else carrier
    there = tuple(item for item in world.client.routes if item not in removed)
    return replace(world, carrier=carrier, guest=inside, client=replace(world.client, routes=there))


def _marked(seen: CarrierSeen, routes: tuple[Route, ...]) -> CarrierSeen:
    assert seen.vm is not None
    assert seen.vm.marker is not None
    return replace(seen, vm=replace(seen.vm, marker=replace(seen.vm.marker, routes=routes)))


def _moves(scope: Scope, world: World) -> bool:
    marker = world.carrier.marker
    return marker is not None and marker.address != scope.member.vm.address


def _set_again(steps: Sequence[Step], before: Sequence[Step]) -> Iterator[Step]:
    """A route that a cold step takes away comes back with the same consent."""
    cold = any(step.cold for step in before)
    for step in steps:
        yield replace(step, cold=cold) if isinstance(step, SetRoute) else step


def removal(scope: Scope, leaving: Leaving) -> tuple[tuple[Phase, tuple[Step, ...]], ...]:
    """Only the phases that have something to remove."""
    todo = ((phase, tuple(phase.removal(scope, leaving))) for phase in reversed(PHASES))
    return tuple((phase, steps) for phase, steps in todo if steps)
