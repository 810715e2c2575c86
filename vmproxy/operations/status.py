"""status: one row a host, whatever can be seen; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases import PHASES
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.image.age import age
from vmproxy.model.net import Address, Interface, Route
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.topology import Member
from vmproxy.resources import clientnames, containers, route, token
from vmproxy.resources import guest as inside
from vmproxy.util.events import Reporter


@dataclass(frozen=True)
class VmStatus:
    """`address` has the network's length; None: there is no VM of ours. `image_age` of what it was made of,
    in days, None when that is not known."""

    state: Literal["running", "stopped", "absent", "foreign"]
    name: str
    address: Interface | None = None
    image_age: int | None = None


@dataclass(frozen=True)
class ProxyStatus:
    """`rule_age`: seconds since the last sync of rules, None before the first. `failures` of syncs."""

    state: Literal["live", "down"]
    mode: str | None
    version: str | None
    rule_age: float | None
    failures: int


@dataclass(frozen=True)
class RouteStatus:
    """`state` compares with the wanted routes; `routes` are those on the host that are ours."""

    state: Literal["set", "partly", "missing"]
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class NamesStatus:
    """The rules for the cluster's names. `state` compares with the wanted ones; "void": a policy makes them
    so. `domain` and `server` are the cluster's DNS."""

    state: Literal["set", "partly", "missing", "void"]
    domain: str
    server: Address


@dataclass(frozen=True)
class CredentialStatus:
    """The guest's token. `expires` None: it is absent. "refused": by the API server."""

    state: Literal["valid", "expired", "revoked", "refused", "absent"]
    expires: datetime | None = None


@dataclass(frozen=True)
class PodRoutesStatus:
    """What keeps routes to pods in the VM. "late": it does not follow the API server, and keeps what it
    has; `since`, in seconds, so or the other way. `routes` are set."""

    state: Literal["current", "late"]
    mode: str
    routes: int
    since: float


@dataclass(frozen=True)
class HostStatus:
    """What one host is like. `converged`: kube-proxy works, and the host is answered through it; otherwise
    `problems` say what is wrong. `names` None: the site file does not ask for them. `drops`: packets that the
    guard table dropped, by its counters' names; `repairs`: what the keeper repaired since the VM started, and
    how often. `warnings`: what is wrong in the VM, keeps nothing from being answered now, and is not repaired
    by apply; and what is experimental. `pod_routes` None: none are kept one by one."""

    vm: VmStatus
    proxy: ProxyStatus | Unobservable
    route: RouteStatus
    credential: CredentialStatus | Unobservable
    converged: bool
    problems: tuple[str, ...] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    repairs: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pod_routes: PodRoutesStatus | Unobservable | None = None
    names: NamesStatus | Unobservable | None = None


def status_host(site: SiteRun, member: Member, report: Reporter) -> HostStatus:
    """Raises VmproxyError when the host itself cannot be looked at."""
    with Scope(site, member, report) as scope:
        look = Look(scope)
        seen, client, cluster, guest = look.carrier(), look.client(), or_why(look.cluster), or_why(look.guest)
        problems = tuple(problem for phase in PHASES for problem in phase.problems(look))
        return HostStatus(
            vm=_vm(scope, seen),
            proxy=_proxy(guest),
            route=_routes(scope, seen, client, cluster),
            credential=_credential(member.vm.account, guest, cluster),
            converged=not problems,
            problems=problems,
            drops=guest.drops if isinstance(guest, GuestSeen) else {},
            repairs=guest.repairs if isinstance(guest, GuestSeen) else {},
            warnings=(*containers.experimental(member.vm), *inside.trouble(guest)),
            pod_routes=_pod_routes(member, guest),
            names=_names(scope, client, cluster),
        )


def _vm(scope: Scope, seen: CarrierSeen) -> VmStatus:
    name = scope.member.vm.name
    if seen.vm is None:
        return VmStatus("absent", name)
    if seen.vm.marker is None:
        return VmStatus("foreign", name)
    marker = seen.vm.marker
    return VmStatus("running" if seen.vm.running else "stopped", name, marker.address, age(marker.made))


def _proxy(guest: GuestSeen | Unobservable) -> ProxyStatus | Unobservable:
    if isinstance(guest, Unobservable):
        return guest
    seen = guest.proxy
    age = round(guest.now - seen.last_synced, 1) if seen.last_synced else None
    return ProxyStatus("live" if seen.live else "down", seen.mode, seen.version, age, seen.failures)


def _routes(
    scope: Scope, seen: CarrierSeen, client: ClientSeen, cluster: ClusterSeen | Unobservable
) -> RouteStatus:
    marked = seen.marker.routes if seen.marker else ()
    wanted = scope.wanted_routes(cluster, client, seen.marker) if isinstance(cluster, ClusterSeen) else marked
    there = [item for item in wanted if item in client.routes]
    mine = tuple(route.ours(wanted, marked, client.routes))
    if wanted and len(there) == len(wanted):
        return RouteStatus("set", mine)
    return RouteStatus("partly" if there else "missing", mine)


def _pod_routes(member: Member, guest: GuestSeen | Unobservable) -> PodRoutesStatus | Unobservable | None:
    if member.vm.network.pod_routes in {"none", "nodes"}:
        return None
    if isinstance(guest, Unobservable):
        return guest
    seen = guest.pod_routes
    if seen is None or seen.mode == "none":
        return Unobservable("the VM does not keep them yet: run vmproxy apply")
    current = seen.listed and not seen.api
    age = round(max(guest.now - seen.since, 0.0), 1)
    return PodRoutesStatus("current" if current else "late", seen.mode, seen.routes, age)


def _names(
    scope: Scope, client: ClientSeen, cluster: ClusterSeen | Unobservable
) -> NamesStatus | Unobservable | None:
    if scope.site.topology.dns is None:
        return None
    dns = cluster if isinstance(cluster, Unobservable) else cluster.dns
    if isinstance(dns, Unobservable) or isinstance(cluster, Unobservable) or dns is None:
        return dns if isinstance(dns, Unobservable) else None
    wanted = scope.wanted_names(cluster)
    there = clientnames.in_place(wanted, client, comment=scope.comment)
    if client.policy:
        return NamesStatus("void", dns.domain, dns.server)
    if there == len(wanted):
        return NamesStatus("set", dns.domain, dns.server)
    return NamesStatus("partly" if there else "missing", dns.domain, dns.server)


def _credential(
    account: str, guest: GuestSeen | Unobservable, cluster: ClusterSeen | Unobservable
) -> CredentialStatus | Unobservable:
    if isinstance(guest, Unobservable):
        return guest
    if guest.token is None:
        return CredentialStatus("absent")
    expires = datetime.fromtimestamp(guest.token.expires, UTC)
    if isinstance(cluster, ClusterSeen) and cluster.uid(account) != guest.token.uid:
        return CredentialStatus("revoked", expires)
    if token.refused(guest):
        return CredentialStatus("refused", expires)
    return CredentialStatus("expired" if guest.token.expires <= time.time() else "valid", expires)
