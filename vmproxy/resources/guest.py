"""What the guest should be: kube-proxy, its credential, kernel settings, guard table and routes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmproxy.model import names
from vmproxy.model.drift import ABSENT
from vmproxy.model.names import (
    CA,
    CONFIG,
    CREDENTIAL,
    GUARD,
    KUBECONFIG,
    PROGRAM,
    PROXY_UNIT,
    RENEW,
    ROUTES,
    SETUP,
    SETUP_UNIT,
    SYSCTLS,
    TIMER_UNIT,
    TOKEN,
    TOKEN_UNIT,
    UNITS,
)
from vmproxy.model.net import Address, Network, Route
from vmproxy.model.seen import ClusterSeen, GuestQuery, GuestSeen, NodeSeen, TokenSeen, Unobservable
from vmproxy.model.steps import (
    Follow,
    GuestStep,
    LoadGuard,
    ManagedFile,
    PushFile,
    RenewToken,
    SetGuestRoute,
    SetSysctl,
    StartUnit,
)
from vmproxy.model.topology import Vm
from vmproxy.resources import kubeproxyconfig
from vmproxy.site.model import Proxy
from vmproxy.util import assets

_NOTHING = Follow()
_TIMER_FAILED = 0.1
"""Below this part of its life left, the guest's own timer has failed, and the token is renewed from here."""


@dataclass(frozen=True)
class GuestWanted:
    """`units` are enabled and run. `subject` and `uid` are the token's; `uid` None: no account yet."""

    files: Mapping[str, ManagedFile]
    units: tuple[str, ...]
    sysctls: Mapping[str, str]
    guard: str
    routes: tuple[Route, ...]
    subject: str
    uid: str | None
    warnings: tuple[str, ...] = ()


def _sysctls(version: str) -> dict[str, str]:
    """Forward, send no redirects to a better gateway (the next hop shares the subnet), and accept replies
    that come another way. A redirect setting counts when it is on for `all` or for the interface."""
    values = {"net.ipv4.ip_forward": "1"}
    for interface in ("all", "default", names.INTERFACE):
        values[f"net.ipv4.conf.{interface}.send_redirects"] = "0"
        values[f"net.ipv4.conf.{interface}.accept_redirects"] = "0"
        values[f"net.ipv4.conf.{interface}.rp_filter"] = "2"
    if kubeproxyconfig.minor(version) < 29:  # later ones set it themselves
        values["net.netfilter.nf_conntrack_tcp_be_liberal"] = "1"
    return values


QUERY = GuestQuery(
    names.MANAGED_FILES, names.RUNNING_UNITS, tuple(_sysctls(f"v1.{kubeproxyconfig.OLDEST}.0")), TOKEN
)
"""All that is managed. Looking depends on nothing that is wanted, so it needs no program and no image."""

BARE_QUERY = GuestQuery((), (PROXY_UNIT,), (), TOKEN)
"""Whether kube-proxy runs, and no more."""


@dataclass(frozen=True)
class Program:
    """The kube-proxy to run; `version` as v1.36.3."""

    path: Path
    sha256: str
    version: str


@dataclass(frozen=True)
class Tools:
    """What the guest has; None: not observed yet."""

    kernel: str | None
    nft: str | None


def wanted(vm: Vm, proxy: Proxy, cluster: ClusterSeen, *, program: Program, tools: Tools) -> GuestWanted:
    """Pure, but for the templates. Raises UsageError for a version or mode that is not supported."""
    mode = kubeproxyconfig.choose_mode(proxy.mode, program.version, kernel=tools.kernel, nft=tools.nft)
    ranges = [cidr for cidr in cluster.service_cidrs if cidr.version == 4]
    routes = _routes(vm, cluster)
    sysctls = _sysctls(program.version)
    guard = assets.render("guest/guard.nft.j2", service_cidrs=ranges).encode()
    files = {
        PROGRAM: ManagedFile(
            program.sha256,
            "0755",
            source=program.path,
            version=program.version,
            follow=Follow(restart=(PROXY_UNIT,)),
        ),
        **_configuration(vm, cluster, program, mode),
        **_credential(vm, proxy, cluster),
        **_setup(guard, routes, sysctls),
    }
    return GuestWanted(
        files=files,
        units=names.RUNNING_UNITS,
        sysctls=sysctls,
        guard=hashlib.sha256(guard).hexdigest(),
        routes=routes,
        subject=f"system:serviceaccount:{names.NAMESPACE}:{vm.account}",
        uid=cluster.uid(vm.account),
        warnings=_warnings(vm, cluster),
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
        *_sysctl_plan(want, seen),
        *_guard_plan(want, seen, follows),
        *_route_plan(want, seen, follows),
        *_token_plan(want, seen, follows),
        *_unit_plan(want, seen, follows),
    )


def warnings(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[str, ...]:
    """What no action of ours repairs."""
    found = list(want.warnings)
    if isinstance(seen, GuestSeen) and seen.proxy.failures:
        found.append(f"kube-proxy failed to write its rules {seen.proxy.failures} times; see: vmproxy logs")
    return tuple(found)


def _sysctl_plan(want: GuestWanted, seen: GuestSeen) -> Iterable[GuestStep]:
    return (
        SetSysctl(name, value, seen.sysctls.get(name))
        for name, value in want.sysctls.items()
        if seen.sysctls.get(name) != value
    )


def _guard_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> Iterable[GuestStep]:
    if seen.guard == want.guard or any("guard" in follow.setup for follow in follows):
        return ()
    return (LoadGuard(missing=not seen.guard),)


def _route_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> Iterable[GuestStep]:
    if any("routes" in follow.setup for follow in follows):
        return ()
    there = {route.prefix: route.via for route in seen.routes}
    wanted = {route.prefix: route.via for route in want.routes}
    missing = (
        SetGuestRoute(prefix, via, there.get(prefix))
        for prefix, via in wanted.items()
        if prefix not in there or there[prefix] != via
    )
    spare = (SetGuestRoute(prefix, None, via) for prefix, via in there.items() if prefix not in wanted)
    return (*missing, *spare)


def _token_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> Iterable[GuestStep]:
    why = _token_trouble(want, seen.token, now=seen.now)
    if why is None or any(follow.renew for follow in follows):
        return ()
    return (RenewToken(why),)


def _token_trouble(want: GuestWanted, token: TokenSeen | None, *, now: float) -> str | None:
    if token is None:
        return ABSENT
    if token.subject != want.subject:
        return "of another account"
    if token.uid != want.uid:
        return "revoked"
    left = token.expires - now
    if left <= 0:
        return "expired"
    if left < _TIMER_FAILED * (token.expires - token.issued):
        return "about to expire"
    return None


def _unit_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> Iterable[GuestStep]:
    """A unit that a pushed file restarts anyway needs no step but to be enabled."""
    restarted = {unit for follow in follows for unit in follow.restart}
    steps = (StartUnit(unit, seen.units.get(unit), unit in restarted) for unit in want.units)
    return (step for step in steps if step.drift)


def _configuration(
    vm: Vm, cluster: ClusterSeen, program: Program, mode: kubeproxyconfig.Mode
) -> dict[str, ManagedFile]:
    identity = kubeproxyconfig.Identity(vm.node, str(vm.address.ip), acts_for_node=vm.acts_for is not None)
    pods = next((str(cidr) for cidr in cluster.pod_cidrs if cidr.version == 4), "")
    config = kubeproxyconfig.configuration(
        program.version, mode, identity, kubeconfig=KUBECONFIG, pod_cidr=pods
    )
    unit = assets.render(
        f"guest/{PROXY_UNIT}.j2",
        program=PROGRAM,
        config=CONFIG,
        uses=[PROGRAM, CONFIG, KUBECONFIG, CA],
    )
    restart = Follow(restart=(PROXY_UNIT,))
    return {
        CONFIG: _file(kubeproxyconfig.text(config), follow=restart),
        f"{UNITS}/{PROXY_UNIT}": _file(unit, follow=Follow(restart=(PROXY_UNIT,), reload=True)),
    }


def _credential(vm: Vm, proxy: Proxy, cluster: ClusterSeen) -> dict[str, ManagedFile]:
    """The kubeconfig names files only: the token in its file is renewed by the guest itself."""
    restart = Follow(restart=(PROXY_UNIT,))
    api = {"server": cluster.server, "certificate-authority": CA}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "vmproxy",
        "clusters": [{"name": "vmproxy", "cluster": api}],
        "users": [{"name": "vmproxy", "user": {"tokenFile": TOKEN}}],
        "contexts": [{"name": "vmproxy", "context": {"cluster": "vmproxy", "user": "vmproxy"}}],
    }
    credential = {
        "server": cluster.server,
        "ca": CA,
        "namespace": names.NAMESPACE,
        "account": vm.account,
        "ttl": proxy.token_ttl,
    }
    timer = assets.render(f"guest/{TIMER_UNIT}.j2", seconds=proxy.token_ttl // 2)
    return {
        KUBECONFIG: _file(_json(kubeconfig), follow=restart),
        CA: _file(cluster.ca, follow=restart),
        CREDENTIAL: _file(_json(credential), follow=Follow(renew=True)),
        RENEW: _file(assets.text("guest/renew.py"), mode="0755"),
        f"{UNITS}/{TOKEN_UNIT}": _file(assets.text(f"guest/{TOKEN_UNIT}"), follow=Follow(reload=True)),
        f"{UNITS}/{TIMER_UNIT}": _file(timer, follow=Follow(restart=(TIMER_UNIT,), reload=True)),
    }


def _setup(guard: bytes, routes: tuple[Route, ...], sysctls: Mapping[str, str]) -> dict[str, ManagedFile]:
    listed = [{"prefix": str(route.prefix), "via": str(route.via or "")} for route in routes]
    settings = "".join(f"{name} = {value}\n" for name, value in sysctls.items())
    return {
        SETUP: _file(assets.text("guest/setup.py"), mode="0755"),
        GUARD: _file(guard, follow=Follow(setup=("guard",))),
        ROUTES: _file(_json(listed), follow=Follow(setup=("routes",))),
        SYSCTLS: _file(settings),
        f"{UNITS}/{SETUP_UNIT}": _file(assets.text(f"guest/{SETUP_UNIT}"), follow=Follow(reload=True)),
    }


def _routes(vm: Vm, cluster: ClusterSeen) -> tuple[Route, ...]:
    """The site file's routes, and with podRoutes one to each Node's pods where the Node is on the network."""
    routes: dict[Network, Route] = {route.to: Route(route.to, route.via) for route in vm.network.routes}
    if vm.network.pod_routes == "nodes":
        for node in cluster.nodes:
            via = _on_network(node, vm)
            for cidr in node.pod_cidrs:
                if via and cidr.version == via.version:
                    routes.setdefault(cidr, Route(cidr, via))
    return tuple(routes[prefix] for prefix in sorted(routes, key=str))


def _on_network(node: NodeSeen, vm: Vm) -> Address | None:
    """The Node's address on the VM's network, if it has one."""
    own = vm.network.address
    return next((item for item in node.internal_ips if item in own.network and item != own.ip), None)


def _warnings(vm: Vm, cluster: ClusterSeen) -> tuple[str, ...]:
    found = []
    nodes = {node.name for node in cluster.nodes}
    if vm.acts_for is None:
        found.append(
            "a plain gateway (no actsFor) waits 30 s for its Node at each start of kube-proxy, then works; "
            "Services with internalTrafficPolicy: Local have no endpoints for it"
        )
    elif vm.acts_for not in nodes:
        found.append(f"there is no Node {vm.acts_for}: kube-proxy waits 30 s for it at each start")
    if vm.network.pod_routes == "nodes":
        found += [
            f"no route to the pods of Node {node.name}: its address is not on the VM's network"
            for node in cluster.nodes
            if node.pod_cidrs and _on_network(node, vm) is None
        ]
    return tuple(found)


def _file(content: str | bytes, *, mode: str = "0644", follow: Follow = _NOTHING) -> ManagedFile:
    data = content.encode() if isinstance(content, str) else content
    return ManagedFile(hashlib.sha256(data).hexdigest(), mode, content=data, follow=follow)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
