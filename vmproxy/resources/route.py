"""The host's routes: each Service range by way of the VM. Made last, removed first.

A route is ours when the VM's marker names its prefix, or when it is just the wanted one. Any other
route that covers a Service range (but for the default route) or lies inside it is foreign.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network

from vmproxy.errors import Conflict
from vmproxy.model.plan import ABSENT, Action, Drift
from vmproxy.model.seen import HostSeen, Route

DEFAULT = "0.0.0.0/0"


def wanted(service_cidrs: Iterable[str], address: str) -> tuple[Route, ...]:
    """One route for each IPv4 Service range, by way of the VM's `address`."""
    return tuple(Route(cidr, address) for cidr in service_cidrs if ":" not in cidr)


def plan(routes: tuple[Route, ...], seen: HostSeen, *, host: str) -> tuple[Action, ...]:
    """Raises Conflict when a foreign route stands in the way."""
    marked = seen.vm.marker.routes if seen.vm and seen.vm.marker else ()
    _refuse_foreign(routes, marked, seen, host=host)
    params: dict[str, object] = {"routes": routes}
    actions = [
        _removed(route, params) for route in ours(routes, marked, seen.routes) if _unwanted(route, routes)
    ]
    for route in routes:
        there = [item for item in seen.routes if item.prefix == route.prefix]
        if there != [route]:
            actions.append(_added(route, there, params))
    if not actions and marked != routes:
        drift = Drift("marker: routes", _text(routes), _text(marked))
        actions.append(Action("host", "mark", "routes", "so that they are known as ours", (drift,), params))
    return tuple(actions)


def remove_plan(routes: tuple[Route, ...], seen: HostSeen, *, why: str, cold: bool) -> tuple[Action, ...]:
    """Take away every route of ours, before the VM behind it goes."""
    marked = seen.vm.marker.routes if seen.vm and seen.vm.marker else ()
    return tuple(
        Action(
            "host",
            "remove",
            f"route {route.prefix}",
            why,
            (Drift(f"route {route.prefix}", ABSENT, route.via),),
            {"route": route, "routes": ()},
            cold,
        )
        for route in ours(routes, marked, seen.routes)
    )


def ours(routes: Iterable[Route], marked: Iterable[Route], seen: Iterable[Route]) -> tuple[Route, ...]:
    """Those of `seen` that vmproxy set: the wanted ones, and whatever has a marked prefix."""
    wanted_routes = {(route.prefix, route.via) for route in routes}
    prefixes = {route.prefix for route in marked}
    return tuple(
        route for route in seen if (route.prefix, route.via) in wanted_routes or route.prefix in prefixes
    )


def _refuse_foreign(
    routes: tuple[Route, ...], marked: tuple[Route, ...], seen: HostSeen, *, host: str
) -> None:
    known = set(ours(routes, marked, seen.routes))
    ranges = [IPv4Network(route.prefix) for route in routes]

    def overlaps(network: IPv4Network) -> bool:
        return any(network.overlaps(wanted_range) for wanted_range in ranges)

    foreign = [
        f"{route.prefix} via {route.via or 'its own interface'}"
        for route in seen.routes
        if route not in known and route.prefix != DEFAULT and overlaps(IPv4Network(route.prefix))
    ]
    foreign += [
        f"the host's own address {address}"
        for address in seen.addresses
        if overlaps(IPv4Interface(address).network)
    ]
    if foreign:
        raise Conflict(
            f"cannot route the Service range on {host}: other routes overlap it",
            details=foreign,
            hint="find out who set them (another proxy, a VPN) and remove them, then run again",
        )


def _unwanted(route: Route, routes: tuple[Route, ...]) -> bool:
    return route.prefix not in {wanted_route.prefix for wanted_route in routes}


def _added(route: Route, there: list[Route], params: dict[str, object]) -> Action:
    """A prefix may have several routes: the one with the lower metric counts, whoever set it."""
    seen = ", ".join(" ".join(filter(None, (item.via or "on-link", item.flaw))) for item in there)
    drift = Drift(f"route {route.prefix}", route.via, seen or ABSENT)
    why = "Service traffic goes through the VM"
    verb = "replace" if there else "add"
    return Action("host", verb, f"route {route.prefix}", why, (drift,), {**params, "route": route})


def _removed(route: Route, params: dict[str, object]) -> Action:
    drift = Drift(f"route {route.prefix}", ABSENT, route.via)
    why = "the cluster has no such Service range any more"
    return Action("host", "remove", f"route {route.prefix}", why, (drift,), {**params, "route": route})


def _text(routes: Iterable[Route]) -> str:
    return ", ".join(f"{route.prefix} via {route.via}" for route in routes) or ABSENT
