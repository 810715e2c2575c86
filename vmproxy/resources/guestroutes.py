"""The guest's own routes: how the VM reaches pods that its default gateway does not know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from vmproxy.model.names import ROUTES
from vmproxy.model.net import Address, Network, Route
from vmproxy.model.seen import ClusterSeen, GuestSeen, NodeSeen
from vmproxy.model.steps import Follow, ManagedFile, SetGuestRoute
from vmproxy.model.topology import Vm


def wanted(vm: Vm, cluster: ClusterSeen) -> tuple[Route, ...]:
    """The site file's routes, and with podRoutes one to each Node's pods where the Node is on the network."""
    routes: dict[Network, Route] = {route.to: Route(route.to, route.via) for route in vm.network.routes}
    if vm.network.pod_routes == "nodes":
        for node in cluster.nodes:
            via = _on_network(node, vm)
            for cidr in node.pod_cidrs:
                if via and cidr.version == via.version:
                    routes.setdefault(cidr, Route(cidr, via))
    return tuple(routes[prefix] for prefix in sorted(routes, key=str))


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


def warnings(vm: Vm, cluster: ClusterSeen) -> Iterator[str]:
    if vm.network.pod_routes != "nodes":
        return
    for node in cluster.nodes:
        if node.pod_cidrs and _on_network(node, vm) is None:
            yield f"no route to the pods of Node {node.name}: its address is not on the VM's network"


def _on_network(node: NodeSeen, vm: Vm) -> Address | None:
    """The Node's address on the VM's network, if it has one."""
    own = vm.network.address
    return next((item for item in node.internal_ips if item in own.network and item != own.ip), None)
