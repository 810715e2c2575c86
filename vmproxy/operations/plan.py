"""plan: what apply would do, and what no step of it repairs."""

from __future__ import annotations

from dataclasses import replace

from vmproxy.engine import endpoints, phases
from vmproxy.engine.scope import Scope, World
from vmproxy.engine.site import SiteRun
from vmproxy.model.seen import GuestSeen
from vmproxy.model.steps import Plan, SwitchStep, VmStep
from vmproxy.model.topology import Member
from vmproxy.resources import podroutes
from vmproxy.util import events
from vmproxy.util.events import Reporter


def _silent(scope: Scope, world: World) -> tuple[str, ...]:
    """All is in sync; does it also work?"""
    answer, (address, port) = scope.ask_through(world.cluster), world.cluster.canary
    if answer.ok:
        return ()
    return (
        f"{address}:{port} does not answer {scope.member.client.name} through the VM: {answer.detail}; "
        "run: vmproxy verify",
    )


def plan_host(site: SiteRun, member: Member, report: Reporter) -> Plan:
    with Scope(site, member, report) as scope:
        world = scope.look()
        planned = phases.plan(scope, world)
        settled = not any(isinstance(step, SwitchStep | VmStep) for step in planned.steps)
        if isinstance(world.guest, GuestSeen) and settled:
            report("trying the Services' endpoints from the VM")
            known = endpoints.ways(member.vm, world.cluster, world.client.addresses)
            lost = endpoints.unreachable(scope.guest(), site.services(), known)
            silent = _silent(scope, world) if planned.in_sync else ()
            planned = replace(planned, warnings=(*planned.warnings, *silent, *lost))
        ways = podroutes.findings(member.vm, world.cluster, site.services(), world.client.addresses)
        planned = replace(
            planned,
            unseen=(*planned.unseen, *scope.missing(planned.steps)),
            warnings=(*planned.warnings, *(f"{item.detail}: {item.next_step}" for item in ways)),
        )
        for warning in planned.warnings:
            report.send(events.Warned(warning))
        return planned
