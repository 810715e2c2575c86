"""The guest as a whole: what is wanted in it, and the steps to that, resource by resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vmproxy.model import names
from vmproxy.model.names import PROXY_UNIT, SETUP, SETUP_UNIT, TOKEN, UNITS
from vmproxy.model.net import Route
from vmproxy.model.seen import ClusterSeen, GuestQuery, GuestSeen, Unobservable
from vmproxy.model.steps import Follow, GuestStep, ManagedFile, PushFile, StartUnit
from vmproxy.model.topology import Vm
from vmproxy.resources import firewall, guestroutes, kubeproxy, kubeproxyconfig, sysctls, token
from vmproxy.resources.kubeproxy import Program, Tools
from vmproxy.site.model import Proxy
from vmproxy.util import assets


@dataclass(frozen=True)
class GuestWanted:
    """`units` are enabled and run. `subject` and `uid` are the token's; `uid` None: no account yet."""

    files: Mapping[str, ManagedFile]
    units: tuple[str, ...]
    sysctls: Mapping[str, str]
    guard: ManagedFile
    routes: tuple[Route, ...]
    subject: str
    uid: str | None
    warnings: tuple[str, ...] = ()


QUERY = GuestQuery(
    names.MANAGED_FILES, names.RUNNING_UNITS, tuple(sysctls.wanted(f"v1.{kubeproxyconfig.OLDEST}.0")), TOKEN
)
"""All that is managed. Looking depends on nothing that is wanted, so it needs no program and no image."""

BARE_QUERY = GuestQuery((), (PROXY_UNIT,), (), TOKEN)
"""Whether kube-proxy runs, and no more."""


def wanted(vm: Vm, proxy: Proxy, cluster: ClusterSeen, *, program: Program, tools: Tools) -> GuestWanted:
    """Pure, but for the templates. Raises UsageError for a version or mode that is not supported."""
    routes = guestroutes.wanted(vm, cluster)
    settings = sysctls.wanted(program.version)
    guard = firewall.file(cluster.service_cidrs)
    files = {
        **kubeproxy.files(vm, proxy, cluster, program=program, tools=tools),
        **token.files(vm, cluster, ttl=proxy.token_ttl),
        **firewall.files(guard),
        **guestroutes.files(routes),
        **sysctls.files(settings),
        **_setup(),
    }
    return GuestWanted(
        files=files,
        units=names.RUNNING_UNITS,
        sysctls=settings,
        guard=guard,
        routes=routes,
        subject=f"system:serviceaccount:{names.NAMESPACE}:{vm.account}",
        uid=cluster.uid(vm.account),
        warnings=(
            *kubeproxy.warnings(vm, proxy, cluster, program),
            *guestroutes.warnings(vm, cluster),
        ),
    )


def plan(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[GuestStep, ...]:
    """Each difference is a step of its own; what follows from a file's change belongs to it."""
    if isinstance(seen, Unobservable):
        return ()
    pushed = tuple(
        step
        for path, file in want.files.items()
        if (step := PushFile(path, file, seen.files.get(path))).drift
    )
    follows = [step.file.follow for step in pushed]
    return (
        *pushed,
        *sysctls.plan(want.sysctls, seen),
        *firewall.plan(want.guard, seen, follows),
        *guestroutes.plan(want.routes, seen, follows),
        *token.plan(want.subject, want.uid, seen, follows),
        *_units(want, seen, follows),
    )


def warnings(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[str, ...]:
    """What no step of ours repairs."""
    return (*want.warnings, *kubeproxy.trouble(seen))


def _setup() -> dict[str, ManagedFile]:
    """What loads the guard table and the routes, at boot and when they change."""
    return {
        SETUP: ManagedFile.of(assets.text("guest/setup.py"), mode="0755"),
        f"{UNITS}/{SETUP_UNIT}": ManagedFile.of(
            assets.text(f"guest/{SETUP_UNIT}"), follow=Follow(reload=True)
        ),
    }


def _units(want: GuestWanted, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[StartUnit]:
    """A unit that a pushed file restarts anyway needs no step but to be enabled."""
    restarted = {unit for follow in follows for unit in follow.restart}
    for unit in want.units:
        step = StartUnit(unit, seen.units.get(unit), unit in restarted)
        if step.drift:
            yield step
