"""The host's routes to pods, where the VM is on a switch of its own and reaches them through the host.

They are made before kube-proxy is asked for an answer, which may come from a pod; the phase of routes, which
knows all of the host's, removes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Leaving, Phase
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import Conflict, VmproxyError
from vmproxy.model.finding import Finding, failed
from vmproxy.model.net import Route
from vmproxy.model.seen import Unobservable
from vmproxy.model.steps import SetRoute, Step
from vmproxy.resources import guestroutes, route


def _plan(scope: Scope, world: World) -> Sequence[SetRoute]:
    """The marker names all routes from here on, and those that are still to be removed."""
    guestroutes.check_on_host(scope.member.vm, world.client.addresses)
    pods = guestroutes.on_host(scope.member.vm, world.cluster, world.client.addresses)
    _refuse_own_way(scope, world, pods)
    wanted = scope.wanted_routes(world.cluster, world.client, world.carrier.marker)
    steps = route.plan(wanted, world.marked, world.client, client=scope.member.client.name) if pods else ()
    named, why = tuple(dict.fromkeys((*wanted, *world.marked))), "the VM reaches pods through the host"
    return tuple(
        replace(step, routes=named, why=why, cold=world.interrupted)
        for step in steps
        if isinstance(step, SetRoute) and step.route in pods
    )


def _refuse_own_way(scope: Scope, world: World, pods: Sequence[Route]) -> None:
    """Whoever registered a Node must not lead the host's answers to this machine elsewhere."""
    entrance = world.carrier.entrance
    hit = [item for item in pods if entrance is not None and entrance.controller in item.prefix]
    if hit:
        raise Conflict(
            f"cannot route pods on {scope.member.client.name}: this machine's own address is in their range",
            details=[str(item) for item in hit],
            hint="correct that Node's podCIDR, or set network.podRoutes: none and network.routes",
        )


def _with_the_others(_scope: Scope, _leaving: Leaving) -> Sequence[Step]:
    return ()


def _findings(look: Look) -> Iterator[Finding]:
    """What the site file says; the routes' phase looks at all of them. Nothing where the host cannot be
    looked at, which the VM's phase says."""
    if look.scope.member.carrier.own is None or isinstance(or_why(look.client), Unobservable):
        return
    try:
        guestroutes.check_on_host(look.scope.member.vm, look.client().addresses)
    except VmproxyError as exc:
        yield failed("routes to pods", exc)


def _no_problems(_look: Look) -> Iterator[str]:
    """An endpoint that is not reached is named by verify and plan."""
    return iter(())


PODS = Phase(
    "pods",
    _plan,
    _with_the_others,
    Scope.change_host,
    findings=_findings,
    problems=_no_problems,
    broken=lambda _look, _target, _answer: None,
    after=Scope.look_at_host,
    expected=lambda _scope, world, steps: world.with_routes(steps),
)
