"""Get-, New-, Set- and Remove-NetRoute, Find-NetRoute.

The active store is the namespace's routing table; the lasting one is state, bound to the interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from tests.winhost.engine import Call, CmdletError, Item, Ref, UInt16, UInt32, emulates
from tests.winhost.net import address
from tests.winhost.net.cim import (
    FOREVER,
    Filter,
    Instance,
    Query,
    enum,
    invalid,
    item,
    numbered,
    refuse,
    win32,
)
from tests.winhost.net.kernel import IPNetwork, Refused
from tests.winhost.net.naming import (
    FAMILY,
    GONE,
    STORE,
    Place,
    by_link,
    check_family,
    place,
    places,
    stores,
)
from tests.winhost.net.state import (
    Route,
    active_routes,
    add_active,
    interface_metric,
    kernel,
    network,
    remove_active,
)
from tests.winhost.state import Host

CLASS = "MSFT_NetRoute"
_NAMES = "Other Local NetMgmt Icmp Egp Ggp Hello Rip IsIs EsIs Igrp Bbn Ospf Bgp Idpr Eigrp Dvmrp Rpl Dhcp"
PROTOCOLS = numbered(_NAMES.split(" "), 1)
PUBLISH = numbered(("No", "Age", "Yes"))
STATE = numbered(("Dead", "Alive"))
UNREACHABLE = (
    "The network location cannot be reached. For information about network troubleshooting, see Windows Help."
)
_FILTERS = (
    Filter("DestinationPrefix", "DestinationPrefix", globs=True),
    Filter("InterfaceIndex", "InterfaceIndex"),
    Filter("InterfaceAlias", "InterfaceAlias", globs=True),
    Filter("NextHop", "NextHop", globs=True),
    Filter("AddressFamily", "AddressFamily", numbers=FAMILY),
    Filter("Publish", "Publish", numbers=PUBLISH),
    Filter("RouteMetric", "RouteMetric"),
    Filter("Protocol", "Protocol", numbers=PROTOCOLS),
    Filter("CompartmentId", "CompartmentId"),
    Filter("InterfaceMetric", "InterfaceMetric"),
    Filter("State", "State", numbers=STATE),
)
_CHANGES = ("RouteMetric", "Publish", "Protocol")


def _belongs(start: Ref, instance: Instance) -> bool:
    return bool(start.id.split("|")[0] == instance.raw["link"])


_QUERY = Query(CLASS, _FILTERS, "AssociatedIPInterface", _belongs)
_SELECTION = Query(CLASS, [one for one in _FILTERS if one.parameter not in _CHANGES])


@emulates("Get-NetRoute")
def get_net_route(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime")
    for one in _QUERY.select(call, _pool(host, call, stores(call, CLASS) or ["ActiveStore"])):
        yield one.item if isinstance(one, Instance) else one


@emulates("New-NetRoute")
def new_net_route(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime")
    wanted_stores = stores(call, CLASS) or ["ActiveStore", "PersistentStore"]
    if wanted_stores == ["PersistentStore"]:
        invalid(CLASS, "PolicyStore", "PersistentStore")
    route = _wanted(host, call)
    there = [one for one in every_route(host, wanted_stores) if one.key == route.key]
    if there:
        raise win32(87, f"Instance {CLASS} already exists", CLASS)
    _check_on_link(host, route)
    try:
        add_active(host, route)
    except Refused as exc:
        raise win32(1231, UNREACHABLE, CLASS) from exc
    yield _instance(host, route).item
    if "PersistentStore" in wanted_stores:
        lasting = replace(route, store="PersistentStore")
        network(host).routes.append(lasting)
        yield _instance(host, lasting).item


@emulates("Set-NetRoute")
def set_net_route(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    """Metric, publishing and protocol; prefix and next hop are what selects."""
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime")
    for one in list(_named(host, call, _SELECTION)):
        if isinstance(one, CmdletError):
            yield one
            continue
        changed = _changed(one.raw["route"], call)
        _replace(host, one.raw["route"], changed)
        if call.switch("PassThru"):
            yield _instance(host, changed).item


@emulates("Remove-NetRoute")
def remove_net_route(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime")
    for one in list(_named(host, call, _QUERY)):
        if isinstance(one, CmdletError):
            yield one
            continue
        _remove(host, one.raw["route"])
        if call.switch("PassThru"):
            yield one.item


@emulates("Find-NetRoute")
def find_net_route(host: Host, call: Call) -> Iterator[Item]:
    """The source address, then the route: two objects."""
    refuse(call, "CimSession", "AsJob")
    remote = _address(call, "RemoteIPAddress")
    local = _address(call, "LocalIPAddress") if call.has("LocalIPAddress") else None
    by_index = {one.index: one.link for one in places(host)}
    if call.has("InterfaceIndex") and call.get("InterfaceIndex") not in by_index:
        raise win32(1168, "Element not found.", CLASS)
    link = by_index.get(call.get("InterfaceIndex"))
    try:
        chosen = kernel(host).choose(remote, source=local, link=link)
    except Refused as exc:
        raise win32(1231, UNREACHABLE, CLASS) from exc
    route = _best(host, remote, chosen.via, None if chosen.link == "lo" else chosen.link)
    yield address.found(host, chosen.source, str(route.link))
    yield _instance(host, route).item


def every_route(host: Host, wanted: Iterable[str]) -> list[Route]:
    active = active_routes(host) if "ActiveStore" in wanted else []
    return active + (list(network(host).routes) if "PersistentStore" in wanted else [])


def instances(host: Host, wanted: Iterable[str]) -> list[Instance]:
    network(host)
    there = by_link(host)
    return [_instance(host, one, there) for one in every_route(host, wanted)]


def _pool(host: Host, call: Call, wanted: Iterable[str]) -> list[Instance]:
    """The route of an interface that is gone shows an index, but is not found by it."""
    found = instances(host, wanted)
    by_interface = call.has("InterfaceIndex") or call.has("InterfaceAlias")
    return [one for one in found if not by_interface or not _orphaned(host, one.raw["route"])]


def _orphaned(host: Host, route: Route) -> bool:
    return route.store == "PersistentStore" and route.link not in by_link(host)


@emulates("route.exe delete")
def route_delete(host: Host, call: Call) -> Iterator[bool]:
    """Of the program: by network, mask and gateway, in both stores, whatever the interface."""
    prefix = ipaddress.ip_network(f"{call.get('Network')}/{call.get('Mask')}")
    found = [
        one
        for one in every_route(host, ["ActiveStore", "PersistentStore"])
        if (one.to, one.next_hop) == (prefix, call.get("Gateway")) and one.kind == "unicast"
    ]
    for one in found:
        if one.store == "PersistentStore":
            network(host).routes.remove(one)
        else:
            _remove(host, one)
    yield bool(found)


def _named(host: Host, call: Call, query: Query) -> Iterator[Instance | CmdletError]:
    """The routes of -InputObject, or those that the parameters select: in both stores, if none is named."""
    if not call.has("InputObject"):
        chosen = stores(call, CLASS) or ["ActiveStore", "PersistentStore"]
        yield from query.select(call, _pool(host, call, chosen))
        return
    there = {one.item.id: one for one in instances(host, ["ActiveStore", "PersistentStore"])}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", CLASS)


def _wanted(host: Host, call: Call) -> Route:
    prefix = _prefix(call)
    check_family(call, prefix.version, CLASS, "DestinationPrefix", prefix)
    where = place(host, call, CLASS)
    everything = "0.0.0.0" if prefix.version == 4 else "::"
    hop = _address(call, "NextHop") if call.has("NextHop") else everything
    if ipaddress.ip_address(hop).version != prefix.version:
        invalid(CLASS, "NextHop", hop)
    return Route(
        "ActiveStore",
        where.link,
        prefix,
        hop,
        metric=int(call.get("RouteMetric", 256)),
        protocol=call.get("Protocol", "NetMgmt"),
        publish=call.get("Publish", "No"),
    )


def _prefix(call: Call) -> IPNetwork:
    """A prefix with its length, host bits zero."""
    text = str(call.get("DestinationPrefix"))
    try:
        if "/" not in text:
            raise ValueError(text)
        return ipaddress.ip_network(text)
    except ValueError:
        invalid(CLASS, "DestinationPrefix", text)


def _address(call: Call, parameter: str) -> str:
    try:
        return str(ipaddress.ip_address(str(call.get(parameter)).partition("%")[0]))
    except ValueError:
        invalid(CLASS, parameter, call.get(parameter))


def _check_on_link(host: Host, route: Route) -> None:
    """A next hop must be a neighbour: within a prefix that the interface has without one."""
    if route.on_link:
        return
    hop = ipaddress.ip_address(route.next_hop)
    own = [one.interface.ip for one in kernel(host).addresses() if one.link == route.link]
    if hop in own:
        raise win32(87, f"not emulated: NextHop {hop} is the host's own address", CLASS)
    reach = [one.to for one in active_routes(host) if one.link == route.link and one.on_link]
    if not any(hop in prefix for prefix in reach if prefix.version == hop.version):
        raise win32(1231, UNREACHABLE, CLASS)


def _best(host: Host, remote: str, via: str | None, link: str | None) -> Route:
    """The route that Windows would show for the way that the kernel goes; `link` None: to the host itself."""
    to = ipaddress.ip_address(remote)
    fitting = [
        one
        for one in active_routes(host)
        if one.to.version == to.version
        and to in one.to
        and (link is None or one.link == link)
        and (None if one.on_link else one.next_hop) == via
    ]

    def rank(one: Route) -> tuple[int, int]:
        return -one.to.prefixlen, one.metric + interface_metric(host, str(one.link), one.to.version)

    return min(fitting, key=rank)


def _changed(route: Route, call: Call) -> Route:
    return replace(
        route,
        metric=int(call.get("RouteMetric", route.metric)),
        publish=call.get("Publish", route.publish),
        protocol=call.get("Protocol", route.protocol),
    )


def _replace(host: Host, old: Route, new: Route) -> None:
    if old.store == "PersistentStore":
        kept = network(host).routes
        kept[kept.index(old)] = new
    elif new != old:
        _remove(host, old)
        add_active(host, new)


def _remove(host: Host, route: Route) -> None:
    if route.store == "PersistentStore":
        if not (_orphaned(host, route) and network(host).keeps_orphans):
            network(host).routes.remove(route)
    elif route.kind != "unicast":
        raise win32(5, f"not emulated: removing the system's own route {route.to}", CLASS)
    else:
        remove_active(host, route)


def _key(route: Route) -> str:
    return f"{route.link}|{route.store}|{route.to}|{route.next_hop}|{route.kind}"


def _instance(host: Host, route: Route, there: Mapping[str | None, Place] | None = None) -> Instance:
    where = (by_link(host) if there is None else there).get(route.link, GONE)
    metric = interface_metric(host, where.link, route.to.version) if where.link else 0
    family = "IPv4" if route.to.version == 4 else "IPv6"
    raw = {
        "DestinationPrefix": str(route.to),
        "InterfaceIndex": where.index,
        "InterfaceAlias": where.alias,
        "NextHop": route.next_hop,
        "AddressFamily": family,
        "Publish": route.publish,
        "RouteMetric": route.metric,
        "Protocol": route.protocol,
        "CompartmentId": 1,
        "InterfaceMetric": metric,
        "State": "Alive",
        "Store": route.store,
        "link": route.link,
        "route": route,
    }
    shown = {
        "Publish": enum(PUBLISH, route.publish),
        "Protocol": enum(PROTOCOLS, route.protocol),
        "Store": enum(STORE, route.store),
        "AddressFamily": enum(FAMILY, family),
        "State": enum(STATE, "Alive"),
        "ifIndex": UInt32(where.index),
        "Caption": None,
        "Description": None,
        "ElementName": None,
        "InstanceID": _key(route),
        "AdminDistance": None,
        "DestinationAddress": None,
        "IsStatic": None,
        "RouteMetric": UInt16(route.metric),
        "TypeOfRoute": UInt16(3),
        "CompartmentId": UInt32(1),
        "DestinationPrefix": str(route.to),
        "InterfaceAlias": where.alias,
        "InterfaceIndex": UInt32(where.index),
        "InterfaceMetric": UInt32(metric),
        "NextHop": route.next_hop,
        "PreferredLifetime": FOREVER,
        "ValidLifetime": FOREVER,
    }
    return Instance(item(CLASS, _key(route), shown), raw)
