"""The product in ten lines: what is made of a site, in this order, and removed in the reverse one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vmproxy.engine.scope import Scope, World
from vmproxy.model.net import Route
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, Unobservable
from vmproxy.model.steps import ClusterStep, CreateVm, HostStep, Plan, RemoveRoute, RouteStep, SetRoute, Step
from vmproxy.resources import guest, identity, route, switch, vm


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
    `change` carries the steps out, one by one; `after` is the world as far as later phases need it when some
    were."""

    name: str
    plan: Callable[[Scope, World], Sequence[Step]]
    removal: Callable[[Scope, Leaving], Sequence[Step]]
    change: Callable[[Scope, Sequence[Any]], Iterator[Step]]
    after: Callable[[Scope, World], World]


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
    wanted = scope.wanted_guest(world.cluster, world.carrier.marker, world.guest)
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


def _as_before(_scope: Scope, world: World) -> World:
    return world


IDENTITY = Phase("identity", _identity, _identity_removal, Scope.change_cluster, _identity_again)
VM = Phase("vm", _vm, _vm_removal, Scope.change_host, _vm_again)
GUEST = Phase("guest", _guest, _goes_with_the_vm, Scope.change_guest, _as_before)
ROUTES = Phase("routes", _routes, _routes_removal, Scope.change_host, _as_before)

PHASES = (IDENTITY, VM, GUEST, ROUTES)


def plan(scope: Scope, world: World) -> Plan:
    """Every phase's steps, in order: what follows the change of a VM is planned for the world after it."""
    before = (*IDENTITY.plan(scope, world), *VM.plan(scope, world))
    world = _after(scope, world, before)
    steps = (*before, *GUEST.plan(scope, world), *_set_again(ROUTES.plan(scope, world), before))
    unseen: tuple[str, ...] = ()
    if isinstance(world.guest, Unobservable):
        unseen = (f"guest: {world.guest.because}; observed after the start",)
    wanted = scope.wanted_guest(world.cluster, world.carrier.marker, world.guest)
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
