"""The guest as a whole: what is wanted in it, and the steps to that, resource by resource."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from vmproxy.model import names
from vmproxy.model.names import (
    AUTHORIZED_KEYS,
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
    SSHD,
    SSHD_UNIT,
    TOKEN,
    TOKEN_UNIT,
    UNITS,
)
from vmproxy.model.net import Address, Interface, Route
from vmproxy.model.seen import ApiServer, ClusterSeen, GuestQuery, GuestSeen, Unobservable
from vmproxy.model.steps import Follow, GuestStep, ManagedFile, PushFile, RemoveDropIns, StartUnit
from vmproxy.model.topology import Vm
from vmproxy.resources import (
    access,
    firewall,
    guestaddress,
    guestroutes,
    kubeproxy,
    kubeproxyconfig,
    podroutes,
    sysctls,
    token,
)
from vmproxy.resources.kubeproxy import Program, Tools
from vmproxy.site.model import Proxy
from vmproxy.util import assets


@dataclass(frozen=True)
class GuestWanted:
    """`units` are enabled and run. `mode` and `version` are kube-proxy's. `ttl`: the seconds that its token
    is asked to live. `address` and `dns` are what the seed gave the interface, `added` its addresses beside
    that."""

    files: Mapping[str, ManagedFile]
    units: tuple[str, ...]
    mode: str
    version: str
    sysctls: Mapping[str, str]
    guard: ManagedFile
    routes: tuple[Route, ...]
    token: token.Wanted
    ttl: int
    address: Interface
    dns: tuple[Address, ...]
    added: tuple[Interface, ...] = ()
    warnings: tuple[str, ...] = ()


def query(cluster: ClusterSeen) -> GuestQuery:
    """All that is managed, and whether it works. Looking depends on nothing that is wanted, so it needs no
    program and no image."""
    settings = tuple(sysctls.wanted(f"v1.{kubeproxyconfig.OLDEST}.0"))
    files, url = (*names.MANAGED_FILES, TOKEN, RENEWAL), urlsplit(cluster.server)
    host = url.hostname or ""
    api = ApiServer(host, url.port or 443, url.path.rstrip("/"), cluster.tls_server_name or host, CA)
    return GuestQuery(files, names.OWN_UNITS, settings, TOKEN, RENEWAL, cluster.canary, api, names.FOLDERS)


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
    seeded: Mapping[str, str],
) -> GuestWanted:
    """Pure, but for the templates. `host` are the host's own addresses, `seeded` the files that the seed
    made. Raises UsageError for a version or mode that is not supported."""
    routes = guestroutes.wanted(vm, cluster, host)
    settings = sysctls.wanted(program.version)
    added = guestaddress.wanted(vm)
    guard = firewall.file(cluster.service_cidrs, firewall.clients(vm, host), firewall.inside(vm, cluster))
    mode = kubeproxy.mode_of(proxy, program, tools)
    files = {
        **kubeproxy.files(vm, cluster, program=program, mode=mode),
        **token.files(vm, cluster, ttl=proxy.token_ttl),
        **firewall.files(guard),
        **guestroutes.files(routes),
        **guestaddress.files(added),
        **podroutes.files(vm, cluster),
        **sysctls.files(settings),
        **_setup(),
        **_keeper(cluster),
        **_log_in(seeded),
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
        address=vm.address,
        dns=vm.network.dns,
        added=added,
        warnings=(
            *kubeproxy.warnings(vm, proxy, cluster, program),
            *guestroutes.warnings(vm, cluster, host),
        ),
    )


def plan(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[GuestStep, ...]:
    """Each difference is a step of its own; what follows from a file's change belongs to it. An answer that
    was checked by a damaged CA, or without the routes, says nothing of kube-proxy."""
    if isinstance(seen, Unobservable):
        return ()
    pushed = tuple(
        step
        for path, file in want.files.items()
        if (step := PushFile(path, file, seen.files.get(path))).drift
    )
    follows = [step.file.follow for step in pushed]
    changed = tuple(
        RemoveDropIns(unit, there.drop_ins) for unit, there in seen.units.items() if there.drop_ins
    )
    follows += [Follow(restart=(step.unit,)) for step in changed if step.unit in want.units]
    units = tuple(_units(want, seen, follows))
    routes = tuple(guestroutes.plan(want.routes, seen, follows))
    hidden = routes or any(step.path == CLUSTER_CA for step in pushed)
    judged = replace(seen, canary=None) if hidden and seen.canary and seen.canary.rule else seen
    return (
        *pushed,
        *access.plan(seen),
        *changed,
        *sysctls.plan(want.sysctls, seen),
        *firewall.plan(want.guard, seen, follows),
        *guestaddress.plan(want.added, seen, follows),
        *routes,
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
    age = seen.proxy.age
    since = "kube-proxy: about to start" if age is None else f"kube-proxy: started {age:.0f} s ago"
    return tuple(f"{since}; {item.field.split(': ')[-1]}: {item.seen}" for item in drift[:1])


def works(seen: GuestSeen | Unobservable) -> bool:
    return isinstance(seen, GuestSeen) and not kubeproxy.health(seen)


def warnings(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[str, ...]:
    """What no step of ours repairs."""
    return (*want.warnings, *trouble(seen), *_short_lived(want, seen), *_elsewhere(want, seen))


def trouble(seen: GuestSeen | Unobservable) -> tuple[str, ...]:
    """Of that what needs no wanted state to be known."""
    routes = podroutes.trouble(seen) if isinstance(seen, GuestSeen) else ()
    return (*kubeproxy.trouble(seen), *_hindered(seen), *routes)


def _hindered(seen: GuestSeen | Unobservable) -> Iterator[str]:
    if isinstance(seen, Unobservable):
        return
    unit = seen.units.get(TOKEN_UNIT)
    if unit and unit.failed:
        yield f"{TOKEN_UNIT} failed: the token was not renewed; see journalctl -u {TOKEN_UNIT} in the VM"
    for chain in seen.blockers:
        yield f"the VM has firewall rules of others that may drop Service traffic: {chain}"


def _elsewhere(want: GuestWanted, seen: GuestSeen | Unobservable) -> Iterator[str]:
    """The interface's address and name servers are the seed's; a new VM has them again."""
    if isinstance(seen, Unobservable):
        return
    own = [item for item in seen.addresses if item not in (*want.added, *seen.added)]
    if seen.addresses and own != [want.address]:
        found = ", ".join(map(str, seen.addresses))
        yield f"{names.INTERFACE} of the VM has {found}, where the site file has {want.address} alone"
    missing = [str(server) for server in want.dns if str(server) not in seen.dns]
    if missing:
        asked = ", ".join(seen.dns) or "none"
        yield f"the VM does not ask the name server {', '.join(missing)} of the site file (it asks: {asked})"


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


def _log_in(seeded: Mapping[str, str]) -> dict[str, ManagedFile]:
    """Who may log in, and how; both are used at the next log-in, the server's settings when it starts."""
    found = {}
    if AUTHORIZED_KEYS in seeded:
        found[AUTHORIZED_KEYS] = ManagedFile.of(seeded[AUTHORIZED_KEYS], mode="0600")
    if SSHD in seeded:
        found[SSHD] = ManagedFile.of(seeded[SSHD], follow=Follow(restart=(SSHD_UNIT,)))
    return found


def _units(want: GuestWanted, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[StartUnit]:
    """A unit that a pushed file restarts anyway needs no step but to be enabled."""
    restarted = {unit for follow in follows for unit in follow.restart}
    for unit in want.units:
        step = StartUnit(unit, seen.units.get(unit), unit in restarted)
        if step.drift:
            yield step
