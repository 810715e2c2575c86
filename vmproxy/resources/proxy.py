"""What the guest should be: kube-proxy, its credential, kernel settings, guard table and routes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vmproxy.model.plan import ABSENT, Action, Drift
from vmproxy.model.seen import (
    ClusterSeen,
    FileSeen,
    GuestQuery,
    GuestSeen,
    NodeSeen,
    Route,
    TokenSeen,
    Unobservable,
)
from vmproxy.resources import kubeproxyconfig
from vmproxy.site.model import Host, Site
from vmproxy.util import assets

NAMESPACE = "vmproxy"
INTERFACE = "eth0"  # the seed names it so

PROGRAM = "/usr/local/lib/vmproxy/kube-proxy"
SETUP = "/usr/local/lib/vmproxy/setup.py"
RENEW = "/usr/local/lib/vmproxy/renew.py"
CONFIG = "/etc/vmproxy/kube-proxy.yaml"
KUBECONFIG = "/etc/vmproxy/kubeconfig"
CA = "/etc/vmproxy/ca.crt"
TOKEN = "/etc/vmproxy/token"  # noqa: S105 (a path)
CREDENTIAL = "/etc/vmproxy/credential.json"
GUARD = "/etc/vmproxy/guard.nft"
ROUTES = "/etc/vmproxy/routes.json"
SYSCTLS = "/etc/sysctl.d/99-vmproxy.conf"

PROXY_UNIT = "vmproxy-kube-proxy.service"
SETUP_UNIT = "vmproxy-setup.service"
TOKEN_UNIT = "vmproxy-token.service"  # noqa: S105 (a name)
TIMER_UNIT = "vmproxy-token.timer"
_UNITS = "/etc/systemd/system"

_TIMER_FAILED = 0.1
"""Below this part of its life left, the guest's own timer has failed, and the token is renewed from here."""


@dataclass(frozen=True)
class Follow:
    """What has to follow a changed file: units restarted, setup.py run for a part, a new token."""

    restart: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    reload: bool = False
    renew: bool = False


@dataclass(frozen=True)
class ManagedFile:
    """Exactly one of `content` and `source` (a large file on this machine, a program of that `version`)."""

    sha256: str
    mode: str = "0644"
    owner: str = "root"
    content: bytes | None = field(default=None, repr=False)
    source: Path | None = None
    version: str | None = None
    follow: Follow = Follow()


@dataclass(frozen=True)
class GuestWanted:
    """`units` are enabled and run. `subject`, `uid` and `ttl` (seconds) are the token's; `uid` None:
    there is no account yet."""

    files: Mapping[str, ManagedFile]
    units: tuple[str, ...]
    sysctls: Mapping[str, str]
    guard: str
    routes: tuple[Route, ...]
    subject: str
    uid: str | None
    ttl: int
    mode: str
    version: str
    warnings: tuple[str, ...] = ()


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
    """What the guest has; None: not looked at yet."""

    kernel: str | None
    nft: str | None


def wanted(site: Site, host: Host, cluster: ClusterSeen, *, program: Program, tools: Tools) -> GuestWanted:
    """Pure, but for the templates. Raises UsageError for a version or mode that can not be."""
    mode = kubeproxyconfig.choose_mode(site.proxy.mode, program.version, kernel=tools.kernel, nft=tools.nft)
    ranges = [cidr for cidr in cluster.service_cidrs if ":" not in cidr]
    routes = _routes(host, cluster)
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
        **_configuration(site, host, cluster, program, mode),
        **_credential(site, host, cluster),
        **_setup(guard, routes, sysctls),
    }
    return GuestWanted(
        files=files,
        units=(SETUP_UNIT, PROXY_UNIT, TIMER_UNIT),
        sysctls=sysctls,
        guard=hashlib.sha256(guard).hexdigest(),
        routes=routes,
        subject=f"system:serviceaccount:{NAMESPACE}:{site.account(host)}",
        uid=cluster.account_uid,
        ttl=site.proxy.token_ttl,
        mode=mode,
        version=program.version,
        warnings=_warnings(host, cluster),
    )


def query(want: GuestWanted) -> GuestQuery:
    return GuestQuery(tuple(want.files), want.units, tuple(want.sysctls), TOKEN)


def plan(want: GuestWanted, seen: GuestSeen | Unobservable) -> tuple[Action, ...]:
    """Each difference is an action of its own; what follows from a file's change belongs to it."""
    if isinstance(seen, Unobservable):
        return ()
    files = [_push(path, file, seen.files.get(path)) for path, file in want.files.items()]
    pushed = [action for action in files if action is not None]
    follows = [want.files[str(action.params["path"])].follow for action in pushed]
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


def _push(path: str, file: ManagedFile, seen: FileSeen | None) -> Action | None:
    if seen is None:
        drift: tuple[Drift, ...] = (Drift(path, "present", ABSENT),)
    else:
        pairs = (
            ("sha256", file.sha256, seen.sha256),
            ("mode", file.mode, seen.mode),
            ("owner", file.owner, seen.owner),
        )
        drift = tuple(Drift(f"{path}: {name}", want, got) for name, want, got in pairs if want != got)
    if not drift:
        return None
    why = "; ".join(
        [
            "it is not as it should be",
            *(f"restarts {unit}" for unit in file.follow.restart),
            *(f"loads the {part}" for part in file.follow.setup),
        ]
    )
    return Action("guest", "push", path, why, drift, {"path": path, "file": file})


def _sysctl_plan(want: GuestWanted, seen: GuestSeen) -> list[Action]:
    return [
        Action(
            "guest",
            "set",
            f"sysctl {name}",
            "a one-armed router needs it",
            (Drift(name, value, seen.sysctls.get(name, ABSENT)),),
            {"sysctl": name, "value": value},
        )
        for name, value in want.sysctls.items()
        if seen.sysctls.get(name) != value
    ]


def _guard_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> list[Action]:
    if seen.guard == want.guard or any("guard" in follow.setup for follow in follows):
        return []
    drift = Drift("guard table", "as in guard.nft", "changed" if seen.guard else ABSENT)
    why = "it drops what kube-proxy does not know, and all input but SSH"
    return [Action("guest", "load", "guard table", why, (drift,), {"setup": "guard"})]


def _route_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> list[Action]:
    if any("routes" in follow.setup for follow in follows):
        return []
    there = {route.prefix: route.via for route in seen.routes}
    drift = [
        Drift(f"route {route.prefix}", route.via, there.get(route.prefix, ABSENT))
        for route in want.routes
        if there.get(route.prefix) != route.via
    ]
    prefixes = {route.prefix for route in want.routes}
    drift += [
        Drift(f"route {prefix}", ABSENT, via) for prefix, via in there.items() if prefix not in prefixes
    ]
    why = "how the VM reaches endpoints"
    return [
        Action("guest", "load", f"guest {item.field}", why, (item,), {"setup": "routes"}) for item in drift
    ]


def _token_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> list[Action]:
    why = _token_trouble(want, seen.token, now=seen.now)
    if why is None or any(follow.renew for follow in follows):
        return []
    return [Action("guest", "renew", "token", why, (Drift("token", "valid", why),), {"token": TOKEN})]


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


def _unit_plan(want: GuestWanted, seen: GuestSeen, follows: list[Follow]) -> list[Action]:
    """A unit that a pushed file restarts anyway needs no action but to be enabled."""
    restarted = {unit for follow in follows for unit in follow.restart}
    actions = []
    for unit in want.units:
        state = seen.units.get(unit)
        drift = []
        if state is None or not state.enabled:
            drift.append(Drift(f"{unit}: enabled", "yes", "no"))
        if unit not in restarted:
            if state is None or not state.active:
                drift.append(Drift(f"{unit}: active", "yes", "no"))
            elif state.stale:
                drift.append(Drift(f"{unit}: started with", "the files as they are", "older ones"))
        if drift:
            why = "it must run, now and after a restart of the VM"
            actions.append(Action("guest", "start", unit, why, tuple(drift), {"unit": unit}))
    return actions


def _configuration(
    site: Site, host: Host, cluster: ClusterSeen, program: Program, mode: kubeproxyconfig.Mode
) -> dict[str, ManagedFile]:
    identity = kubeproxyconfig.Identity(
        host.acts_for or site.vm_name(host), str(host.network.address.ip), host.acts_for is not None
    )
    pods = next((cidr for cidr in cluster.pod_cidrs if ":" not in cidr), "")
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
        f"{_UNITS}/{PROXY_UNIT}": _file(unit, follow=Follow(restart=(PROXY_UNIT,), reload=True)),
    }


def _credential(site: Site, host: Host, cluster: ClusterSeen) -> dict[str, ManagedFile]:
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
        "namespace": NAMESPACE,
        "account": site.account(host),
        "ttl": site.proxy.token_ttl,
    }
    timer = assets.render(f"guest/{TIMER_UNIT}.j2", seconds=site.proxy.token_ttl // 2)
    return {
        KUBECONFIG: _file(_json(kubeconfig), follow=restart),
        CA: _file(cluster.ca, follow=restart),
        CREDENTIAL: _file(_json(credential), follow=Follow(renew=True)),
        RENEW: _file(assets.text("guest/renew.py"), mode="0755"),
        f"{_UNITS}/{TOKEN_UNIT}": _file(assets.text(f"guest/{TOKEN_UNIT}"), follow=Follow(reload=True)),
        f"{_UNITS}/{TIMER_UNIT}": _file(timer, follow=Follow(restart=(TIMER_UNIT,), reload=True)),
    }


def _setup(guard: bytes, routes: tuple[Route, ...], sysctls: Mapping[str, str]) -> dict[str, ManagedFile]:
    listed = [{"prefix": route.prefix, "via": route.via} for route in routes]
    settings = "".join(f"{name} = {value}\n" for name, value in sysctls.items())
    return {
        SETUP: _file(assets.text("guest/setup.py"), mode="0755"),
        GUARD: _file(guard, follow=Follow(setup=("guard",))),
        ROUTES: _file(_json(listed), follow=Follow(setup=("routes",))),
        SYSCTLS: _file(settings),
        f"{_UNITS}/{SETUP_UNIT}": _file(assets.text(f"guest/{SETUP_UNIT}"), follow=Follow(reload=True)),
    }


def _sysctls(version: str) -> dict[str, str]:
    """Forward, send no redirects to a better gateway (the next hop shares the subnet), and accept replies
    that come another way. A redirect setting counts when it is on for `all` or for the interface."""
    values = {"net.ipv4.ip_forward": "1"}
    for interface in ("all", "default", INTERFACE):
        values[f"net.ipv4.conf.{interface}.send_redirects"] = "0"
        values[f"net.ipv4.conf.{interface}.accept_redirects"] = "0"
        values[f"net.ipv4.conf.{interface}.rp_filter"] = "2"
    if kubeproxyconfig.minor(version) < 29:  # later ones set it themselves
        values["net.netfilter.nf_conntrack_tcp_be_liberal"] = "1"
    return values


def _routes(host: Host, cluster: ClusterSeen) -> tuple[Route, ...]:
    """The site file's routes, and with podRoutes one to each Node's pods where the Node is on the network."""
    routes = {str(route.to): Route(str(route.to), str(route.via)) for route in host.network.routes}
    if host.network.pod_routes == "nodes":
        for node in cluster.nodes:
            via = _on_network(node, host)
            for cidr in node.pod_cidrs:
                if via and ":" not in cidr:
                    routes.setdefault(str(IPv4Network(cidr)), Route(str(IPv4Network(cidr)), via))
    return tuple(routes[prefix] for prefix in sorted(routes))


def _on_network(node: NodeSeen, host: Host) -> str | None:
    """The Node's address on the VM's network, if it has one."""
    network = host.network.address.network
    for address in node.internal_ips:
        if ":" not in address and IPv4Address(address) in network and address != str(host.network.address.ip):
            return address
    return None


def _warnings(host: Host, cluster: ClusterSeen) -> tuple[str, ...]:
    found = []
    names = {node.name for node in cluster.nodes}
    if host.acts_for is None:
        found.append(
            "a plain gateway (no actsFor) waits 30 s for its Node at each start of kube-proxy, then works; "
            "Services with internalTrafficPolicy: Local have no endpoints for it"
        )
    elif host.acts_for not in names:
        found.append(f"there is no Node {host.acts_for}: kube-proxy waits 30 s for it at each start")
    if host.network.pod_routes == "nodes":
        found += [
            f"no route to the pods of Node {node.name}: its address is not on the VM's network"
            for node in cluster.nodes
            if node.pod_cidrs and _on_network(node, host) is None
        ]
    return tuple(found)


def _file(content: str | bytes, *, mode: str = "0644", follow: Follow = Follow()) -> ManagedFile:
    data = content.encode() if isinstance(content, str) else content
    return ManagedFile(hashlib.sha256(data).hexdigest(), mode, content=data, follow=follow)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
