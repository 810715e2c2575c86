"""doctor: look at host, cluster and network before anything is changed; every finding has a next step."""

from __future__ import annotations

from collections.abc import Iterator

from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Connection
from vmproxy.image.age import OLD_DAYS, age, days
from vmproxy.model.seen import CarrierSeen
from vmproxy.model.topology import Member
from vmproxy.operations.doctor.finding import Finding, checked, enough, failed
from vmproxy.operations.doctor.linux import DISK_NEEDED, carrier_findings, controller_findings
from vmproxy.operations.doctor.windows import windows_findings
from vmproxy.resources import kubeproxy, route, switch, vm
from vmproxy.resources.kubeproxy import NO_DNS
from vmproxy.util.events import Reporter

_NEWER = (
    "run: vmproxy image build --again, or name a newer image in the site file; "
    "then: vmproxy apply --yes --new-image"
)
__all__ = ["Finding", "doctor_host"]


def doctor_host(site: SiteRun, member: Member, report: Reporter) -> tuple[Finding, ...]:
    with Scope(site, member, report) as scope:
        report("looking at this scope")
        findings = list(_machine_findings(scope))
        report("looking at the cluster")
        findings += _cluster_findings(scope)
        report(f"looking at {member.name} and its network")
        findings += _place_findings(scope)
    return tuple(findings)


def _machine_findings(scope: Scope) -> Iterator[Finding]:
    if scope.kind.local:
        return carrier_findings(scope.member.vm)
    return controller_findings(converts=not scope.site.links.artifacts.fetched_by_host(scope.kind))


def _place_findings(scope: Scope) -> Iterator[Finding]:
    """The host as it is reached, then what apply would look at first."""
    try:
        carrier = scope.carrier
    except VmproxyError as exc:
        yield failed("host" if scope.kind.local else "WinRM", exc)
        return
    if facts := carrier.examine():
        yield from windows_findings(scope.member.vm, facts)
    yield from _host_findings(scope)


def _cluster_findings(scope: Scope) -> Iterator[Finding]:
    try:
        seen = scope.cluster_seen()
        missing = scope.site.cluster.missing_rights()
    except VmproxyError as exc:
        yield failed("cluster", exc)
        return
    yield Finding("cluster", ok=True, detail=f"Kubernetes {seen.version} at {seen.server}")
    if name := kubeproxy.unresolved(scope.member.vm, seen):
        yield Finding("API server's name", ok=False, detail=f"the VM cannot resolve {name}", next_step=NO_DNS)
    yield Finding("Service ranges", ok=True, detail=", ".join(map(str, seen.service_cidrs)))
    yield Finding(
        "rights in the cluster",
        not missing,
        "missing: " + ", ".join(missing) if missing else "all that apply needs",
        "ask the cluster's administrator for them" if missing else "",
    )
    acts_for = scope.member.vm.acts_for
    if acts_for:
        known = any(node.name == acts_for for node in seen.nodes)
        detail = f"{acts_for} is there" if known else f"there is no Node {acts_for}"
        yield Finding("actsFor", known, detail, "" if known else "correct hosts[].actsFor, or omit it")


def _host_findings(scope: Scope) -> Iterator[Finding]:
    try:
        seen, own = scope.look_at_carrier(), scope.member.vm
        switch.check(own.carrier, seen)
        yield Finding("switch", ok=True, detail=own.carrier.switch)
        yield from _sizes(scope, seen)
        vm.destroy_plan(own.name, site=own.site, host=own.host, seen=seen)
        yield _image(scope, seen)
        yield Finding("VM name", ok=True, detail="free" if seen.vm is None else "ours")
        if seen.vm is None:
            yield _address_free(scope)
        cluster = scope.cluster_seen()
        marked = seen.marker.routes if seen.marker else ()
        client = scope.client.observe()
        route.plan(scope.wanted_routes(cluster, seen.marker), marked, client, client=scope.member.client.name)
        yield Finding("routes", ok=True, detail="nothing overlaps the Service ranges")
    except VmproxyError as exc:
        yield failed("host", exc)


def _image(scope: Scope, seen: CarrierSeen) -> Finding:
    """What the VM was made of, or would be."""
    base = scope.site.links.artifacts.base(scope.kind)
    made = seen.marker.made if seen.marker else base.made
    known = age(made)
    if known is None:
        return Finding("image", ok=True, detail=base.how or "its age is not known")
    return checked("image", ok=known < OLD_DAYS, detail=f"{days(made)} old", otherwise=_NEWER)


def _sizes(scope: Scope, seen: CarrierSeen) -> Iterator[Finding]:
    """Of another scope, for a VM that is still to be made."""
    if scope.kind.local or seen.vm is not None:
        return
    needed = scope.member.vm.size.memory
    yield enough("memory", seen.free_memory, needed, otherwise="stop a VM, or set vm.memory to less")
    yield enough(
        "disk",
        seen.free_disk,
        DISK_NEEDED,
        otherwise="free space on that drive, or set hyperv.directory to another one",
    )


def _address_free(scope: Scope) -> Finding:
    """Something that refuses or accepts a connection has the address; silence means free."""
    address = scope.member.vm.address.ip
    answer = scope.client.probe([Connection("tcp", address, 22)])[0]
    taken = bool(answer.ok) or answer.detail == "refused"
    next_step = "give the VM another address: hosts[].network.address" if taken else ""
    return Finding("VM address", not taken, f"{address} {'is taken' if taken else 'is free'}", next_step)
