"""kube-proxy's configuration file, by version.

The fields and the releases that know them were read in kube-proxy's own types, tag by tag from 1.20 to
1.37: no field was renamed, and the few that came later are gated here. kube-proxy itself only logs a
field that it does not know, so the file is checked by this model before it is pushed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vmproxy.errors import UsageError

Mode = Literal["iptables", "nftables"]
OLDEST, NEWEST = 20, 37
_SKEW, _OLD_SKEW, _WIDER_SKEW_SINCE = 3, 2, 25
"""How many minors kube-proxy may be older than the API server, from 1.25 on and before."""
_NFTABLES_SINCE = 31  # beta, on by default; alpha behind a gate in 1.29 and 1.30
_MATCHES_NOTHING = "192.0.2.0/24"  # TEST-NET-1: no NodePorts on the VM
_NFT_OLDEST = (1, 0, 1)
_KERNEL_OLDEST = (5, 13)


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClientConnection(_Block):
    kubeconfig: str


class Iptables(_Block):
    """`localhostNodePorts` since 1.26."""

    masqueradeAll: bool
    syncPeriod: str = "30s"
    minSyncPeriod: str = "1s"
    localhostNodePorts: bool | None = None


class Nftables(_Block):
    """Since 1.29."""

    masqueradeAll: bool
    syncPeriod: str = "30s"
    minSyncPeriod: str = "1s"


class Conntrack(_Block):
    """`tcpBeLiberal` since 1.29."""

    maxPerCore: int = 32768
    min: int = 131072
    tcpBeLiberal: bool | None = None


class Configuration(_Block):
    """kubeproxy.config.k8s.io/v1alpha1, as far as vmproxy sets it."""

    apiVersion: Literal["kubeproxy.config.k8s.io/v1alpha1"] = "kubeproxy.config.k8s.io/v1alpha1"
    kind: Literal["KubeProxyConfiguration"] = "KubeProxyConfiguration"
    clientConnection: ClientConnection
    hostnameOverride: str
    bindAddress: str = "0.0.0.0"  # noqa: S104 (kube-proxy's default: take the addresses from the Node)
    mode: Mode
    iptables: Iptables | None = None
    nftables: Nftables | None = None
    detectLocalMode: Literal["ClusterCIDR"] | None = None
    clusterCIDR: str
    nodePortAddresses: tuple[str, ...] = (_MATCHES_NOTHING,)
    healthzBindAddress: str = "127.0.0.1:10256"
    metricsBindAddress: str = "127.0.0.1:10249"
    conntrack: Conntrack


@dataclass(frozen=True)
class Identity:
    """Who this kube-proxy is: the Windows node it acts for, or a name that no Node has.

    `address` is the VM's; a plain gateway says it itself, since no Node tells it.
    """

    name: str
    address: str
    acts_for_node: bool


def minor(version: str) -> int:
    """36 of v1.36.3. Raises UsageError for a version that is too old, or of no known form."""
    number = _minor(version)
    if number is None or number < OLDEST:
        raise UsageError(
            f"cannot configure kube-proxy {version}: known are v1.{OLDEST} to v1.{NEWEST}",
            hint="set proxy.version to one of these",
        )
    return number


def fits(version: str, api_server: str) -> bool:
    """By Kubernetes' version skew policy: not newer than the API server, nor much older."""
    own, of_api = _minor(version), _minor(api_server)
    if own is None or of_api is None or own < OLDEST:
        return False
    return 0 <= of_api - own <= (_SKEW if of_api >= _WIDER_SKEW_SINCE else _OLD_SKEW)


def warnings(version: str, api_server: str, *, chosen: bool) -> Iterator[str]:
    """About a kube-proxy that is newer than this model, or of another version than the API server.
    `chosen`: by the site file."""
    if minor(version) > NEWEST:
        yield (
            f"kube-proxy {version} is newer than vmproxy knows, and is configured as v1.{NEWEST}: a newer "
            "vmproxy may know it; or set proxy.version"
        )
    if not fits(version, api_server):
        yield (
            f"kube-proxy {version} with API server {api_server} is outside of Kubernetes' version skew "
            "policy: change proxy.version"
        )
    elif not chosen and _minor(version) != _minor(api_server):
        yield (
            f"kube-proxy {version} stays while it fits API server {api_server}: set proxy.version to "
            "upgrade it"
        )


def _minor(version: str) -> int | None:
    match = re.fullmatch(r"v1\.(\d{1,4})\.\d+", version)
    return int(match[1]) if match else None


def choose_mode(
    wanted: Literal["auto", "iptables", "nftables"], version: str, *, kernel: str | None, nft: str | None
) -> Mode:
    """`auto` is nftables from v1.31 on where kernel and nft are new enough.

    `kernel` and `nft` are versions as the guest reports them; None: not observed yet, taken as those of
    the default image. Raises UsageError for nftables with a kube-proxy that has no such mode.
    """
    has_nftables = minor(version) >= _NFTABLES_SINCE
    if wanted == "nftables" and not has_nftables:
        raise UsageError(
            f"cannot run kube-proxy {version} in mode nftables: it has it since v1.{_NFTABLES_SINCE}",
            hint="set proxy.mode: auto, or a newer proxy.version",
        )
    if wanted != "auto":
        return wanted
    new_enough = _at_least(kernel, _KERNEL_OLDEST) and _at_least(nft, _NFT_OLDEST)
    return "nftables" if has_nftables and new_enough else "iptables"


def configuration(
    version: str, mode: Mode, identity: Identity, *, kubeconfig: str, pod_cidr: str
) -> Configuration:
    """`masqueradeAll` in the block of the mode: the VM is a one-armed router, replies must pass it."""
    number = minor(version)
    iptables = Iptables(masqueradeAll=True, localhostNodePorts=False if number >= 26 else None)
    return Configuration(
        clientConnection=ClientConnection(kubeconfig=kubeconfig),
        hostnameOverride=identity.name,
        bindAddress="0.0.0.0" if identity.acts_for_node else identity.address,  # noqa: S104
        mode=mode,
        iptables=iptables if mode == "iptables" else None,
        nftables=Nftables(masqueradeAll=True) if mode == "nftables" else None,
        detectLocalMode="ClusterCIDR",
        clusterCIDR=pod_cidr,
        conntrack=Conntrack(tcpBeLiberal=True if number >= 29 else None),
    )


def text(config: Configuration) -> bytes:
    """The file's content. JSON is YAML, and leaves no room for misread values."""
    data: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return (json.dumps(data, indent=2) + "\n").encode()


def _at_least(version: str | None, oldest: tuple[int, ...]) -> bool:
    if version is None:
        return True
    found = re.search(r"\d+(?:\.\d+)*", version)
    return found is not None and tuple(int(part) for part in found[0].split(".")) >= oldest
