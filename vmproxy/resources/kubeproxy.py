"""kube-proxy in the guest: the program, its configuration, its unit and its kubeconfig."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmproxy.model.names import CA, CONFIG, KUBECONFIG, PROGRAM, PROXY_UNIT, TOKEN, UNITS
from vmproxy.model.seen import ClusterSeen, GuestSeen, Unobservable
from vmproxy.model.steps import Follow, ManagedFile
from vmproxy.model.topology import Vm
from vmproxy.resources import kubeproxyconfig
from vmproxy.site.model import Proxy
from vmproxy.util import assets

_RESTART = Follow(restart=(PROXY_UNIT,))


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


def files(
    vm: Vm, proxy: Proxy, cluster: ClusterSeen, *, program: Program, tools: Tools
) -> dict[str, ManagedFile]:
    """Raises UsageError for a version or mode that is not supported."""
    mode = kubeproxyconfig.choose_mode(proxy.mode, program.version, kernel=tools.kernel, nft=tools.nft)
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
        KUBECONFIG: ManagedFile.of(_kubeconfig(cluster.server), follow=_RESTART),
        CA: ManagedFile.of(cluster.ca, follow=_RESTART),
    }


def warnings(vm: Vm, cluster: ClusterSeen) -> Iterator[str]:
    if vm.acts_for is None:
        yield (
            "a plain gateway (no actsFor) waits 30 s for its Node at each start of kube-proxy, then works; "
            "Services with internalTrafficPolicy: Local have no endpoints for it"
        )
    elif vm.acts_for not in {node.name for node in cluster.nodes}:
        yield f"there is no Node {vm.acts_for}: kube-proxy waits 30 s for it at each start"


def trouble(seen: GuestSeen | Unobservable) -> Iterator[str]:
    """What no step of ours repairs."""
    if isinstance(seen, GuestSeen) and seen.proxy.failures:
        yield f"kube-proxy failed to write its rules {seen.proxy.failures} times; see: vmproxy logs"


def _configuration(vm: Vm, cluster: ClusterSeen, program: Program, mode: kubeproxyconfig.Mode) -> bytes:
    identity = kubeproxyconfig.Identity(vm.node, str(vm.address.ip), acts_for_node=vm.acts_for is not None)
    pods = next((str(cidr) for cidr in cluster.pod_cidrs if cidr.version == 4), "")
    return kubeproxyconfig.text(
        kubeproxyconfig.configuration(program.version, mode, identity, kubeconfig=KUBECONFIG, pod_cidr=pods)
    )


def _kubeconfig(server: str) -> str:
    """It names files only: the token in its file is renewed by the guest itself."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "vmproxy",
        "clusters": [{"name": "vmproxy", "cluster": {"server": server, "certificate-authority": CA}}],
        "users": [{"name": "vmproxy", "user": {"tokenFile": TOKEN}}],
        "contexts": [{"name": "vmproxy", "context": {"cluster": "vmproxy", "user": "vmproxy"}}],
    }
    return json.dumps(document, indent=2) + "\n"
