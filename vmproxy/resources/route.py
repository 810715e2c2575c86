"""The host's routes: each Service range by way of the VM. Made last, removed first.

A route is ours when the VM's marker names its prefix, or when it is just the wanted one. Any other
route that covers a Service range (but for the default route) or lies inside it is foreign.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmproxy.errors import Conflict
from vmproxy.model.net import Address, Network, Route, is_default, overlap
from vmproxy.model.seen import ClientSeen
from vmproxy.model.steps import MarkRoutes, RemoveRoute, RouteStep, SetRoute


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
    why = "the cluster has no such Service range any more"
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

    def overlaps(network: Network) -> bool:
        return any(overlap(network, route.prefix) for route in routes)

    foreign = [
        str(route)
        for route in seen.routes
        if route not in known and not is_default(route.prefix) and overlaps(route.prefix)
    ]
    foreign += [f"the host's own address {own}" for own in seen.addresses if overlaps(own.network)]
    if foreign:
        raise Conflict(
            f"cannot route the Service range on {client}: other routes overlap it",
            details=foreign,
            hint="find out who set them (another proxy, a VPN) and remove them, then run again",
        )
