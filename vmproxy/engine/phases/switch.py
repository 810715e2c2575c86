"""The switch that vmproxy makes for a VM, with what belongs to it; nothing where it has another's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Leaving, Phase
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.model import names
from vmproxy.model.drift import differences
from vmproxy.model.finding import Finding, failed
from vmproxy.model.seen import (
    ClusterSeen,
    ContainersSeen,
    InterfaceSeen,
    OwnSwitchSeen,
    SwitchSeen,
    Unobservable,
)
from vmproxy.model.steps import HostStep, Step, SwitchStep
from vmproxy.model.topology import OwnSwitch
from vmproxy.resources import switch


def _plan(scope: Scope, world: World) -> Sequence[HostStep]:
    """Routes go first where the VM behind them has to move with the switch."""
    carrier = scope.member.carrier
    if carrier.own is None:
        return ()
    want = switch.wanted(carrier.own, world.carrier, host=carrier.name)
    steps = switch.plan(want, world.carrier, world.cluster, world.client, host=carrier.name)
    cold = any(step.cold for step in steps)
    return (*scope.routes_away(world, cold=True), *steps) if cold else steps


def _removal(scope: Scope, leaving: Leaving) -> Sequence[SwitchStep]:
    return switch.destroy_plan(scope.member.carrier, scope.member.vm.name, leaving.carrier)


def _expected(scope: Scope, world: World, steps: Sequence[Step]) -> World:
    own, cold = scope.member.carrier.own, any(step.cold for step in steps)
    if own is None or not steps:
        return world
    want = switch.wanted(own, world.carrier, host=scope.member.carrier.name)
    before = world.carrier.own.addresses if world.carrier.own else ()
    others = tuple(item for item in world.client.addresses if item not in before)
    world = world.with_routes(steps)
    made = OwnSwitchSeen(ours=True, internal=True, settings=want.settings, addresses=(own.host,))
    carrier = replace(world.carrier, own=made, switch=SwitchSeen(own.name))
    client = replace(world.client, addresses=(*others, own.host))
    containers = _forwarding(own, world.containers)
    return replace(world, carrier=carrier, client=client, containers=containers, interrupted=cold)


def _forwarding(own: OwnSwitch, seen: ContainersSeen | None) -> ContainersSeen | None:
    """With the host's interface on the switch, which the way of containers passes."""
    if seen is None:
        return None
    alias = names.switch_interface(own.name)
    before = next((item for item in seen.interfaces if item.alias == alias), None)
    forwards = not own.nat or (before is not None and before.forwards)
    others = tuple(item for item in seen.interfaces if item is not before)
    return replace(seen, interfaces=(*others, InterfaceSeen(alias, (own.host.ip,), forwards)))


def _again(scope: Scope, world: World) -> World:
    """A connection through the NAT may not outlast a change of it: the guest is asked anew."""
    guest = world.guest if isinstance(world.guest, Unobservable) else Unobservable("its switch was changed")
    return replace(world, carrier=scope.forget_guest(), client=scope.client.observe(), guest=guest)


def _findings(look: Look) -> Iterator[Finding]:
    """Nothing where the host cannot be looked at, which the VM's phase says."""
    carrier = look.scope.member.carrier
    if carrier.own is None or isinstance(or_why(look.carrier), Unobservable):
        return
    try:
        seen = look.carrier()
        want = switch.wanted(carrier.own, seen, host=carrier.name)
        cluster = or_why(look.cluster)
        if isinstance(cluster, ClusterSeen):
            switch.plan(want, seen, cluster, look.client(), host=carrier.name)
        made = "there" if seen.own else "apply makes it"
        yield Finding("switch", ok=True, detail=f"{carrier.own.name}, Internal, {_kind(carrier.own)}: {made}")
    except VmproxyError as exc:
        yield failed("switch", exc)
    if not carrier.own.nat:
        yield _way_back(carrier.own)


def _kind(own: OwnSwitch) -> str:
    return f"{own.host.network} {'with' if own.nat else 'without'} NAT"


def _way_back(own: OwnSwitch) -> Finding:
    """For the reader: vmproxy changes neither the LAN nor the host's other adapters."""
    return Finding(
        "LAN's way back",
        ok=True,
        detail=f"the LAN needs a route to {own.host.network} by way of the host, and the host's adapter on "
        "it has to forward: Set-NetIPInterface -InterfaceAlias NAME -AddressFamily IPv4 -Forwarding Enabled",
    )


def _problems(look: Look) -> Iterator[str]:
    """Each piece that is not as it should be may keep Services from being answered."""
    carrier, seen = look.scope.member.carrier, or_why(look.carrier)
    if carrier.own is None or isinstance(seen, Unobservable):
        return
    if seen.own is None:
        yield f"switch {carrier.own.name} is gone"
    elif seen.entrance is not None or not carrier.own.nat:
        want = switch.wanted(carrier.own, seen, host=carrier.name)
        for item in differences(want.settings, seen.own.settings):
            yield f"switch {carrier.own.name}: {item.field}: wanted {item.wanted}, seen {item.seen}"


SWITCH = Phase(
    "switch",
    _plan,
    _removal,
    Scope.change_host,
    findings=_findings,
    problems=_problems,
    broken=lambda _look, _target, _answer: None,
    after=_again,
    expected=_expected,
)
