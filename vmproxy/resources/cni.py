"""The CNI configuration of the host's container network: rendered for review, or kept on the host.

The file is known as ours by the two labels in it, and by the marker of the VM, which names its path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vmproxy.containers import cni
from vmproxy.errors import Conflict, NotReady
from vmproxy.model.names import HOST_LABEL, SITE_LABEL
from vmproxy.model.net import Interface, Network, overlap
from vmproxy.model.seen import ClusterSeen, CniSeen, DnsSeen, Unobservable
from vmproxy.model.steps import CniFile, RemoveCni, WriteCni
from vmproxy.model.topology import Vm

_RUNTIME = (
    "install containerd with its CNI plugins, or correct containers.cni.directory; `vmproxy render` writes "
    "what containerd's config.toml needs into containers/"
)
_NAMES = "set dns.server and dns.domain, or remove dns from the site file"


def content(vm: Vm, cluster: ClusterSeen, host: Iterable[Interface]) -> bytes:
    """Of the file. Raises as `network`, and UsageError for what no plugin could use."""
    return cni.text(network(vm, cluster, host)).encode()


def network(vm: Vm, cluster: ClusterSeen, host: Iterable[Interface]) -> cni.ContainerNetwork:
    """`host` are the host's own addresses. Raises NotReady where it is not known which is on the LAN."""
    asked, own = vm.containers, _on_lan(vm, host)
    assert asked is not None
    if own is None:
        lacks = f"it has no address on the VM's network {vm.address.network}"
        if vm.carrier.own is not None:
            lacks = "it is not known which of its addresses is on the LAN"
        raise NotReady(
            f"cannot write a CNI configuration for {vm.host}: {lacks}",
            hint="set containers.hostAddress in the site file",
        )
    return cni.ContainerNetwork(
        site=vm.site,
        host=vm.host,
        name=asked.network,
        subnet=asked.subnet,
        service_cidrs=tuple(_ipv4(cluster.service_cidrs)),
        pod_cidrs=tuple(_ipv4(cluster.pod_ranges)),
        lan=own.network,
        management=own.ip,
        gateway=asked.gateway,
        plugin=asked.cni.plugin,
        api=asked.cni.api,
        dns=_dns(cluster.dns),
        isolate=asked.isolate,
    )


def _dns(seen: DnsSeen | Unobservable | None) -> cni.Dns | None:
    """The cluster's, where the site file asks for its names. Raises NotReady when it was not found."""
    if isinstance(seen, Unobservable):
        raise NotReady(f"cannot write a CNI configuration: {seen.because}", hint=_NAMES)
    if seen is None or not isinstance(seen.server, IPv4Address):
        return None
    return cni.Dns((seen.server,), (f"svc.{seen.domain}",))


def _on_lan(vm: Vm, host: Iterable[Interface]) -> IPv4Interface | None:
    """The host's address on the containers' side of the VM's network; where the VM is on a switch of its own,
    the only one, or the one that the site file names, beside that switch and the containers."""
    asked = vm.containers
    assert asked is not None
    if vm.carrier.own is None:
        found, length = vm.host_address(host), vm.address.network.prefixlen
        return IPv4Interface(f"{found}/{length}") if isinstance(found, IPv4Address) else None
    beside = [item for item in vm.near(host) if isinstance(item, IPv4Interface) and not item.is_link_local]
    lans = [item for item in beside if not overlap(item.network, asked.subnet)]
    chosen = [item for item in lans if asked.host_address in (None, item.ip)]
    return chosen[0] if len(chosen) == 1 else None


def _ipv4(networks: Iterable[Network]) -> Iterator[IPv4Network]:
    return (item for item in networks if isinstance(item, IPv4Network))


def file(vm: Vm) -> CniFile | None:
    """Where it is to be; None: it is not vmproxy's to write."""
    if vm.containers is None or not vm.containers.cni.write:
        return None
    return _file(vm, f"{vm.containers.cni.directory}\\{cni.file_name(vm.site, vm.host)}")


def _file(vm: Vm, path: str) -> CniFile:
    return CniFile(path, {SITE_LABEL: vm.site, HOST_LABEL: vm.host})


def plan(
    vm: Vm, wanted: bytes | None, seen: CniSeen | None, marked: Sequence[str], *, host: str
) -> tuple[WriteCni | RemoveCni, ...]:
    """`wanted` None: there is to be none. Raises Conflict for a file of that name that is not ours, NotReady
    where the folder is missing."""
    there = file(vm)
    if there is None or wanted is None or seen is None:
        return remove_plan(vm, marked)
    _check(there, seen, host=host)
    going = tuple(path for path in marked if path != there.path)
    steps: list[WriteCni | RemoveCni] = [*remove_plan(vm, going, (there.path,))]
    if seen.sha256 != hashlib.sha256(wanted).hexdigest() or there.path not in marked:
        steps.append(WriteCni(there, wanted, seen.sha256, (there.path,)))
    return tuple(steps)


def _check(there: CniFile, seen: CniSeen, *, host: str) -> None:
    if not seen.folder:
        folder = there.path.rpartition("\\")[0]
        raise NotReady(
            f"cannot write a CNI configuration on {host}: there is no folder {folder}", hint=_RUNTIME
        )
    if seen.sha256 is not None and not seen.ours:
        raise Conflict(
            f"cannot write {there.path} on {host}: what is there is not vmproxy's",
            hint="move it away, or set containers.cni.write: false",
        )


def remove_plan(vm: Vm, going: Sequence[str], staying: tuple[str, ...] = ()) -> tuple[RemoveCni, ...]:
    """The marker names those that are still to go."""
    return tuple(
        RemoveCni(_file(vm, path), (*staying, *going[index + 1 :])) for index, path in enumerate(going)
    )


def warnings(vm: Vm, seen: CniSeen | None) -> Iterator[str]:
    """The runtime takes the first file of its folder, in alphabetical order."""
    there = file(vm)
    if there is None or seen is None:
        return
    own = there.path.rpartition("\\")[2]
    for name in sorted(seen.others):
        if name.lower() < own.lower():
            yield f"the container runtime takes {name} before {own}, and no policy of it: move it away"
