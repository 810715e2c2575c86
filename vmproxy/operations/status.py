"""status: one row a host, whatever can be seen; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from vmproxy.engine.machine import Machine
from vmproxy.errors import VmproxyError
from vmproxy.model.net import Interface, Route
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.topology import Member, Topology
from vmproxy.resources import route


@dataclass(frozen=True)
class VmStatus:
    """`address` has the network's length; None: there is no VM of ours."""

    state: Literal["running", "stopped", "absent", "foreign"]
    name: str
    address: Interface | None = None


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
class CredentialStatus:
    """The guest's token. `expires` None: it is absent."""

    state: Literal["valid", "expired", "revoked", "absent"]
    expires: datetime | None = None


@dataclass(frozen=True)
class HostStatus:
    """What one host is like."""

    vm: VmStatus
    proxy: ProxyStatus | Unobservable
    route: RouteStatus
    credential: CredentialStatus | Unobservable
    converged: bool


def status_host(topology: Topology, member: Member, report: Callable[[str], None]) -> HostStatus:
    with Machine(topology, member, report) as machine:
        seen, client = machine.carrier.observe(), machine.client.observe()
        machine.note_carrier(seen)
        cluster = _cluster(machine)
        guest = _guest(machine, seen, cluster)
        return HostStatus(
            vm=_vm(machine, seen),
            proxy=_proxy(guest),
            route=_routes(machine, seen, client, cluster),
            credential=_credential(member.vm.account, guest, cluster),
            converged=isinstance(guest, GuestSeen) and converged(guest),
        )


def converged(guest: GuestSeen) -> bool:
    """kube-proxy lives and has nothing queued that it has not synced."""
    seen = guest.proxy
    return seen.live and seen.last_synced > 0 and seen.last_synced >= seen.last_queued


def _cluster(machine: Machine) -> ClusterSeen | Unobservable:
    try:
        return machine.observe_cluster()
    except VmproxyError as exc:
        return Unobservable(exc.message)


def _guest(
    machine: Machine, seen: CarrierSeen, cluster: ClusterSeen | Unobservable
) -> GuestSeen | Unobservable:
    if seen.vm is None or not seen.vm.running or seen.vm.marker is None:
        return Unobservable("the VM does not run")
    try:
        return machine.observe_guest(cluster)
    except VmproxyError as exc:
        return Unobservable(exc.message)


def _vm(machine: Machine, seen: CarrierSeen) -> VmStatus:
    name = machine.member.vm.name
    if seen.vm is None:
        return VmStatus("absent", name)
    if seen.vm.marker is None:
        return VmStatus("foreign", name)
    return VmStatus("running" if seen.vm.running else "stopped", name, machine.address)


def _proxy(guest: GuestSeen | Unobservable) -> ProxyStatus | Unobservable:
    if isinstance(guest, Unobservable):
        return guest
    seen = guest.proxy
    age = round(guest.now - seen.last_synced, 1) if seen.last_synced else None
    return ProxyStatus("live" if seen.live else "down", seen.mode, seen.version, age, seen.failures)


def _routes(
    machine: Machine, seen: CarrierSeen, client: ClientSeen, cluster: ClusterSeen | Unobservable
) -> RouteStatus:
    marked = seen.marker.routes if seen.marker else ()
    wanted = machine.wanted_routes(cluster) if isinstance(cluster, ClusterSeen) else marked
    there = [item for item in wanted if item in client.routes]
    mine = tuple(route.ours(wanted, marked, client.routes))
    if wanted and len(there) == len(wanted):
        return RouteStatus("set", mine)
    return RouteStatus("partly" if there else "missing", mine)


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
    return CredentialStatus("expired" if guest.token.expires <= time.time() else "valid", expires)
