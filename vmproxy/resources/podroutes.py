"""Routes to endpoints one by one: what keeps them in the guest, and which setting a cluster needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vmproxy.model.finding import Finding
from vmproxy.model.names import CA, POD_ROUTES, POD_ROUTES_CONFIG, ROUTES_UNIT, UNITS
from vmproxy.model.net import Interface, Network
from vmproxy.model.seen import ClusterSeen, EndpointSeen, GuestSeen, LeftOut, NodeSeen, ServiceSeen
from vmproxy.model.steps import Follow, ManagedFile
from vmproxy.model.topology import Vm
from vmproxy.util import assets

_NEVER = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""No pod has an address there: this network, loopback, link-local, multicast and what is reserved."""
_CHECK = "pod routes"
_PATIENCE = 15.0
"""Seconds that the guest may take to reach the API server again."""
_WHY = {
    "unknown": "the VM does not know that Node's address: run vmproxy apply",
    "elsewhere": "that Node is not on the VM's network: set network.routes",
    "refused": "no route may lead to that address",
}


def files(vm: Vm, cluster: ClusterSeen) -> dict[str, ManagedFile]:
    """Also without routes to keep: what was kept before is removed then."""
    follow = Follow(restart=(ROUTES_UNIT,))
    unit = assets.render(
        f"guest/{ROUTES_UNIT}.j2",
        program=POD_ROUTES,
        uses=[POD_ROUTES, POD_ROUTES_CONFIG],
        keeps=_keeps(vm),
    )
    return {
        POD_ROUTES: ManagedFile.of(assets.text("guest/podroutes.py"), mode="0755", follow=follow),
        POD_ROUTES_CONFIG: ManagedFile.of(json.dumps(_config(vm, cluster), indent=1) + "\n", follow=follow),
        f"{UNITS}/{ROUTES_UNIT}": ManagedFile.of(unit, follow=Follow(restart=(ROUTES_UNIT,), reload=True)),
    }


def trouble(seen: GuestSeen) -> Iterator[str]:
    """What no step of ours repairs now."""
    state = seen.pod_routes
    if state is None or state.mode == "none":
        return
    late = seen.now - state.since
    if state.api and late > _PATIENCE:
        yield f"the VM's routes to endpoints are not kept up to date for {late:.0f} s: {state.api}"
    if state.failed:
        yield (f"{state.failed} routes to endpoints are not set: see journalctl -u {ROUTES_UNIT} in the VM")
    yield from map(_left, state.left)
    if state.more:
        yield f"no route to endpoints on {state.more} more Nodes"


def findings(
    vm: Vm, cluster: ClusterSeen, services: Iterable[ServiceSeen], host: Iterable[Interface]
) -> tuple[Finding, ...]:
    """Why pods are not reached with this setting, with one endpoint as the example, and what helps. `host`
    are the host's addresses."""
    near = vm.near(host)
    nodes = {node.name: node for node in cluster.nodes}
    strays: dict[str, EndpointSeen] = {}
    distant: dict[str, EndpointSeen] = {}
    for seen in _endpoints(services):
        node = nodes.get(seen.node or "")
        if node is None or _aside(seen, node, vm, near):
            continue
        if vm.neighbour(node.internal_ips, near) is None:
            distant.setdefault(node.name, seen)
        elif not any(seen.ip in cidr for cidr in node.pod_cidrs):
            strays.setdefault(node.name, seen)
    mode = vm.network.pod_routes
    found = [_stray(vm, nodes, strays)] if strays and mode == "nodes" else []
    return (*found, _distant(vm, distant)) if distant and mode != "none" else tuple(found)


def _keeps(vm: Vm) -> bool:
    return vm.network.pod_routes == "endpoints"


def _config(vm: Vm, cluster: ClusterSeen) -> dict[str, Any]:
    """What podroutes.py reads."""
    if not _keeps(vm):
        return {"mode": "none"}
    own = vm.network
    refused = [str(cidr) for cidr in cluster.service_cidrs if cidr.version == 4]
    refused += [f"{item}/32" for item in (*cluster.server_addresses, *own.dns) if item.version == 4]
    config = {
        "mode": own.pod_routes,
        "server": cluster.server,
        "ca": CA,
        "nodes": {node.name: str(vm.neighbour(node.internal_ips) or "") for node in _by_name(cluster)},
        "own": [str(item) for node in _by_name(cluster) for item in node.internal_ips if item.version == 4],
        "aside": [*map(str, _direct(vm)), *(str(route.to) for route in own.routes)],
        "refused": [*_NEVER, *refused],
    }
    return config | ({"tlsServerName": cluster.tls_server_name} if cluster.tls_server_name else {})


def _direct(vm: Vm) -> tuple[Network, ...]:
    """The networks that the VM itself is on."""
    return (vm.address.network, *((vm.inside.network,) if vm.inside else ()))


def _by_name(cluster: ClusterSeen) -> list[NodeSeen]:
    return sorted(cluster.nodes, key=lambda node: node.name)


def _left(item: LeftOut) -> str:
    more = f" and {item.count - 1} more endpoints" if item.count > 1 else ""
    return f"no route to {item.address}{more} on Node {item.node}: {_WHY[item.why]}"


def _endpoints(services: Iterable[ServiceSeen]) -> Iterator[EndpointSeen]:
    return (seen for service in services for seen in service.endpoints if seen.ip.version == 4)


def _aside(seen: EndpointSeen, node: NodeSeen, vm: Vm, near: Sequence[Interface]) -> bool:
    """Whether it is the Node itself, or is reached without a route by way of the Node."""
    routed = any(seen.ip in route.to for route in vm.network.routes)
    inside = vm.inside is not None and seen.ip in vm.inside.network
    direct = inside or any(seen.ip in own.network or own.ip in node.internal_ips for own in near)
    return routed or direct or seen.ip in node.internal_ips


def _stray(vm: Vm, nodes: dict[str, NodeSeen], strays: dict[str, EndpointSeen]) -> Finding:
    name, seen = min(strays.items())
    ranges = ", ".join(str(cidr) for cidr in nodes[name].pod_cidrs if cidr.version == 4)
    why = f"whose podCIDR {ranges} does not hold it" if ranges else "which has no podCIDR"
    detail = f"{seen.ip} is on {name}, {why}"
    helps = "set network.routes" if vm.carrier.own else "use podRoutes: endpoints"
    return Finding(_CHECK, ok=False, detail=detail, next_step=helps)


def _distant(vm: Vm, distant: dict[str, EndpointSeen]) -> Finding:
    name, seen = min(distant.items())
    detail = f"{seen.ip} is on {name}, which is not on {vm.near_what}"
    return Finding(_CHECK, ok=False, detail=detail, next_step="set network.routes")
