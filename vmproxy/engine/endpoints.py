"""Does the VM reach what is behind a Service? And if not, which route does it lack?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from vmproxy.guest.connection import Guest
from vmproxy.guest.wire import Endpoint, Reach
from vmproxy.model.seen import ClusterSeen, ServiceSeen

_MOST_NETWORKS = 20


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
            if protocol in {"tcp", "udp"} and ":" not in service.cluster_ip:
                yield Target(service, port, "udp" if protocol == "udp" else "tcp")


def unreachable(guest: Guest, services: Iterable[ServiceSeen], cluster: ClusterSeen) -> tuple[str, ...]:
    """A warning for each network of endpoints of which the VM does not reach a sample; TCP only."""
    samples: dict[str, Target] = {}
    for target in targets_of(services):
        if target.protocol == "tcp":
            for endpoint in target.service.endpoints:
                if endpoint.ready:
                    samples.setdefault(str(IPv4Network(f"{endpoint.ip}/24", strict=False)), target)
    targets = list({str(target): target for target in list(samples.values())[:_MOST_NETWORKS]}.values())
    return tuple(
        f"Service {target}: {why}"
        for target, why in zip(targets, broken(guest, targets, cluster), strict=True)
        if why
    )


def broken(guest: Guest, targets: Sequence[Target], cluster: ClusterSeen) -> list[str | None]:
    """For each target why the VM does not reach one of its ready endpoints; None when it reaches all,
    or when UDP is only silent and no route to it is missing."""
    of_target = [_endpoints(target) for target in targets]
    every = list(dict.fromkeys(endpoint for endpoints in of_target for endpoint in endpoints))
    reached = guest.reach(every) if every else []
    why = {item: _why(item, reach, cluster) for item, reach in zip(every, reached, strict=True)}
    return [next((text for item in endpoints if (text := why[item])), None) for endpoints in of_target]


def _endpoints(target: Target) -> list[Endpoint]:
    key = (target.port, target.protocol)
    return [
        Endpoint(endpoint.ip, endpoint.ports[key], target.protocol)
        for endpoint in target.service.endpoints
        if endpoint.ready and key in endpoint.ports
    ]


def _why(endpoint: Endpoint, reach: Reach, cluster: ClusterSeen) -> str | None:
    if reach.why is None:
        return None
    missing = "" if reach.refused else _missing_route(endpoint.address, reach.via, cluster)
    if reach.silent and endpoint.protocol == "udp" and not missing:
        return None
    return f"the VM does not reach {endpoint.address}:{endpoint.port}: {reach.why}{missing}"


def _missing_route(address: str, via: str | None, cluster: ClusterSeen) -> str:
    """The route that the VM lacks: the pod's Node is the way to it, and packets go another way."""
    for node in cluster.nodes:
        for cidr in node.pod_cidrs:
            if ":" in cidr or IPv4Address(address) not in IPv4Network(cidr) or not node.internal_ips:
                continue
            if via not in node.internal_ips:
                return (
                    f"; missing route: {cidr} via {node.internal_ips[0]} (Node {node.name}): "
                    "set network.podRoutes: nodes, or network.routes"
                )
    return ""
