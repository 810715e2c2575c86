"""The guest's guard table: it forwards nothing but its clients' Service traffic that kube-proxy knows, and
containers' where the VM is their gateway, and closes the VM's ports except SSH."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from vmproxy.model.names import GUARD, GUARD_UNIT, UNITS
from vmproxy.model.net import Address, Interface, Network, summed
from vmproxy.model.seen import ClusterSeen, GuestSeen
from vmproxy.model.steps import Follow, LoadGuard, ManagedFile
from vmproxy.model.topology import Vm
from vmproxy.util import assets


def clients(vm: Vm, host: Sequence[Interface]) -> tuple[Network, ...] | None:
    """Who may use the gateway; None: everybody. `host` are the addresses of the host, which always may: those
    on the VM's network, if it has any there, as the VM sees no others then. Its containers may, too."""
    chosen = vm.network.clients
    if chosen == "any":
        return None
    near = [item for item in host if item.ip in vm.address.network] or host
    own = {ip_network(item.ip) for item in near if item.version == 4}
    inside = {vm.containers.subnet} if vm.containers else set()
    return tuple(sorted({*own, *inside, *(chosen or ())}, key=str))


@dataclass(frozen=True)
class Inside:
    """The containers' subnet that the VM is the gateway of, and the VM's own addresses. A container is seen
    with its own address in `known`, with the VM's everywhere else. What goes between the subnet and `direct`,
    a part of `known`, is not translated, and one half of such a connection may take another way."""

    subnet: Network
    own: tuple[Address, ...]
    direct: tuple[Network, ...]
    known: tuple[Network, ...]


def inside(vm: Vm, cluster: ClusterSeen) -> Inside | None:
    """None: the VM is no containers' gateway."""
    if vm.inside is None:
        return None
    own, direct = (vm.address.ip, vm.inside.ip), (vm.address.network, *cluster.pod_ranges)
    known = (*direct, vm.inside.network, *cluster.service_cidrs)
    return Inside(vm.inside.network, own, _merged(direct), _merged(known))


def _merged(ranges: Iterable[Network]) -> tuple[Network, ...]:
    """IPv4 alone. nft refuses a network inside another one."""
    return summed(cidr for cidr in ranges if cidr.version == 4)


def file(
    service_cidrs: Sequence[Network], allowed: Sequence[Network] | None, inside: Inside | None = None
) -> ManagedFile:
    ranges = [cidr for cidr in service_cidrs if cidr.version == 4]
    rules = assets.render("guest/guard.nft.j2", service_cidrs=ranges, clients=allowed, inside=inside)
    return ManagedFile.of(rules, follow=Follow(setup=("guard",)))


def files(guard: ManagedFile) -> dict[str, ManagedFile]:
    unit = ManagedFile.of(assets.text(f"guest/{GUARD_UNIT}"), follow=Follow(reload=True))
    return {GUARD: guard, f"{UNITS}/{GUARD_UNIT}": unit}


def plan(guard: ManagedFile, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[LoadGuard]:
    """The table is known by the hash of the file that it was loaded from."""
    if seen.guard != guard.sha256 and not any("guard" in follow.setup for follow in follows):
        yield LoadGuard(missing=not seen.guard)
