"""Does the VM reach what is behind a Service? And if not, which route does it lack?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from vmproxy.engine.links import GuestLink
from vmproxy.model.net import Address, Interface, Network
from vmproxy.model.seen import ClusterSeen, Endpoint, EndpointSeen, NodeSeen, Reach, ServiceSeen
from vmproxy.model.topology import Vm
from vmproxy.resources import guestroutes

MOST_CONNECTIONS = 60
"""That one question opens from the VM, whatever the number of endpoints."""
_A_NETWORK = 3
_MOST_WARNINGS = 10
_MORE = "the VM does not reach endpoints in %d more networks"
_AT_ONCE = 30
_SECONDS = 30.0
_UNTRIED = Reach(None, silent=False, refused=False, via=None)


@dataclass(frozen=True)
class Target:
    """One port of a Service."""

    service: ServiceSeen
    port: int
    protocol: Literal["tcp", "udp"]

    def __str__(self) -> str:
        return f"{self.service.name}:{self.port}"


def targets_of(services: Iterable[ServiceSeen]) -> Iterator[Target]:
    for service in services:
        for port, protocol in service.ports:
            if protocol in {"tcp", "udp"} and service.cluster_ip.version == 4:
                yield Target(service, port, "udp" if protocol == "udp" else "tcp")


@dataclass(frozen=True)
class Ways:
    """How the VM gets to endpoints: the Nodes are in `cluster`, `node` is the one that it acts for, `routed`
    are the networks to which vmproxy sets routes in it; `mode` is podRoutes. `near`: the VM's own network,
    None where it does not matter; `inside`: the containers' subnet that it is the gateway of, None for none.
    `by_host`: the routes are its host's, which is the way to all."""

    cluster: ClusterSeen
    node: str | None = None
    routed: frozenset[Network] = frozenset()
    mode: str = "none"
    near: Network | None = None
    inside: Network | None = None
    by_host: bool = False


def ways(vm: Vm, cluster: ClusterSeen, host: Sequence[Interface]) -> Ways:
    """`host` are the host's addresses."""
    routes = (*guestroutes.to_pods(vm, cluster), *guestroutes.on_host(vm, cluster, host))
    return Ways(
        cluster,
        vm.acts_for,
        frozenset(route.prefix for route in routes),
        mode=vm.network.pod_routes,
        near=vm.address.network,
        inside=vm.inside.network if vm.inside else None,
        by_host=vm.carrier.own is not None,
    )


def unreachable(guest: GuestLink, services: Iterable[ServiceSeen], known: Ways) -> tuple[str, ...]:
    """A warning for each network of endpoints of which the VM does not reach a sample; TCP only."""
    samples: dict[_Key, dict[Endpoint, Target]] = {}
    nodes: dict[Address, str] = {}
    for target in targets_of(services):
        if target.protocol == "tcp":
            for seen in _known(target, known.node):
                few = samples.setdefault(_network(seen.ip), {})
                if len(few) < _A_NETWORK:
                    few.setdefault(_endpoint(seen, target), target)
                    nodes |= {seen.ip: seen.node} if seen.node else {}
    why = _tried(guest, _spread([list(few) for few in samples.values()]), known, nodes)
    lost = [
        f"Service {few[first]}: {why[first]}"
        for few in samples.values()
        if (first := next((endpoint for endpoint in few if why.get(endpoint)), None))
    ]
    more = len(lost) - _MOST_WARNINGS
    return tuple(lost[:_MOST_WARNINGS]) + ((_MORE % more,) if more > 0 else ())


def of_nodes(guest: GuestLink, services: Iterable[ServiceSeen], known: Ways) -> list[tuple[Target, str]]:
    """For each Node of which the VM does not reach a ready endpoint, TCP only, its Service and why. One is
    tried: what is behind a Node before the Node itself and what is on the VM's own network."""
    chosen: dict[str, tuple[Target, EndpointSeen]] = {}
    for target in targets_of(services):
        if target.protocol == "tcp":
            for seen in _known(target, known.node):
                if seen.node and (seen.node not in chosen or _near(chosen[seen.node][1], known)):
                    chosen[seen.node] = target, seen
    tried = {_endpoint(seen, target): target for target, seen in list(chosen.values())[:MOST_CONNECTIONS]}
    nodes = {seen.ip: name for name, (_, seen) in chosen.items()}
    why = _tried(guest, list(tried), known, nodes)
    return [(tried[item], f"Node {nodes[item.address]}: {text}") for item, text in why.items() if text]


def _near(seen: EndpointSeen, known: Ways) -> bool:
    """Whether no route by way of its Node leads to it."""
    node = _node_of(seen.ip, known.cluster, seen.node)
    own = node is not None and seen.ip in node.internal_ips
    return own or any(seen.ip in network for network in (known.near, known.inside) if network is not None)


_Key = tuple[int, int]


def _network(address: Address) -> _Key:
    """Of the /24 or /64 that it is in: endpoints in it are reached by the same way."""
    return address.version, int(address) >> (8 if address.version == 4 else 64)


def _spread(groups: Sequence[Sequence[Endpoint]]) -> list[Endpoint]:
    """The first of each group, then the second of each, up to as many as may be tried."""
    rounds = zip_longest(*groups)
    listed = dict.fromkeys(item for some in rounds for item in some if item is not None)
    return list(listed)[:MOST_CONNECTIONS]


def broken(guest: GuestLink, targets: Sequence[Target], known: Ways) -> list[str | None]:
    """For each target why the VM does not reach one of a sample of its ready endpoints; None when it reaches
    them, or when UDP is only silent and no route to it is missing."""
    of_target = [_sample(target, known.node) for target in targets]
    nodes = {seen.ip: seen.node for target in targets for seen in target.service.endpoints if seen.node}
    why = _tried(guest, _spread(of_target), known, nodes)
    return [next((text for item in endpoints if (text := why.get(item))), None) for endpoints in of_target]


def _sample(target: Target, node: str | None) -> list[Endpoint]:
    """A few of each network, spread over the networks."""
    networks: dict[_Key, list[Endpoint]] = {}
    for seen in _known(target, node):
        few = networks.setdefault(_network(seen.ip), [])
        if len(few) < _A_NETWORK:
            few.append(_endpoint(seen, target))
    return _spread(list(networks.values()))


def _tried(
    guest: GuestLink, endpoints: Sequence[Endpoint], known: Ways, nodes: Mapping[Address, str]
) -> dict[Endpoint, str | None]:
    """Why the VM does not reach them. What the time does not suffice for is not tried."""
    reached: list[Reach] = []
    deadline = time.monotonic() + _SECONDS
    for start in range(0, len(endpoints), _AT_ONCE):
        some = endpoints[start : start + _AT_ONCE]
        reached += guest.reach(some) if time.monotonic() < deadline else [_UNTRIED] * len(some)
    return {
        item: _why(item, reach, known, nodes.get(item.address))
        for item, reach in zip(endpoints, reached, strict=True)
    }


def _known(target: Target, node: str | None) -> Iterator[EndpointSeen]:
    """Those that are ready and that kube-proxy for that Node knows."""
    key, local = (target.port, target.protocol), target.service.local
    for seen in target.service.endpoints:
        if seen.ready and key in seen.ports and (not local or seen.node == node):
            yield seen


def _endpoint(seen: EndpointSeen, target: Target) -> Endpoint:
    return Endpoint(seen.ip, seen.ports[target.port, target.protocol], target.protocol)


def _why(endpoint: Endpoint, reach: Reach, known: Ways, node: str | None) -> str | None:
    if reach.why is None:
        return None
    missing = "" if reach.refused else _missing_route(endpoint.address, reach.via, known, node)
    if reach.silent and endpoint.protocol == "udp" and not missing:
        return None
    return f"the VM does not reach {endpoint.address}:{endpoint.port}: {reach.why}{missing}"


def _missing_route(address: Address, via: Address | None, known: Ways, name: str | None) -> str:
    """The route that the VM lacks: the pod's Node is the way to it, and packets go another way. The endpoint
    names its Node, which has the pod's address in its podCIDR or not."""
    if known.inside is not None and address in known.inside:
        return ""
    node = _node_of(address, known.cluster, name)
    if node is None or not node.internal_ips or via in node.internal_ips or address in node.internal_ips:
        return ""
    cidr = next((cidr for cidr in node.pod_cidrs if address in cidr), None)
    if known.mode == "flannel":
        return _over_vxlan(known.cluster, node, cidr, via)
    if known.mode == "endpoints":
        hop = f"{node.internal_ips[0]} (Node {node.name})"
        return f"; missing route: {address} via {hop}: the VM keeps it: see vmproxy status"
    if known.by_host and cidr in known.routed:
        return ""  # the host has that route, or plan names it
    if cidr is not None:
        do = "set network.podRoutes: nodes, or network.routes"
        if cidr in known.routed:
            do = "vmproxy sets it: run vmproxy apply"
        return f"; missing route: {cidr} via {node.internal_ips[0]} (Node {node.name}): {do}"
    if via is None:  # it is on the VM's own link
        return ""
    do = "set network.routes" if known.by_host else "set network.podRoutes: endpoints, or network.routes"
    return (
        f"; missing route: its range via {node.internal_ips[0]} (Node {node.name}, whose podCIDR does not "
        f"hold it): {do}"
    )


def _over_vxlan(cluster: ClusterSeen, node: NodeSeen, cidr: Network | None, via: Address | None) -> str:
    """`cidr` is the Node's range that holds the endpoint, `via` where the VM sends to it."""
    if cidr is None:  # plan and doctor say which setting helps
        return ""
    if via != cidr.network_address:
        return f"; missing route: {cidr} over VXLAN (Node {node.name}): the VM keeps it: see vmproxy status"
    return (
        f"; the VM sends it over VXLAN to UDP port {cluster.vxlan_port} of Node {node.name}, which drops it "
        "if net.ipv4.conf.*.rp_filter is 1 there, or flannel uses another port"
    )


def _node_of(address: Address, cluster: ClusterSeen, name: str | None) -> NodeSeen | None:
    """Without a name, the Node whose podCIDR holds the address."""
    if name is not None:
        return next((node for node in cluster.nodes if node.name == name), None)
    holding = (node for node in cluster.nodes if any(address in cidr for cidr in node.pod_cidrs))
    return next(holding, None)
