"""The product in ten lines: what is made of a site, in this order, and removed in the reverse one."""

from __future__ import annotations

from vmproxy.engine.phases.containers import CONTAINERS
from vmproxy.engine.phases.guest import GUEST
from vmproxy.engine.phases.identity import IDENTITY
from vmproxy.engine.phases.names import NAMES
from vmproxy.engine.phases.phase import Leaving, Phase
from vmproxy.engine.phases.pods import PODS
from vmproxy.engine.phases.routes import ROUTES
from vmproxy.engine.phases.switch import SWITCH
from vmproxy.engine.phases.vm import VM
from vmproxy.engine.scope import Scope, World
from vmproxy.model.steps import Plan, Step

PHASES = (IDENTITY, SWITCH, VM, PODS, GUEST, ROUTES, CONTAINERS, NAMES)


def plan(scope: Scope, world: World) -> Plan:
    """Every phase's steps, in order, each planned for the world as the phases before it will leave it."""
    planned = Plan()
    for phase in PHASES:
        steps, open_ = tuple(phase.plan(scope, world)), phase.unsettled(scope, world)
        world = phase.expected(scope, world, steps)
        planned = Plan(
            planned.steps + steps, planned.unseen + open_.unseen, planned.warnings + open_.warnings
        )
    return planned


def removal(scope: Scope, leaving: Leaving) -> tuple[tuple[Phase, tuple[Step, ...]], ...]:
    """Only the phases that have something to remove."""
    todo = ((phase, tuple(phase.removal(scope, leaving))) for phase in reversed(PHASES))
    return tuple((phase, steps) for phase, steps in todo if steps)
