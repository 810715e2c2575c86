"""status: one row a host, whatever can be seen; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from vmproxy.engine.machine import Machine
from vmproxy.errors import VmproxyError
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.topology import Member, Topology
from vmproxy.resources import route


@dataclass(frozen=True)
class HostStatus:
    """What one host is like. Every part has a `state` word; `unknown` when it could not be seen."""

    name: str
    vm: dict[str, object]
    proxy: dict[str, object]
    route: dict[str, object]
    credential: dict[str, object]
    converged: bool

    def as_json(self) -> dict[str, object]:
        return {**vars(self), "error": None}


def status_host(topology: Topology, member: Member, report: Callable[[str], None]) -> HostStatus:
    with Machine(topology, member, report) as machine:
        seen, client = machine.carrier.observe(), machine.client.observe()
        machine.note_carrier(seen)
        cluster = _cluster(machine)
        guest = _guest(machine, seen, cluster)
        return HostStatus(
            name=member.name,
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


def _vm(machine: Machine, seen: CarrierSeen) -> dict[str, object]:
    name = machine.member.vm.name
    if seen.vm is None:
        return {"state": "absent", "name": name}
    if seen.vm.marker is None:
        return {"state": "foreign", "name": name}
    state = "running" if seen.vm.running else "stopped"
    return {"state": state, "name": name, "address": str(machine.address)}


def _proxy(guest: GuestSeen | Unobservable) -> dict[str, object]:
    if isinstance(guest, Unobservable):
        return {"state": "unknown", "detail": guest.because}
    seen = guest.proxy
    age = round(guest.now - seen.last_synced, 1) if seen.last_synced else None
    return {
        "state": "live" if seen.live else "down",
        "mode": seen.mode,
        "version": seen.version,
        "ruleAgeSeconds": age,
        "syncFailures": seen.failures,
    }


def _routes(
    machine: Machine, seen: CarrierSeen, client: ClientSeen, cluster: ClusterSeen | Unobservable
) -> dict[str, object]:
    marked = seen.marker.routes if seen.marker else ()
    wanted = machine.wanted_routes(cluster) if isinstance(cluster, ClusterSeen) else marked
    there = [item for item in wanted if item in client.routes]
    state = "set" if wanted and len(there) == len(wanted) else "partly" if there else "missing"
    mine = route.ours(wanted, marked, client.routes)
    return {
        "state": state,
        "routes": [{"prefix": str(item.prefix), "via": str(item.via or "")} for item in mine],
    }


def _credential(
    account: str, guest: GuestSeen | Unobservable, cluster: ClusterSeen | Unobservable
) -> dict[str, object]:
    if isinstance(guest, Unobservable):
        return {"state": "unknown", "detail": guest.because}
    if guest.token is None:
        return {"state": "absent"}
    expires = datetime.fromtimestamp(guest.token.expires, UTC).isoformat()
    revoked = isinstance(cluster, ClusterSeen) and cluster.uid(account) != guest.token.uid
    state = "revoked" if revoked else "expired" if guest.token.expires <= time.time() else "valid"
    return {"state": state, "expires": expires}
