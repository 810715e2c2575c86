"""plan: what apply would do, and what no step of it repairs."""

from __future__ import annotations

from dataclasses import replace

from vmproxy.engine import endpoints, phases
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.model.seen import GuestSeen
from vmproxy.model.steps import Plan, VmStep
from vmproxy.model.topology import Member
from vmproxy.util import events
from vmproxy.util.events import Reporter


def plan_host(site: SiteRun, member: Member, report: Reporter) -> Plan:
    with Scope(site, member, report) as scope:
        world = scope.look()
        planned = phases.plan(scope, world)
        settled = not any(isinstance(step, VmStep) for step in planned.steps)
        if isinstance(world.guest, GuestSeen) and settled:
            report("trying the Services' endpoints from the VM")
            lost = endpoints.unreachable(scope.guest(), site.services(), world.cluster)
            planned = replace(planned, warnings=(*planned.warnings, *lost))
        planned = replace(planned, unseen=(*planned.unseen, *scope.missing(planned.steps)))
        for warning in planned.warnings:
            report.send(events.Warned(warning))
        return planned
