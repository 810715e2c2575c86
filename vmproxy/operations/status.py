"""status: one row a host, whatever can be seen; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from vmproxy.engine.machine import Machine
from vmproxy.errors import VmproxyError
from vmproxy.model.seen import ClusterSeen, GuestSeen, HostSeen, Unobservable
from vmproxy.resources import route
from vmproxy.site.model import Host, Site


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


def status_host(site: Site, host: Host, report: Callable[[str], None]) -> HostStatus:
    with Machine(site, host, report) as machine:
        seen = machine.place.observe()
        machine.note_host(seen)
        cluster = _cluster(machine)
        guest = _guest(machine, seen, cluster)
        return HostStatus(
            name=host.name,
            vm=_vm(machine, seen),
            proxy=_proxy(guest),
            route=_routes(machine, seen, cluster),
            credential=_credential(guest, cluster),
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


def _guest(machine: Machine, seen: HostSeen, cluster: ClusterSeen | Unobservable) -> GuestSeen | Unobservable:
    if seen.vm is None or not seen.vm.running or seen.vm.marker is None:
        return Unobservable("the VM does not run")
    try:
        return machine.observe_guest(cluster)
    except VmproxyError as exc:
        return Unobservable(exc.message)


def _vm(machine: Machine, seen: HostSeen) -> dict[str, object]:
    name = machine.site.vm_name(machine.host)
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


def _routes(machine: Machine, seen: HostSeen, cluster: ClusterSeen | Unobservable) -> dict[str, object]:
    marked = seen.vm.marker.routes if seen.vm and seen.vm.marker else ()
    wanted = machine.wanted_routes(cluster) if isinstance(cluster, ClusterSeen) else marked
    there = [item for item in wanted if item in seen.routes]
    state = "set" if wanted and len(there) == len(wanted) else "partly" if there else "missing"
    mine = route.ours(wanted, marked, seen.routes)
    return {
        "state": state,
        "routes": [{"prefix": str(item.prefix), "via": str(item.via or "")} for item in mine],
    }


def _credential(guest: GuestSeen | Unobservable, cluster: ClusterSeen | Unobservable) -> dict[str, object]:
    if isinstance(guest, Unobservable):
        return {"state": "unknown", "detail": guest.because}
    if guest.token is None:
        return {"state": "absent"}
    expires = datetime.fromtimestamp(guest.token.expires, UTC).isoformat()
    revoked = isinstance(cluster, ClusterSeen) and cluster.account_uid != guest.token.uid
    state = "revoked" if revoked else "expired" if guest.token.expires <= time.time() else "valid"
    return {"state": state, "expires": expires}
