"""Routes to pods that the guest keeps by itself, and which setting a cluster needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from vmproxy.model.finding import Finding
from vmproxy.model.names import CA, FLANNEL, POD_ROUTES, POD_ROUTES_CONFIG, ROUTES_UNIT, UNITS
from vmproxy.model.net import Address, Interface, Network
from vmproxy.model.seen import ClusterSeen, EndpointSeen, GuestSeen, LeftOut, NodeSeen, ServiceSeen
from vmproxy.model.steps import Follow, ManagedFile
from vmproxy.model.topology import Vm
from vmproxy.util import assets

_NEVER = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""No pod has an address there: this network, loopback, link-local, multicast and what is reserved."""
_CHECK = "pod routes"
_PATIENCE = 15.0
"""Seconds that the guest may take to reach the API server again."""
_VXLAN = "vxlan"
_STRICT = ("Red Hat", "CentOS", "Rocky", "AlmaLinux", "Oracle Linux")
"""Systems that come with rp_filter 1."""
_WHY = {
    "unknown": "the VM does not know that Node's address: run vmproxy apply",
    "elsewhere": "that Node is not on the VM's network: set network.routes",
    "refused": "no route may lead to that address",
    "foreign": "that Node's annotations name no VXLAN of flannel's: set network.routes",
    "apart": "that Node's VXLAN has another VNI than most Nodes': set network.routes",
    "taken": "another Node has the same podCIDR, or VtepMAC in flannel's annotations: correct one of them",
}


def files(vm: Vm, cluster: ClusterSeen) -> dict[str, ManagedFile]:
    """Also without routes to keep: what was kept before is removed then."""
    follow = Follow(restart=(ROUTES_UNIT,))
    unit = assets.render(
        f"guest/{ROUTES_UNIT}.j2",
        program=POD_ROUTES,
        uses=[POD_ROUTES, FLANNEL, POD_ROUTES_CONFIG],
        keeps=_keeps(vm),
    )
    return {
        POD_ROUTES: ManagedFile.of(assets.text("guest/podroutes.py"), mode="0755", follow=follow),
        FLANNEL: ManagedFile.of(assets.text("guest/flannel.py"), follow=follow),
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
        yield f"the VM's routes to pods are not kept up to date for {late:.0f} s: {state.api}"
    if state.failed:
        yield (f"{state.failed} routes to pods are not set: see journalctl -u {ROUTES_UNIT} in the VM")
    yield from map(_left, state.left)
    if state.more:
        yield f"no route to pods on {state.more} more Nodes"


def notes(vm: Vm, cluster: ClusterSeen) -> Iterator[str]:
    """What flannel's VXLAN needs, and cannot be seen from here."""
    if vm.network.pod_routes != "flannel":
        return
    yield f"the VM sends to UDP port {cluster.vxlan_port}{'' if cluster.flannel_port else _ASSUMED}"
    strict = [node for node in _by_name(cluster) if _is_peer(node) and node.system.startswith(_STRICT)]
    if strict:
        count = f"{len(strict)} Nodes, such as" if len(strict) > 1 else "Node"
        yield (
            f"{count} {strict[0].name} ({strict[0].system}): net.ipv4.conf.*.rp_filter must be 2 or 0 there: "
            "with 1, that system's default, a Node drops what the VM sends"
        )


_ASSUMED = ", as no ConfigMap of flannel's names one: set cluster.flannelPort if the Nodes use another"


def findings(
    vm: Vm, cluster: ClusterSeen, services: Iterable[ServiceSeen], host: Iterable[Interface]
) -> tuple[Finding, ...]:
    """Why pods are not reached with this setting: for each reason and way out, one endpoint as the example.
    `host` are the host's addresses."""
    near = vm.near(host)
    nodes = {node.name: node for node in cluster.nodes}
    peers = any(map(_is_peer, cluster.nodes))
    lost: dict[tuple[int, str], list[Finding]] = {}
    for seen in _endpoints(services):
        node = nodes.get(seen.node or "")
        if node is None or _aside(seen, node, vm, near):
            continue
        held = any(seen.ip in cidr for cidr in node.pod_cidrs)
        if vm.network.pod_routes == "flannel":
            via = None if peers else vm.neighbour(node.internal_ips, near)
            why = _not_over_vxlan(seen, node, via, held=held)
        else:
            why = _lost(seen, node, vm, near, held=held)
        if why is not None:
            reason, finding = why
            lost.setdefault((_REASONS.index(reason), finding.next_step), []).append(finding)
    return tuple(min(some, key=lambda item: item.detail) for _, some in sorted(lost.items()))


_Reason = Literal["stray", "distant", "foreign"]
_REASONS: tuple[_Reason, ...] = ("stray", "distant", "foreign")
"""The order in which they are shown."""


def _lost(
    seen: EndpointSeen, node: NodeSeen, vm: Vm, near: Sequence[Interface], *, held: bool
) -> tuple[_Reason, Finding] | None:
    """With routes by way of the Nodes. None: it is reached, or nobody knows."""
    mode, where = vm.network.pod_routes, f"{seen.ip} is on {node.name}"
    if mode != "none" and vm.neighbour(node.internal_ips, near) is None:
        over = _is_peer(node) and held and not vm.carrier.own
        return "distant", _finding(f"{where}, which is not on {vm.near_what}", "flannel" if over else None)
    if mode == "nodes" and not held:
        return "stray", _finding(f"{where}, {_not_held(node)}", None if vm.carrier.own else "endpoints")
    return None


def _not_over_vxlan(
    seen: EndpointSeen, node: NodeSeen, via: Address | None, *, held: bool
) -> tuple[_Reason, Finding] | None:
    """`via`: how all pods may be reached with another setting; None: some Nodes need this one."""
    where = f"{seen.ip} is on {node.name}"
    if not held:
        return "stray", _finding(f"{where}, {_not_held(node)}", "endpoints" if via else None)
    if _is_peer(node):
        return None
    what = f"whose flannel has the back-end {node.flannel}" if node.flannel else "which has no flannel"
    return "foreign", _finding(f"{where}, {what}", "nodes" if via else None)


def _finding(detail: str, helps: str | None) -> Finding:
    """`helps`: a value of podRoutes; None: no other one does."""
    next_step = f"use podRoutes: {helps}" if helps else "set network.routes"
    return Finding(_CHECK, ok=False, detail=detail, next_step=next_step)


def _not_held(node: NodeSeen) -> str:
    ranges = ", ".join(str(cidr) for cidr in node.pod_cidrs if cidr.version == 4)
    return f"whose podCIDR {ranges} does not hold it" if ranges else "which has no podCIDR"


def _is_peer(node: NodeSeen) -> bool:
    return node.flannel == _VXLAN


def _keeps(vm: Vm) -> bool:
    return vm.network.pod_routes in {"endpoints", "flannel"}


def _config(vm: Vm, cluster: ClusterSeen) -> dict[str, Any]:
    """What podroutes.py reads."""
    if not _keeps(vm):
        return {"mode": "none"}
    refused = [*map(str, _direct(vm)), *(str(cidr) for cidr in cluster.service_cidrs if cidr.version == 4)]
    refused += [f"{item}/32" for item in (*cluster.server_addresses, *vm.network.dns) if item.version == 4]
    config = {
        "mode": vm.network.pod_routes,
        "server": cluster.server,
        "ca": CA,
        **(_peers(vm, cluster) if vm.network.pod_routes == "flannel" else _nodes(vm, cluster)),
        "refused": [*_NEVER, *refused],
    }
    return config | ({"tlsServerName": cluster.tls_server_name} if cluster.tls_server_name else {})


def _direct(vm: Vm) -> tuple[Network, ...]:
    """The networks that the VM itself is on."""
    return (vm.address.network, *((vm.inside.network,) if vm.inside else ()))


def _nodes(vm: Vm, cluster: ClusterSeen) -> dict[str, Any]:
    """With `endpoints`: where each Node is."""
    listed = _by_name(cluster)
    return {
        "nodes": {node.name: str(vm.neighbour(node.internal_ips) or "") for node in listed},
        "own": [str(item) for node in listed for item in node.internal_ips if item.version == 4],
        "aside": [*map(str, _direct(vm)), *(str(route.to) for route in vm.network.routes)],
    }


def _peers(vm: Vm, cluster: ClusterSeen) -> dict[str, Any]:
    """With `flannel`: the device's own part. The Node that the VM acts for is its host, and no peer."""
    return {
        "local": str(vm.address.ip),
        "port": cluster.vxlan_port,
        "node": vm.node,
        "aside": [str(route.to) for route in vm.network.routes],
    }


def _by_name(cluster: ClusterSeen) -> list[NodeSeen]:
    return sorted(cluster.nodes, key=lambda node: node.name)


def _left(item: LeftOut) -> str:
    if item.count == 0:
        return f"no route to the pods of Node {item.node}: {_WHY[item.why]}"
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
