"""The guest as a whole: what is wanted in it, and the steps to that, resource by resource."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from vmproxy.model import names
from vmproxy.model.names import (
    CA,
    CLUSTER_CA,
    CREDENTIAL,
    KEEPER,
    KEEPER_CONFIG,
    KEEPER_UNIT,
    PROXY_UNIT,
    RENEWAL,
    SETUP,
    SETUP_UNIT,
    TOKEN,
    UNITS,
)
from vmproxy.model.net import Interface, Route
from vmproxy.model.seen import ApiServer, ClusterSeen, GuestQuery, GuestSeen, Unobservable
from vmproxy.model.steps import Follow, GuestStep, ManagedFile, PushFile, StartUnit
from vmproxy.model.topology import Vm
from vmproxy.resources import firewall, guestroutes, kubeproxy, kubeproxyconfig, sysctls, token
from vmproxy.resources.kubeproxy import Program, Tools
from vmproxy.site.model import Proxy
from vmproxy.util import assets


@dataclass(frozen=True)
class GuestWanted:
    """`units` are enabled and run. `mode` and `version` are kube-proxy's. `ttl`: the seconds that its token
    is asked to live."""

    files: Mapping[str, ManagedFile]
    units: tuple[str, ...]
    mode: str
    version: str
    sysctls: Mapping[str, str]
    guard: ManagedFile
    routes: tuple[Route, ...]
    token: token.Wanted
    ttl: int
    warnings: tuple[str, ...] = ()


def query(cluster: ClusterSeen) -> GuestQuery:
    """All that is managed, and whether it works. Looking depends on nothing that is wanted, so it needs no
    program and no image."""
    settings = tuple(sysctls.wanted(f"v1.{kubeproxyconfig.OLDEST}.0"))
    files, url = (*names.MANAGED_FILES, RENEWAL), urlsplit(cluster.server)
    host = url.hostname or ""
    api = ApiServer(host, url.port or 443, url.path.rstrip("/"), cluster.tls_server_name or host, CA)
    return GuestQuery(files, names.RUNNING_UNITS, settings, TOKEN, RENEWAL, cluster.canary, api)


BARE_QUERY = GuestQuery((), (PROXY_UNIT,), (), TOKEN, RENEWAL)
"""Whether kube-proxy runs, and no more."""


def wanted(
    vm: Vm,
    proxy: Proxy,
    cluster: ClusterSeen,
    host: Sequence[Interface],
    *,
    program: Program,
    tools: Tools,
) -> GuestWanted:
    """Pure, but for the templates. `host` are the host's own addresses. Raises UsageError for a version or
    mode that is not supported."""
    routes = guestroutes.wanted(vm, cluster)
    settings = sysctls.wanted(program.version)
    guard = firewall.file(cluster.service_cidrs, firewall.clients(vm, host))
    mode = kubeproxy.mode_of(proxy, program, tools)
    files = {
        **kubeproxy.files(vm, cluster, program=program, mode=mode),
        **token.files(vm, cluster, ttl=proxy.token_ttl),
        **firewall.files(guard),
        **guestroutes.files(routes),
        **sysctls.files(settings),
        **_setup(),
        **_keeper(cluster),
    }
    return GuestWanted(
        files=files,
        units=names.RUNNING_UNITS,
        mode=mode,
        version=program.version,
        sysctls=settings,
        guard=guard,
        routes=routes,
        token=token.wanted(vm, cluster),
        ttl=proxy.token_ttl,
        warnings=(
            *kubeproxy.warnings(vm, proxy, cluster, program),
            *guestroutes.warnings(vm, cluster),
        ),
    )


def plan(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[GuestStep, ...]:
    """Each difference is a step of its own; what follows from a file's change belongs to it. A canary that
    was checked by a damaged CA says nothing of kube-proxy."""
    if isinstance(seen, Unobservable):
        return ()
    pushed = tuple(
        step
        for path, file in want.files.items()
        if (step := PushFile(path, file, seen.files.get(path))).drift
    )
    follows = [step.file.follow for step in pushed]
    units = tuple(_units(want, seen, follows))
    judged = replace(seen, canary=None) if any(step.path == CLUSTER_CA for step in pushed) else seen
    return (
        *pushed,
        *sysctls.plan(want.sysctls, seen),
        *firewall.plan(want.guard, seen, follows),
        *guestroutes.plan(want.routes, seen, follows),
        *token.plan(want.token, seen, follows),
        *units,
        *kubeproxy.plan(want.mode, want.version, judged, follows, [step.unit for step in units]),
    )


def unsettled(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[str, ...]:
    """What cannot be compared yet: the token of a Secret that is still to be made, and a kube-proxy that has
    just started, which may become good by itself."""
    if isinstance(seen, Unobservable):
        return ()
    renewal = () if want.token.renewal else ("renewal token: compared when its Secret is made",)
    return (*renewal, *_starting(want, seen))


def _starting(want: GuestWanted, seen: GuestSeen) -> tuple[str, ...]:
    if not kubeproxy.starting(seen):
        return ()
    drift = kubeproxy.health(seen, mode=want.mode, version=want.version)
    age = f"kube-proxy: started {seen.proxy.age:.0f} s ago"
    return tuple(f"{age}; {item.field.split(': ')[-1]}: {item.seen}" for item in drift[:1])


def works(seen: GuestSeen | Unobservable) -> bool:
    return isinstance(seen, GuestSeen) and not kubeproxy.health(seen)


def warnings(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[str, ...]:
    """What no step of ours repairs."""
    return (*want.warnings, *kubeproxy.trouble(seen), *_short_lived(want, seen))


def _short_lived(want: GuestWanted, seen: GuestSeen | Unobservable) -> Iterator[str]:
    """Not while another life is about to be asked for."""
    if isinstance(seen, GuestSeen):
        asked = PushFile(CREDENTIAL, want.files[CREDENTIAL], seen.files.get(CREDENTIAL))
        if not asked.drift:
            yield from token.warnings(seen, ttl=want.ttl)


def _setup() -> dict[str, ManagedFile]:
    """What loads the guard table and the routes, at boot and when they change."""
    return {
        SETUP: ManagedFile.of(assets.text("guest/setup.py"), mode="0755"),
        f"{UNITS}/{SETUP_UNIT}": ManagedFile.of(
            assets.text(f"guest/{SETUP_UNIT}"), follow=Follow(reload=True)
        ),
    }


def _keeper(cluster: ClusterSeen) -> dict[str, ManagedFile]:
    """What repairs in the guest what needs no controller. kube-proxy has its rules while it has the one for
    the canary."""
    address, port = cluster.canary
    restart = Follow(restart=(KEEPER_UNIT,))
    return {
        KEEPER: ManagedFile.of(assets.text("guest/keeper.py"), mode="0755", follow=restart),
        KEEPER_CONFIG: ManagedFile.of(json.dumps({"canary": [str(address), port]}) + "\n"),
        f"{UNITS}/{KEEPER_UNIT}": ManagedFile.of(
            assets.text(f"guest/{KEEPER_UNIT}"), follow=Follow(restart=(KEEPER_UNIT,), reload=True)
        ),
    }


def _units(want: GuestWanted, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[StartUnit]:
    """A unit that a pushed file restarts anyway needs no step but to be enabled."""
    restarted = {unit for follow in follows for unit in follow.restart}
    for unit in want.units:
        step = StartUnit(unit, seen.units.get(unit), unit in restarted)
        if step.drift:
            yield step
