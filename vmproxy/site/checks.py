"""Checks of the site file across keys: values that are not consistent with each other.

They work on the raw document and skip values that cannot be parsed, so that these mistakes are
reported together with all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vmproxy.site.yamltree import Complaint, Path, Tree

T = TypeVar("T", IPv4Address, IPv4Interface, IPv4Network)

_HOSTNAME_LIMIT = 63


@dataclass(frozen=True)
class _View:
    """The part of the document at `path`."""

    tree: Tree
    path: Path = ()

    @property
    def data(self) -> Any:
        data = self.tree.data
        for part in self.path:
            try:
                data = data[part]
            except (KeyError, IndexError, TypeError):
                return None
        return data

    def at(self, *parts: str | int) -> _View:
        return _View(self.tree, self.path + parts)

    def items(self) -> list[_View]:
        return [self.at(i) for i in range(len(self.data))] if isinstance(self.data, list) else []

    def has(self, key: str) -> bool:
        return isinstance(self.data, dict) and key in self.data

    def read(self, kind: type[T]) -> T | None:
        """None if it is missing or not of that type."""
        try:
            return kind(self.data) if isinstance(self.data, str) else None
        except ValueError:
            return None

    def wrong(self, what: str) -> Complaint:
        return Complaint(self.tree.line(self.path), self.path, what)


def conflicts(tree: Tree) -> Iterator[Complaint]:
    top = _View(tree)
    yield from _image(top.at("image"))
    yield from _overlaps(top)
    yield from _unique(top.at("hosts").items())
    for host in top.at("hosts").items():
        yield from _host(host, site=top.at("name").data)
        yield from _switch(host)
        yield from _network(host)


def _image(image: _View) -> Iterator[Complaint]:
    if not isinstance(image.data, dict):
        return
    given = [key for key in ("name", "path", "url") if image.has(key)]
    if len(given) != 1:
        yield image.wrong(f"needs exactly one of name, path and url, not {' and '.join(given) or 'none'}")
    if "url" in given and not image.has("sha256"):
        yield image.at("url").wrong("needs sha256 too")
    if image.has("sha256") and "url" not in given:
        yield image.at("sha256").wrong("is valid only with url")


def _host(host: _View, *, site: Any) -> Iterator[Complaint]:
    if not isinstance(host.data, dict):
        return
    if host.has("hyperv") == host.has("qemu"):
        yield host.wrong("needs exactly one of hyperv: {…} and qemu: {}")
    if host.has("hyperv") and not host.has("switch"):
        yield host.wrong("switch is missing: name the host's virtual switch")
    name = host.at("name").data
    if isinstance(name, str) and isinstance(site, str) and len(f"vmproxy-{site}-{name}") > _HOSTNAME_LIMIT:
        yield host.at("name").wrong(
            f"the VM's name vmproxy-{site}-{name} is longer than {_HOSTNAME_LIMIT} characters"
        )
    if isinstance(host.at("hyperv").data, dict):
        yield from _log_in(host.at("hyperv"))
    if isinstance(host.at("containers").data, dict):
        yield from _containers(host)


_NOT_THE_SAME = " without being the same"


def _containers(host: _View) -> Iterator[Complaint]:
    """`network` is the VM's; on a transparent network containers are in it."""
    containers, (_, own) = host.at("containers"), _vm_network(host)
    if host.has("qemu"):
        yield containers.wrong("is valid only with hyperv: the embedded host has no Windows containers")
    subnet, address = containers.at("subnet"), containers.at("hostAddress")
    network, at = subnet.read(IPv4Network), address.read(IPv4Address)
    if own is None:
        return
    behind = _has_own_switch(host)
    if network is not None and network.overlaps(own.network) and (behind or network != own.network):
        one = "internal switch's network" if behind else "VM's network"
        yield subnet.wrong(f"{network} overlaps the {one} {own.network}{'' if behind else _NOT_THE_SAME}")
    if network is not None and network.prefixlen > 29:
        yield subnet.wrong(f"a /{network.prefixlen} network has no room for containers and their gateway")
    if containers.at("gateway").data == "vm":
        yield from _inside(containers, network, own, behind=behind)
    if at is not None and behind:
        if at in own.network:
            yield address.wrong(f"{at} is on the internal switch: name the host's address on the LAN")
    elif at is not None:
        if why := _no_neighbour(at, own):
            yield address.wrong(why)
        elif at == own.ip:
            yield address.wrong("is the VM's own address")
    for route in host.at("network", "routes").items():
        to = route.at("to").read(IPv4Network)
        if to is not None and network is not None and to.overlaps(network):
            way = (
                "where the VM itself is"
                if containers.at("gateway").data == "vm"
                else "to which the host is the way"
            )
            yield route.at("to").wrong(f"{to} overlaps containers.subnet, {way}")


def _inside(
    containers: _View, subnet: IPv4Network | None, own: IPv4Interface, *, behind: bool
) -> Iterator[Complaint]:
    """The VM as the containers' gateway."""
    if behind:
        yield containers.at("gateway").wrong(
            "vm is not valid with switch.internal, where the VM is not on the containers' network: use host"
        )
    elif subnet == own.network:
        yield containers.at("gateway").wrong(
            f"vm needs a subnet of the containers' own: {subnet} is the VM's network"
        )


def _log_in(hyperv: _View) -> Iterator[Complaint]:
    auth = hyperv.data.get("auth", "ntlm")
    needed = {
        "ntlm": ("username", "password"),
        "basic": ("username", "password"),
        "certificate": ("certificate", "key"),
    }.get(auth if isinstance(auth, str) else "", ())
    for key in needed:
        if not hyperv.has(key):
            yield hyperv.wrong(f"{key} is missing: auth {auth} needs it")
    for key in {"certificate", "key"} - set(needed):
        if hyperv.has(key):
            yield hyperv.at(key).wrong("is valid only with auth: certificate")
    if hyperv.has("kerberosService") and auth != "kerberos":
        yield hyperv.at("kerberosService").wrong("is valid only with auth: kerberos")
    endpoint = hyperv.at("endpoint")
    if auth in ("basic", "certificate") and str(endpoint.data).lower().startswith("http:"):
        yield endpoint.wrong(f"auth {auth} needs https: over http the login is not protected")
    if "@" in str(endpoint.data):
        yield endpoint.wrong("must not contain a login: secrets are given by reference only, in password")
    if hyperv.has("ca") and str(endpoint.data).lower().startswith("http:"):
        yield hyperv.at("ca").wrong("is valid only with an https endpoint")


def _switch(host: _View) -> Iterator[Complaint]:
    switch, network = host.at("switch"), host.at("network")
    if not _has_own_switch(host):
        if switch.has("nat"):
            yield switch.at("nat").wrong("is valid only with internal")
        if isinstance(host.data, dict) and not host.has("network"):
            yield network.wrong("is missing")
        elif isinstance(network.data, dict):
            missing = [key for key in ("address", "gateway") if not network.has(key)]
            yield from (network.at(key).wrong("is missing") for key in missing)
        return
    if switch.has("name"):
        yield switch.wrong("needs exactly one of name and internal")
    if host.has("qemu"):
        yield switch.at("internal").wrong("is valid only with hyperv: on a lab's host, name a bridge")
    if network.has("vlan"):
        yield network.at("vlan").wrong("is not valid with switch.internal: nobody else is on that switch")
    for mode, why in _NEEDS_THE_LAN.items():
        if network.at("podRoutes").data == mode:
            yield network.at("podRoutes").wrong(
                f"{mode} is not valid with switch.internal, {why}: use nodes, or network.routes"
            )
    if (own := switch.at("internal").read(IPv4Network)) is not None:
        yield from _own_network(switch.at("internal"), own, network)


_NEEDS_THE_LAN = {
    "endpoints": "where no Node is the VM's neighbour",
    "flannel": "where no Node can answer the VM's own address",
}
"""Values of podRoutes."""


def _has_own_switch(host: _View) -> bool:
    return host.at("switch").has("internal")


def _own_network(internal: _View, own: IPv4Network, network: _View) -> Iterator[Complaint]:
    """The host has its first address, and is the VM's gateway."""
    if own.prefixlen > 30:
        yield internal.wrong(f"a /{own.prefixlen} network has no room for the host and the VM")
        return
    if own.is_loopback or own.is_multicast or own.is_link_local:
        yield internal.wrong(f"{own} cannot be the network of a switch")
    address, gateway = network.at("address"), network.at("gateway")
    if (vm := address.read(IPv4Interface)) is not None:
        if vm.network != own:
            yield address.wrong(f"{vm} is not an address of switch.internal, {own}: omit it, or correct it")
        elif vm.ip == own[1]:
            yield address.wrong(f"{vm.ip} is the host's address on the switch: the VM has another one")
    if (via := gateway.read(IPv4Address)) is not None and via != own[1]:
        yield gateway.wrong(f"the VM's gateway is the host, {own[1]}: omit it")


def _vm_network(host: _View) -> tuple[_View, IPv4Interface | None]:
    """The VM's own address, and the key that says it."""
    address, internal = host.at("network", "address"), host.at("switch", "internal")
    own = internal.read(IPv4Network)
    if own is None or own.prefixlen > 30 or address.data is not None:
        return address, address.read(IPv4Interface)
    return internal, IPv4Interface(f"{own[2]}/{own.prefixlen}")


def _network(host: _View) -> Iterator[Complaint]:
    network = host.at("network")
    if _has_own_switch(host):
        switch = host.at("switch", "internal").read(IPv4Network)
        yield from _routed_twice(network)
        for route in network.at("routes").items():
            yield from _host_route(route, switch)
        return
    address = network.at("address")
    own = address.read(IPv4Interface)
    if own is None or "/" not in str(address.data):
        return
    yield from _own_address(address, own)
    gateway = network.at("gateway")
    via = gateway.read(IPv4Address)
    if via is not None:
        if why := _no_neighbour(via, own):
            yield gateway.wrong(why)
        if via == own.ip:
            yield gateway.wrong("is the VM's own address")
    yield from _routed_twice(network)
    for route in network.at("routes").items():
        yield from _route(route, own)


def _routed_twice(network: _View) -> Iterator[Complaint]:
    seen: dict[IPv4Network, _View] = {}
    for route in network.at("routes").items():
        if (to := route.at("to").read(IPv4Network)) is not None:
            if to in seen:
                yield route.at("to").wrong(f"{to} has a route already, on line {_line(seen[to])}")
            seen.setdefault(to, route)


def _own_address(address: _View, own: IPv4Interface) -> Iterator[Complaint]:
    if own.network.prefixlen > 30:
        yield address.wrong(f"a /{own.network.prefixlen} network has no room for the VM and its gateway")
    elif own.ip == own.network.network_address:
        yield address.wrong(f"{own.ip} is the network's own address, not a host address")
    elif own.ip == own.network.broadcast_address:
        yield address.wrong(f"{own.ip} is the network's broadcast address")
    if own.ip.is_loopback or own.ip.is_multicast:
        yield address.wrong(f"{own.ip} cannot be a host address")


def _no_neighbour(other: IPv4Address, own: IPv4Interface) -> str | None:
    if other not in own.network:
        return f"{other} is not in the VM's network {own.network}"
    if other in (own.network.network_address, own.network.broadcast_address):
        return f"{other} cannot be a host address in {own.network}"
    return None


def _route(route: _View, own: IPv4Interface) -> Iterator[Complaint]:
    via, to = route.at("via").read(IPv4Address), route.at("to").read(IPv4Network)
    if via is not None:
        if why := _no_neighbour(via, own):
            yield route.at("via").wrong(why)
        if via == own.ip:
            yield route.at("via").wrong("is the VM's own address")
    if to is not None and to.prefixlen == 0:
        yield route.at("to").wrong("is the default route: its next hop is network.gateway")
    elif to is not None and to.subnet_of(own.network):
        yield route.at("to").wrong(f"{to} is in the VM's own network {own.network}: it needs no route")


def _host_route(route: _View, own: IPv4Network | None) -> Iterator[Complaint]:
    """Of a host with an internal switch: whether it reaches the next hop is seen on the host."""
    via, to = route.at("via").read(IPv4Address), route.at("to").read(IPv4Network)
    if via is not None and own is not None and via in own:
        yield route.at("via").wrong(
            f"{via} is on the internal switch: the host, which has this route, is the VM's way to pods"
        )
    if to is not None and to.prefixlen == 0:
        yield route.at("to").wrong("is the default route, which the host has already")
    elif to is not None and own is not None and to.overlaps(own):
        yield route.at("to").wrong(f"{to} overlaps the internal switch's network {own}")


def _ranges(top: _View) -> Iterator[tuple[str, _View, IPv4Network]]:
    for key, word in (("serviceCIDRs", "Service range"), ("podCIDRs", "pod range")):
        for entry in top.at("cluster", key).items():
            if (network := entry.read(IPv4Network)) is not None:
                yield f"the {word} {network}", entry, network


def _overlaps(top: _View) -> Iterator[Complaint]:
    ranges = list(_ranges(top))
    for i, (_, entry, network) in enumerate(ranges):
        for other, _, taken in ranges[:i]:
            if network.overlaps(taken):
                yield entry.wrong(f"{network} overlaps {other}")
    for host in top.at("hosts").items():
        address, own = _vm_network(host)
        for other, _, taken in ranges:
            if own and own.network.overlaps(taken):
                yield address.wrong(f"the VM's network {own.network} overlaps {other}")
        yield from _containers_in_services(host.at("containers", "subnet"), ranges)
        yield from _routes_into_services(host, ranges)


def _routes_into_services(host: _View, ranges: list[tuple[str, _View, IPv4Network]]) -> Iterator[Complaint]:
    for route in host.at("network", "routes").items():
        to = route.at("to").read(IPv4Network)
        for other, entry, taken in ranges:
            if to is not None and "serviceCIDRs" in entry.path and to.subnet_of(taken):
                yield route.at("to").wrong(f"{to} is in {other}, which the VM itself serves")


def _containers_in_services(
    subnet: _View, ranges: list[tuple[str, _View, IPv4Network]]
) -> Iterator[Complaint]:
    """Of a Windows node the containers are pods."""
    network = subnet.read(IPv4Network)
    for other, entry, taken in ranges:
        if network is not None and "serviceCIDRs" in entry.path and network.overlaps(taken):
            yield subnet.wrong(f"{network} overlaps {other}")


def _unique(hosts: list[_View]) -> Iterator[Complaint]:
    for word, path in (("name", ("name",)), ("VM address", ("network", "address"))):
        seen: dict[str, _View] = {}
        for host in hosts:
            entry = host.at(*path)
            own = entry.read(IPv4Interface)
            value = str(own.ip) if own and path != ("name",) else entry.data
            if not isinstance(value, str):
                continue
            if value in seen:
                line = entry.tree.line(seen[value].path)
                yield entry.wrong(f"{value} is already the {word} of the host on line {line}")
            seen.setdefault(value, entry)
        if path == ("name",):
            yield from _renewing(seen)
    yield from _shared(hosts)
    yield from _insides(hosts)
    yield from _routed_switches(hosts)


def _routed_switches(hosts: list[_View]) -> Iterator[Complaint]:
    """Internal switches without NAT: the LAN has one route to each of their networks."""
    seen: dict[IPv4Network, _View] = {}
    for host in hosts:
        own = host.at("switch", "internal").read(IPv4Network)
        if own is None or host.at("switch", "nat").data is not False:
            continue
        for other, entry in seen.items():
            if own.overlaps(other):
                yield host.at("switch", "internal").wrong(
                    f"{own} overlaps {other} of the host on line {_line(entry)}, and neither has NAT"
                )
        seen[own] = host


def _insides(hosts: list[_View]) -> Iterator[Complaint]:
    """Subnets that a VM is the gateway of: the LAN has one route to each."""
    seen: dict[IPv4Network, _View] = {}
    for host in hosts:
        subnet = host.at("containers", "subnet")
        network = subnet.read(IPv4Network)
        if network is None:
            continue
        for other, entry in seen.items():
            ours = "vm" in (item.at("containers", "gateway").data for item in (host, entry))
            if ours and network.overlaps(other):
                yield subnet.wrong(
                    f"{network} overlaps {other} of the host on line {_line(entry)}, and a VM is its gateway"
                )
        seen[network] = host


def _renewing(hosts: dict[str, _View]) -> Iterator[Complaint]:
    """`hosts` by name: one's ServiceAccount would be the one that renews another's token."""
    for name, entry in hosts.items():
        renewed = name.removesuffix("-renewal")
        if renewed != name and renewed in hosts:
            yield entry.wrong(
                f"{name} is already the name of what renews the token of the host on line "
                f"{_line(hosts[renewed])}: choose another one"
            )


def _line(view: _View) -> int:
    return view.tree.line(view.path)


def same_machine(tree: Tree) -> Iterator[Complaint]:
    """A Windows host is known by its endpoint's name; two entries would set each other's routes. Of a file
    whose endpoints are right: in others, the same word is often only a placeholder."""
    seen: dict[str, _View] = {}
    for host in _View(tree).at("hosts").items():
        endpoint = host.at("hyperv", "endpoint")
        name = urlsplit(str(endpoint.data or "")).hostname
        if name and name in seen:
            yield endpoint.wrong(f"{name} is already the host on line {_line(seen[name])}")
        elif name:
            seen[name] = host


def _shared(hosts: list[_View]) -> Iterator[Complaint]:
    """A gateway or next hop that is another host's VM."""
    vms = {own.ip: host for host in hosts if (own := host.at("network", "address").read(IPv4Interface))}
    for host in hosts:
        hops = [route.at("via") for route in host.at("network", "routes").items()]
        for hop in (host.at("network", "gateway"), *hops):
            other = vms.get(hop.read(IPv4Address) or IPv4Address(0))
            if other is not None and other.path != host.path:
                yield hop.wrong(f"{hop.data} is the VM address of the host on line {_line(other)}")
