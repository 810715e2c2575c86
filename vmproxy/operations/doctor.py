"""doctor: look at host, cluster and network before anything is changed; every finding has a next step."""

from __future__ import annotations

from vmproxy.engine.look import Look
from vmproxy.engine.phases import PHASES
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.model.finding import Finding
from vmproxy.model.topology import Member
from vmproxy.util.events import Reporter

__all__ = ["Finding", "doctor_host"]


def doctor_host(site: SiteRun, member: Member, report: Reporter) -> tuple[Finding, ...]:
    """This machine first, which every phase needs; then each phase's."""
    with Scope(site, member, report) as scope:
        report("looking at this machine")
        converts = not site.links.artifacts.fetched_by_host(scope.kind)
        findings = list(scope.kind.needs(member.vm, converts))
        look = Look(scope)
        for phase in PHASES:
            report(f"looking at what {phase.name} needs on {member.name}")
            findings += phase.findings(look)
    return tuple(findings)
