"""Does the VM reach what is behind a Service? And if not, which route does it lack?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from vmproxy.places.guest import Endpoint, Guest
from vmproxy.seen import ClusterSeen, ServiceSeen

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
    """For each target why the VM does not reach one of its ready endpoints; None when it reaches all."""
    of_target = [_endpoints(target) for target in targets]
    every = list(dict.fromkeys(endpoint for endpoints in of_target for endpoint in endpoints))
    why = dict(zip(every, guest.unreachable(every), strict=True)) if every else {}
    return [
        next((_text(item, reason, cluster) for item in endpoints if (reason := why[item])), None)
        for endpoints in of_target
    ]


def _endpoints(target: Target) -> list[Endpoint]:
    key = (target.port, target.protocol)
    return [
        Endpoint(endpoint.ip, endpoint.ports[key], target.protocol)
        for endpoint in target.service.endpoints
        if endpoint.ready and key in endpoint.ports
    ]


def _text(endpoint: Endpoint, why: str, cluster: ClusterSeen) -> str:
    missing = _missing_route(endpoint.address, cluster)
    return f"the VM does not reach {endpoint.address}:{endpoint.port}: {why}{missing}"


def _missing_route(address: str, cluster: ClusterSeen) -> str:
    """The route that the VM may lack: the pod's Node is the way to it."""
    for node in cluster.nodes:
        for cidr in node.pod_cidrs:
            if ":" not in cidr and IPv4Address(address) in IPv4Network(cidr) and node.internal_ips:
                return (
                    f"; missing route: {cidr} via {node.internal_ips[0]} (Node {node.name}): "
                    "set network.podRoutes: nodes, or network.routes"
                )
    return ""
