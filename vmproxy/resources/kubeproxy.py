"""kube-proxy in the guest: the program, its configuration, its unit and its kubeconfig."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vmproxy.model.drift import ABSENT, Drift
from vmproxy.model.names import CA, CLUSTER_CA, CONFIG, KUBECONFIG, PROGRAM, PROXY_UNIT, TOKEN, UNITS
from vmproxy.model.net import is_address
from vmproxy.model.seen import CanarySeen, ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.steps import Follow, ManagedFile, RestartProxy
from vmproxy.model.topology import Vm
from vmproxy.resources import kubeproxyconfig
from vmproxy.site.model import Proxy
from vmproxy.util import assets

_RESTART = Follow(restart=(PROXY_UNIT,))
_STARTS = 90.0
"""Seconds: a plain gateway waits 30 s for its Node, and an emulated CPU is slow."""
_LATE = 30.0
_FORBIDDEN = 403
NO_DNS = "set network.dns, or cluster.server with an address"


@dataclass(frozen=True)
class Program:
    """The kube-proxy to run; `version` as v1.36.3. Not `here`: it is still to be fetched from `origin`, and
    `sha256` None when that is not known before."""

    path: Path
    sha256: str | None
    version: str
    here: bool = True
    origin: str = ""

    @property
    def name(self) -> str:
        """Its hash, or where it is got."""
        return self.sha256 or f"{self.version} from {self.origin}"


@dataclass(frozen=True)
class Tools:
    """What the guest has; None: not observed yet."""

    kernel: str | None
    nft: str | None


def mode_of(proxy: Proxy, program: Program, tools: Tools) -> kubeproxyconfig.Mode:
    """Raises UsageError for a version or mode that is not supported."""
    return kubeproxyconfig.choose_mode(proxy.mode, program.version, kernel=tools.kernel, nft=tools.nft)


def files(
    vm: Vm, cluster: ClusterSeen, *, program: Program, mode: kubeproxyconfig.Mode
) -> dict[str, ManagedFile]:
    unit = assets.render(
        f"guest/{PROXY_UNIT}.j2",
        program=PROGRAM,
        config=CONFIG,
        uses=[PROGRAM, CONFIG, KUBECONFIG, CA],
    )
    return {
        PROGRAM: ManagedFile(
            program.name, "0755", source=program.path, version=program.version, follow=_RESTART
        ),
        CONFIG: ManagedFile.of(_configuration(vm, cluster, program, mode), follow=_RESTART),
        f"{UNITS}/{PROXY_UNIT}": ManagedFile.of(unit, follow=Follow(restart=(PROXY_UNIT,), reload=True)),
        KUBECONFIG: ManagedFile.of(_kubeconfig(cluster), follow=_RESTART),
        CA: ManagedFile.of(cluster.ca, follow=_RESTART),
        CLUSTER_CA: ManagedFile.of(cluster.cluster_ca or cluster.ca),
    }


def version(proxy: Proxy, cluster: ClusterSeen, seen: GuestSeen | None) -> str:
    """The kube-proxy to run: the site file's, else the one that runs while it fits the API server, else the
    API server's. While a control plane of several is upgraded, their versions differ from one answer to
    the next."""
    running = seen.proxy.version if seen else None
    if proxy.version is None and running and kubeproxyconfig.fits(running, cluster.version):
        return running
    return proxy.version or cluster.version


def warnings(vm: Vm, proxy: Proxy, cluster: ClusterSeen, program: Program) -> Iterator[str]:
    yield from kubeproxyconfig.warnings(program.version, cluster.version, chosen=proxy.version is not None)
    if vm.acts_for is None:
        yield (
            "a plain gateway (no actsFor) waits 30 s for its Node at each start of kube-proxy, then works; "
            "Services with internalTrafficPolicy: Local have no endpoints for it"
        )
    elif vm.acts_for not in {node.name for node in cluster.nodes}:
        yield f"there is no Node {vm.acts_for}: kube-proxy waits 30 s for it at each start"
    if name := unresolved(vm, cluster):
        yield f"the VM has no name server to resolve the API server's name {name}: {NO_DNS}"


def unresolved(vm: Vm, cluster: ClusterSeen) -> str | None:
    """The API server's name, where the VM has no name server for it."""
    name = urlsplit(cluster.server).hostname or ""
    return None if vm.network.dns or is_address(name) else name


def trouble(seen: GuestSeen | Unobservable) -> Iterator[str]:
    """What no step of ours repairs. Without a token, the VM asks as anybody, who is not let either."""
    if isinstance(seen, Unobservable):
        return
    if seen.proxy.failures:
        yield f"kube-proxy failed to write its rules {seen.proxy.failures} times; see: vmproxy logs"
    if seen.token and seen.canary and seen.canary.status == _FORBIDDEN:
        yield "the API server does not let the VM's account list Services, though RBAC grants it"


def health(seen: GuestSeen, *, mode: str | None = None, version: str | None = None) -> tuple[Drift, ...]:
    """What is wrong with a kube-proxy whose unit runs. `mode` and `version` None: any."""
    proxy = seen.proxy
    found = [
        _differs("live", "yes", "yes" if proxy.live else "no"),
        _differs("mode", mode, proxy.mode),
        _differs("version", version, proxy.version),
        _differs("rules", "current", _rules(seen)),
        *_canary(seen.canary),
    ]
    return tuple(item for item in found if item)


def plan(
    mode: str, version: str, seen: GuestSeen, follows: Sequence[Follow], started: Collection[str]
) -> Iterator[RestartProxy]:
    """`started` are units that a step starts anyway. One that has just started gets its time."""
    if PROXY_UNIT in {*started, *(unit for follow in follows for unit in follow.restart)}:
        return
    drift = health(seen, mode=mode, version=version)
    if drift and not starting(seen):
        yield RestartProxy(drift)


def starting(seen: GuestSeen) -> bool:
    """Whether kube-proxy is about to start, or has run for so short a time that it may not have written its
    rules yet."""
    proxy, unit = seen.proxy, seen.units.get(PROXY_UNIT)
    if proxy.age is None:
        return unit is not None and unit.active
    return proxy.age < _STARTS and not proxy.last_synced


def _differs(name: str, wanted: str | None, seen: str | None) -> Drift | None:
    if wanted is None or seen is None or wanted == seen:
        return None
    return Drift(f"kube-proxy: {name}", wanted, seen)


def _rules(seen: GuestSeen) -> str | None:
    """None: it does not say. A change that was queued a moment ago is not late."""
    proxy = seen.proxy
    if not proxy.live:
        return None
    if not proxy.last_synced:
        return "never written"
    late = seen.now - proxy.last_queued
    return f"{late:.0f} s late" if proxy.last_synced < proxy.last_queued and late > _LATE else "current"


def _canary(seen: CanarySeen | None) -> Iterator[Drift | None]:
    if seen is None:
        return
    yield _differs("rule for default/kubernetes", "present", "present" if seen.rule else ABSENT)
    if seen.rule:
        answer = f"no answer: {seen.why}"
        yield _differs("default/kubernetes", "answers", "answers" if seen.status else answer)


def _configuration(vm: Vm, cluster: ClusterSeen, program: Program, mode: kubeproxyconfig.Mode) -> bytes:
    identity = kubeproxyconfig.Identity(vm.node, str(vm.address.ip), acts_for_node=vm.acts_for is not None)
    pods = [str(cidr) for cidr in cluster.pod_cidrs if cidr.version == 4]
    only = pods[0] if len(pods) == 1 else ""  # kube-proxy takes one; the Nodes' would change with each Node
    return kubeproxyconfig.text(
        kubeproxyconfig.configuration(program.version, mode, identity, kubeconfig=KUBECONFIG, pod_cidr=only)
    )


def _kubeconfig(cluster: ClusterSeen) -> str:
    """It names files only: the token in its file is renewed by the guest itself."""
    server = {"server": cluster.server, "certificate-authority": CA}
    if cluster.tls_server_name:
        server["tls-server-name"] = cluster.tls_server_name
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "vmproxy",
        "clusters": [{"name": "vmproxy", "cluster": server}],
        "users": [{"name": "vmproxy", "user": {"tokenFile": TOKEN}}],
        "contexts": [{"name": "vmproxy", "context": {"cluster": "vmproxy", "user": "vmproxy"}}],
    }
    return json.dumps(document, indent=2) + "\n"
