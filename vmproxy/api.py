"""The product as a library: what each command does on the hosts of a site, without a command line.

    site = vmproxy.load(Path("vmproxy.yaml"), hosts=["win-01"])
    for host, result in vmproxy.plan(site):
        ...

Each function works on all hosts side by side and gives what came of each, by its name, in the site file's
order. An error of one host stands in its place and never stops the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from vmproxy.engine import run
from vmproxy.engine.connect import connections
from vmproxy.engine.run import HostResult
from vmproxy.engine.site import SiteRun
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.model.steps import Plan
from vmproxy.model.topology import Member, Topology, compile_site
from vmproxy.operations import doctor as doctors
from vmproxy.operations import plan as plans
from vmproxy.operations import status as statuses
from vmproxy.operations import verify as checks
from vmproxy.operations.doctor import Finding
from vmproxy.operations.status import HostStatus
from vmproxy.operations.verify import Check
from vmproxy.site import load as site_file
from vmproxy.util.events import Event, Reporter, Sink

T = TypeVar("T")


def _silent(_host: str | None, _event: Event) -> None:
    """A sink that drops the events."""


@dataclass(frozen=True)
class Selection:
    """A site and those of its hosts that were chosen. `sink` takes the events of what is done on them."""

    topology: Topology
    members: tuple[Member, ...]
    sink: Sink

    @cached_property
    def site(self) -> SiteRun:
        """One run on them, over the real connections; they are opened when they are first needed."""
        return SiteRun(self.topology, self.members, connections(self.topology))

    def reporter(self, member: Member) -> Reporter:
        return Reporter(self.sink, member.name)

    def each(self, work: Callable[[SiteRun, Member, Reporter], T]) -> list[tuple[str, T | VmproxyError]]:
        results = run.for_each(self.members, lambda member: work(self.site, member, self.reporter(member)))
        return [(member.name, result) for member, result in zip(self.members, results, strict=True)]


def load(path: Path, hosts: Sequence[str] = (), *, sink: Sink = _silent) -> Selection:
    """No hosts: all. Raises UsageError for a mistake in the site file, or a host that is not in it."""
    topology = compile_site(site_file.load(path))
    known = {member.name: member for member in topology.members}
    unknown = [name for name in hosts if name not in known]
    if unknown:
        raise UsageError(
            f"no host named {', '.join(unknown)} in {path}", hint=f"its hosts are: {', '.join(known)}"
        )
    members = tuple(known[name] for name in dict.fromkeys(hosts)) or topology.members
    return Selection(topology, members, sink)


def plan(selection: Selection) -> list[tuple[str, Plan | VmproxyError]]:
    """What apply would do, and what no step of it repairs."""
    return selection.each(plans.plan_host)


def apply(
    selection: Selection, *, yes: bool = False, new_image: bool = False
) -> list[tuple[str, HostResult | VmproxyError]]:
    """`yes`: also the steps that interrupt a running VM. `new_image`: VMs of an older image are made anew."""
    return selection.each(partial(run.apply_host, yes=yes, new_image=new_image))


def destroy(selection: Selection, *, yes: bool = False) -> list[tuple[str, HostResult | VmproxyError]]:
    """Without `yes` nothing is removed: the results' `left` is what would be."""
    return selection.each(partial(run.destroy_host, yes=yes))


def verify(
    selection: Selection, *, services: Sequence[str] = (), container: str | None = None
) -> list[tuple[str, tuple[Check, ...] | VmproxyError]]:
    """`services` as "namespace/name" or "namespace/name:port"; none: those with ready endpoints. `container`:
    the name or the ID of one to connect from; None: from the host itself."""
    return selection.each(partial(checks.verify_host, services=services, container=container))


def status(selection: Selection) -> list[tuple[str, HostStatus | VmproxyError]]:
    """What can be seen of VM, kube-proxy, routes and token; nothing is changed."""
    return selection.each(statuses.status_host)


def doctor(selection: Selection) -> list[tuple[str, tuple[Finding, ...] | VmproxyError]]:
    """The prerequisites, each with its next step when it is not met."""
    return selection.each(doctors.doctor_host)
