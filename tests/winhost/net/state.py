"""What Windows keeps of the host's network beside what the kernel has: names, metrics, the lasting store."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.winhost.engine import CmdletError
from tests.winhost.net.kernel import FAMILIES, Address, Family, IPNetwork, Kernel, KernelRoute, Link, Refused
from tests.winhost.net.kernel import exists as namespace_exists
from tests.winhost.state import Host

Store = Literal["ActiveStore", "PersistentStore"]
STORES: tuple[Store, ...] = ("ActiveStore", "PersistentStore")
LOOPBACK = "Loopback Pseudo-Interface 1"
METRIC = 15
"""The automatic metric of a 10 Gbit/s interface."""
LOOPBACK_METRIC = 75
ROUTE_METRIC = 256
_ON_LINK = {4: "0.0.0.0", 6: "::"}


@dataclass
class Interface:
    """An interface's name, and its settings of each family: those that differ from a new one's."""

    alias: str
    description: str
    settings: dict[tuple[Family, str], Any] = field(default_factory=dict)
    category: Literal["Public", "Private", "DomainAuthenticated"] = "Public"
    servers: list[str] = field(default_factory=list)
    """Its DNS servers."""
    registers: bool = True
    """Its addresses are registered in DNS."""
    suffix: str = ""
    uses_suffix: bool = False


@dataclass
class Physical:
    """A network card: bound to an external switch it has no addresses of its own."""

    name: str = "Ethernet"
    description: str = "Intel(R) Ethernet Connection"
    mac: str = "3C-EC-EF-12-34-56"
    index: int = 4
    enabled: bool = True
    connected: bool = True


@dataclass(frozen=True)
class Route:
    """A route of one store. `link` is None in the lasting store where its interface is gone."""

    store: Store
    link: str | None
    to: IPNetwork
    next_hop: str
    metric: int = ROUTE_METRIC
    protocol: str = "NetMgmt"
    publish: str = "No"
    kind: str = "unicast"

    @property
    def key(self) -> tuple[str | None, IPNetwork, str]:
        return self.link, self.to, self.next_hop

    @property
    def on_link(self) -> bool:
        return self.next_hop == _ON_LINK[self.to.version]


@dataclass(frozen=True)
class StaticMapping:
    """Of a NAT network: what comes from `remote` to a port of the host goes to a port of a machine inside."""

    number: int
    nat: str
    protocol: str
    external: str
    external_port: int
    remote: str
    internal: str
    internal_port: int


@dataclass
class Network:
    """The host's network. What is in the kernel is read there; this is the rest."""

    interfaces: dict[str, Interface] = field(default_factory=dict)
    physical: list[Physical] = field(default_factory=lambda: [Physical()])
    routes: list[Route] = field(default_factory=list)
    """The lasting store's."""
    addresses: list[Address] = field(default_factory=list)
    """The lasting store's."""
    noted: dict[tuple[str | None, IPNetwork, str], Route] = field(default_factory=dict)
    """What was said of active routes that the kernel does not keep: metric without the interface's, …"""
    neighbors: dict[tuple[str, str], str] = field(default_factory=dict)
    """The lasting store's: link and address, and the MAC."""
    skip_as_source: set[tuple[str, str]] = field(default_factory=set)
    protocol: dict[str, Any] = field(default_factory=dict)
    """Settings of IPv4 that differ from a new host's."""
    firewall: dict[str, bool] = field(
        default_factory=lambda: dict.fromkeys(("Domain", "Private", "Public"), True)
    )
    keeps_orphans: bool = True
    """Remove-NetRoute leaves the lasting route of an interface that is gone, and does not say so."""
    nats: list[tuple[str, str]] = field(default_factory=list)
    """Name and internal prefix."""
    translates: bool = False
    """The kernel has NAT's rules, and forwards whatever the interfaces' own settings say."""
    nat_settings: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Of a NAT network, by its name: those that differ from a new one's."""
    mappings: list[StaticMapping] = field(default_factory=list)
    mapped: int = 0
    """How many there were: each has a number of its own."""
    shift: int = 0
    """Added to the kernel's index of every link but the loopback's: a reboot numbers them anew."""
    adopted: bool = False


def network(host: Host) -> Network:
    """The host's network; what the kernel has when it is first asked for is lasting configuration."""
    with host.lock:
        part = host.part(Network)
        if not part.adopted:
            part.adopted = True
            _adopt(host, part)
        return part


def kernel(host: Host) -> Kernel:
    if host.namespace is None or not namespace_exists(host.namespace):
        raise CmdletError(
            f"not emulated: a network without a namespace ({host.namespace})",
            exception="System.NotImplementedException",
            error_id="NotEmulated",
            category="NotImplemented",
        )
    return Kernel(host.namespace)


def interface(host: Host, link: str) -> Interface:
    """What Windows calls a link: eth0 is the host's port on its external switch."""
    part = host.part(Network)
    if link not in part.interfaces:
        switch = next(iter(host.bridges), "External")
        named = {"lo": LOOPBACK, "eth0": f"vEthernet ({switch})"}
        number = sum(1 for one in part.interfaces if one != "lo")
        card = "Hyper-V Virtual Ethernet Adapter" + (f" #{number + 1}" if number else "")
        described = "Software Loopback Interface 1" if link == "lo" else card
        made = Interface(named.get(link, f"vEthernet ({link})"), described)
        made.servers = list(host.dns) if link == "eth0" else []
        part.interfaces[link] = made
    return part.interfaces[link]


def index(host: Host, link: Link) -> int:
    return link.index if link.loopback else link.index + host.part(Network).shift


def interface_metric(host: Host, link: str, family: Family) -> int:
    automatic = LOOPBACK_METRIC if link == "lo" else METRIC
    return int(interface(host, link).settings.get((family, "InterfaceMetric"), automatic))


def active_routes(host: Host) -> list[Route]:
    """The kernel's routes as Windows shows them."""
    told = [one for family in FAMILIES for one in kernel(host).routes(family)]
    system = [one for family in FAMILIES for one in kernel(host).routes(family, table="local")]
    fixed = [_system(host, one) for one in system]
    return [_active(host, one) for one in told] + fixed + _everywhere(host)


def add_active(host: Host, route: Route) -> None:
    """Raises Refused where the kernel refuses it."""
    kernel(host).add_route(_kernel_route(host, route))
    network(host).noted[route.key] = route


def remove_active(host: Host, route: Route) -> None:
    part = network(host)
    wanted = _kernel_route(host, route)
    there = next(
        one
        for one in kernel(host).routes(route.to.version)
        if (one.link, one.to, one.via) == (wanted.link, wanted.to, wanted.via)
    )
    kernel(host).delete_route(there)
    part.noted.pop(route.key, None)


def settle(host: Host, link: str, *, reapply: bool = False) -> None:
    """Bring active routes in line with the interface's metric; with `reapply` also what lasts and is away."""
    part = network(host)
    for route in [one for one in part.noted.values() if one.link == link]:
        if _present(host, route):
            remove_active(host, route)
            add_active(host, route)
    if reapply:
        for route in (one for one in part.routes if one.link == link and not _present(host, one)):
            add_active(host, replace(route, store="ActiveStore"))


def reboot(host: Host) -> None:
    """What a restart leaves of the network: the lasting store's routes and addresses, under new numbers."""
    part = network(host)
    names = {one.name for one in kernel(host).links()}
    for route in [one for one in active_routes(host) if one.kind == "unicast" and one.protocol != "Local"]:
        remove_active(host, route)
    for address in kernel(host).addresses():
        if address not in part.addresses and not address.interface.is_link_local:
            kernel(host).run("address", "del", str(address.interface), "dev", address.link)
    for neighbor in kernel(host).neighbors():
        kernel(host).run("neighbor", "del", neighbor.address, "dev", neighbor.link)
    part.noted.clear()
    _restore(host, names)
    part.shift += 7
    from tests.winhost.net import nat  # noqa: PLC0415 - it is made of what is in here

    nat.start(host)


def _restore(host: Host, names: set[str]) -> None:
    part = network(host)
    there = kernel(host).addresses()
    for address in (one for one in part.addresses if one.link in names and one not in there):
        kernel(host).run("address", "add", str(address.interface), "dev", address.link)
    for (link, address_of), mac in part.neighbors.items():
        if link in names:
            kernel(host).run("neighbor", "replace", address_of, "lladdr", mac, "dev", link)
    for name in names:
        settle(host, name, reapply=True)


def _adopt(host: Host, part: Network) -> None:
    part.addresses = [
        one for one in kernel(host).addresses() if not one.dynamic and not one.interface.is_link_local
    ]
    made = [one for one in active_routes(host) if one.kind == "unicast" and one.protocol == "NetMgmt"]
    part.noted = {one.key: one for one in made}
    part.routes = [replace(one, store="PersistentStore") for one in made]


def _present(host: Host, route: Route) -> bool:
    return any(one.key == route.key for one in active_routes(host))


def _kernel_route(host: Host, route: Route) -> KernelRoute:
    if route.link is None:
        raise Refused("its interface is gone")
    metric = route.metric + interface_metric(host, route.link, route.to.version)
    return KernelRoute(
        route.link, route.to, None if route.on_link else route.next_hop, metric, "static", "unicast"
    )


def _active(host: Host, told: KernelRoute) -> Route:
    hop = told.via or _ON_LINK[told.to.version]
    noted = host.part(Network).noted.get((told.link, told.to, hop))
    if noted is not None:
        return replace(noted, store="ActiveStore", kind=told.kind)
    own = interface_metric(host, told.link, told.to.version)
    system = told.protocol in ("kernel", "ra")
    metric = ROUTE_METRIC if system or not told.metric else max(told.metric - own, 0)
    return Route(
        "ActiveStore",
        told.link,
        told.to,
        hop,
        metric,
        protocol="Local" if system else "NetMgmt",
        kind=told.kind,
    )


def _system(host: Host, told: KernelRoute) -> Route:
    """A route of the kernel's own table: to the host itself, its broadcast and multicast addresses."""
    return Route(
        "ActiveStore", told.link, told.to, _ON_LINK[told.to.version], protocol="Local", kind=told.kind
    )


def _everywhere(host: Host) -> list[Route]:
    """Windows has these on each interface with an address; the kernel has no entry for them."""
    links = dict.fromkeys(one.link for one in kernel(host).addresses() if one.interface.version == 4)
    prefixes: Iterable[IPNetwork] = map(ipaddress.ip_network, ("224.0.0.0/4", "255.255.255.255/32"))
    return [
        Route("ActiveStore", link, prefix, "0.0.0.0", protocol="Local", kind="multicast")
        for prefix in prefixes
        for link in links
    ]
