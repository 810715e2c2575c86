"""The host's routes: each Service range by way of the VM. Made last, removed first. Where the VM is on a
switch of its own, also those to pods, which it reaches through the host: these are made before it works.

A route is ours when the VM's marker names its prefix, or when it is just the wanted one. Any other
route that equals a Service range or lies inside it is foreign. A wider one, such as a VPN's, is less
specific than ours, and no conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

from vmproxy.errors import Conflict
from vmproxy.model.net import Address, Interface, Network, Route, overlap
from vmproxy.model.seen import ClientSeen
from vmproxy.model.steps import MarkRoutes, RemoveRoute, RouteStep, SetRoute

_OF_DEFAULT_SWITCH = ip_network("172.16.0.0/12")


def wanted(service_cidrs: Iterable[Network], address: Address) -> tuple[Route, ...]:
    """One route for each Service range of the address' family, by way of the VM's `address`."""
    return tuple(Route(cidr, address) for cidr in service_cidrs if cidr.version == address.version)


def plan(
    routes: tuple[Route, ...], marked: tuple[Route, ...], seen: ClientSeen, *, client: str
) -> tuple[RouteStep, ...]:
    """Raises Conflict when a foreign route stands in the way."""
    _refuse_foreign(routes, marked, seen, client=client)
    prefixes = {route.prefix for route in routes}
    unwanted = [route for route in ours(routes, marked, seen.routes) if route.prefix not in prefixes]
    why = "nothing in the cluster needs it any more"
    steps: list[RouteStep] = _removals(unwanted, routes, why=why, cold=False)
    for route in routes:
        there = tuple(item for item in seen.routes if item.prefix == route.prefix)
        if there != (route,):
            steps.append(SetRoute(route, there, routes))
    if not steps and marked != routes:
        steps.append(MarkRoutes(routes, marked))
    return tuple(steps)


def remove_plan(
    routes: tuple[Route, ...], marked: tuple[Route, ...], seen: ClientSeen, *, why: str, cold: bool
) -> tuple[RouteStep, ...]:
    """Take away every route of ours, before the VM behind it goes."""
    return tuple(_removals(ours(routes, marked, seen.routes), (), why=why, cold=cold))


def _removals(going: Sequence[Route], staying: tuple[Route, ...], *, why: str, cold: bool) -> list[RouteStep]:
    """The marker names those that are still to go until they are gone."""
    return [
        RemoveRoute(route, (*staying, *going[index + 1 :]), why, cold) for index, route in enumerate(going)
    ]


def ours(routes: Iterable[Route], marked: Iterable[Route], seen: Iterable[Route]) -> tuple[Route, ...]:
    """Those of `seen` that vmproxy set: the wanted ones, and whatever has a marked prefix."""
    wanted_routes = {(route.prefix, route.via) for route in routes}
    prefixes = {route.prefix for route in marked}
    return tuple(
        route for route in seen if (route.prefix, route.via) in wanted_routes or route.prefix in prefixes
    )


def _refuse_foreign(
    routes: tuple[Route, ...], marked: tuple[Route, ...], seen: ClientSeen, *, client: str
) -> None:
    known = set(ours(routes, marked, seen.routes))
    foreign = [route for route in seen.routes if route not in known and _inside(route.prefix, routes)]
    if foreign:
        hit = [str(item.prefix) for item in routes if any(_inside(one.prefix, [item]) for one in foreign)]
        raise Conflict(
            f"cannot route {', '.join(hit)} on {client}: other routes lie inside it",
            details=[str(route) for route in foreign],
            hint="find out who set them (another proxy, a VPN) and remove them, then run again",
        )
    for own in seen.addresses:
        if taken := next((item.prefix for item in routes if overlap(own.network, item.prefix)), None):
            raise _interface_in_the_way(own, taken, client=client)


def _inside(network: Network, routes: Iterable[Route]) -> bool:
    return any(
        network.prefixlen >= route.prefix.prefixlen and overlap(network, route.prefix) for route in routes
    )


def _interface_in_the_way(own: Interface, taken: Network, *, client: str) -> Conflict:
    """Hyper-V's Default Switch and WSL take a /20 of 172.16.0.0/12, another one after each boot."""
    by_hyperv = own.network.prefixlen == 20 and overlap(own.network, _OF_DEFAULT_SWITCH)
    return Conflict(
        f"cannot route the Service range on {client}: the network of one of its own interfaces overlaps it",
        details=[f"the host's own address {own}; the Service range is {taken}"],
        hint="it looks like the network of Hyper-V's Default Switch or of WSL, which Windows chooses anew at "
        f"each boot: Get-NetIPAddress {own.ip} names the interface; remove that switch, or move the Service "
        "range"
        if by_hyperv
        else f"Get-NetIPAddress {own.ip} (Linux: ip address) names the interface: give that network another "
        "range, or the Services",
    )
