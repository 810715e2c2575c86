"""Routes to pods: in the guest, or on the host where the VM is on a switch of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network

from vmproxy.errors import UsageError
from vmproxy.model.names import ROUTES
from vmproxy.model.net import Address, Interface, Network, Route, overlap
from vmproxy.model.seen import ClusterSeen, GuestSeen, NodeSeen
from vmproxy.model.steps import Follow, ManagedFile, SetGuestRoute
from vmproxy.model.topology import Vm

_WIDEST = 8
"""A pod range with a shorter prefix is a mistake: it would take all traffic with it."""
_NAMED = 3
_DEFAULT = ip_network("0.0.0.0/0")


def wanted(vm: Vm, cluster: ClusterSeen, host: Iterable[Interface]) -> tuple[Route, ...]:
    """The default route, which the seed sets at the first boot, and those to pods and to the containers of
    the host, whose own addresses are `host`."""
    return (Route(_DEFAULT, vm.gateway), *to_pods(vm, cluster, host))


def _to_containers(vm: Vm, host: Iterable[Interface]) -> Iterator[Route]:
    """None to containers on the VM's own network, or where it has an address in theirs."""
    if vm.containers is None or vm.inside or overlap(vm.containers.subnet, vm.address.network):
        return
    if via := vm.host_address(host):
        yield Route(vm.containers.subnet, via)


def to_pods(vm: Vm, cluster: ClusterSeen, host: Iterable[Interface] = ()) -> tuple[Route, ...]:
    """The guest's, with the one to the containers of the host, whose own addresses are `host`; none where it
    is on a switch of its own, as all else is behind its gateway there."""
    return () if vm.carrier.own else _to_pods(vm, cluster, (vm.address,), _to_containers(vm, host))


def on_host(vm: Vm, cluster: ClusterSeen, host: Sequence[Interface]) -> tuple[Route, ...]:
    """The host's, whose addresses are `host`: none unless the VM is on a switch of its own."""
    return _to_pods(vm, cluster, vm.near(host)) if vm.carrier.own else ()


def check_on_host(vm: Vm, host: Sequence[Interface]) -> None:
    """Raises UsageError for a route of the site file that the host cannot have."""
    near = vm.near(host)
    for route in vm.network.routes if vm.carrier.own else ():
        if not any(route.via in item.network and route.via != item.ip for item in near):
            raise _not_on_host(vm, route.to, f"its next hop {route.via} is on none of its networks")
        if any(overlap(route.to, item.network) for item in near):
            raise _not_on_host(vm, route.to, "one of its own networks overlaps it")


def _not_on_host(vm: Vm, to: Network, why: str) -> UsageError:
    return UsageError(
        f"cannot route {to} on {vm.carrier.name}: {why}",
        hint="correct hosts[].network.routes: with switch.internal they are the host's",
    )


def _to_pods(
    vm: Vm, cluster: ClusterSeen, near: Sequence[Interface], others: Iterable[Route] = ()
) -> tuple[Route, ...]:
    """The site file's routes, `others`, and with podRoutes one to each Node's pods where the Node is on a
    network of `near`, the addresses of the machine that has the routes."""
    listed = [Route(route.to, route.via) for route in vm.network.routes] + [*others]
    routes: dict[Network, Route] = {route.prefix: route for route in listed}
    if vm.network.pod_routes == "nodes":
        for node in cluster.nodes:
            via = vm.neighbour(node.internal_ips, near)
            for cidr in _ipv4(node):
                if via and not _holds(vm, cidr) and not _refused(cidr, vm, cluster, near):
                    routes.setdefault(cidr, Route(cidr, via))
    return tuple(routes[prefix] for prefix in sorted(routes, key=str))


def _holds(vm: Vm, cidr: Network) -> bool:
    """Whether the VM itself is on that network of pods, as their gateway."""
    return vm.inside is not None and cidr.version == 4 and cidr.subnet_of(vm.inside.network)


def gateway(seen: GuestSeen) -> Address | None:
    """Of the default route that the guest uses; None: it has none."""
    return next((route.via for route in seen.routes if route.prefix == _DEFAULT), None)


def files(routes: Sequence[Route]) -> dict[str, ManagedFile]:
    listed = [{"prefix": str(route.prefix), "via": str(route.via or "")} for route in routes]
    return {ROUTES: ManagedFile.of(json.dumps(listed, indent=2) + "\n", follow=Follow(setup=("routes",)))}


def plan(routes: Sequence[Route], seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[SetGuestRoute]:
    if any("routes" in follow.setup for follow in follows):
        return
    there = {route.prefix: route.via for route in seen.routes}
    wanted = {route.prefix: route.via for route in routes}
    for prefix, via in wanted.items():
        if prefix not in there or there[prefix] != via:
            yield SetGuestRoute(prefix, via, there.get(prefix))
    for prefix, via in there.items():
        if prefix not in wanted:
            yield SetGuestRoute(prefix, None, via)


def warnings(vm: Vm, cluster: ClusterSeen, host: Sequence[Interface]) -> Iterator[str]:
    """One for each reason, whatever the number of Nodes. `host` are the host's addresses."""
    for route in vm.network.routes:
        if any(overlap(route.to, taken) for taken in cluster.service_cidrs):
            yield f"network.routes: {route.to} overlaps a Service range, which the VM itself serves"
    if vm.network.pod_routes != "nodes":
        return
    near = vm.near(host)
    by_reason: dict[str, list[str]] = {}
    for node in cluster.nodes:
        for why in dict.fromkeys(_without_route(node, vm, cluster, near)):
            by_reason.setdefault(why, []).append(node.name)
    for why, nodes in by_reason.items():
        yield f"no route to the pods of {_named(nodes)}: {why}"


def _without_route(node: NodeSeen, vm: Vm, cluster: ClusterSeen, near: Sequence[Interface]) -> Iterator[str]:
    ranges = _ipv4(node)
    if any(own.ip in node.internal_ips for own in near):  # its pods are on that machine itself
        return
    if ranges and all(_holds(vm, cidr) for cidr in ranges):
        return
    if not ranges:
        helps = "set network.routes" if vm.carrier.own else "use podRoutes: endpoints"
        yield f"it has no IPv4 podCIDR, as with some network plugins: {helps}"
    elif vm.neighbour(node.internal_ips, near) is None:
        yield f"its address is not on {vm.near_what}"
    else:
        yield from (why for cidr in ranges if (why := _refused(cidr, vm, cluster, near)))


def _named(nodes: Sequence[str]) -> str:
    if len(nodes) == 1:
        return f"Node {nodes[0]}"
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return f"{len(nodes)} Nodes ({', '.join(nodes[:_NAMED])}{more})"


def _ipv4(node: NodeSeen) -> list[Network]:
    return [cidr for cidr in node.pod_cidrs if cidr.version == 4]


def _refused(cidr: Network, vm: Vm, cluster: ClusterSeen, near: Sequence[Interface]) -> str | None:
    """Why no route may lead there, whoever registered the Node: it would take away what the VM needs."""
    if cidr.prefixlen < _WIDEST:
        return f"its podCIDR {cidr} is wider than a /{_WIDEST}"
    if cidr.is_loopback or cidr.is_multicast or cidr.is_link_local:
        return f"its podCIDR {cidr} is no range for pods"
    if overlap(cidr, vm.address.network):
        return f"its podCIDR {cidr} overlaps the VM's own network"
    if any(overlap(cidr, item.network) for item in near):
        return f"its podCIDR {cidr} overlaps a network of the host"
    if any(overlap(cidr, taken) for taken in cluster.service_cidrs):
        return f"its podCIDR {cidr} overlaps a Service range"
    if any(address in cidr for address in (*cluster.server_addresses, *vm.network.dns)):
        return f"its podCIDR {cidr} holds the API server or a name server"
    return None
