"""Does the VM reach what is behind a Service? And if not, which route does it lack?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from vmproxy.places.guest import Guest
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
    found = []
    for target in {str(target): target for target in list(samples.values())[:_MOST_NETWORKS]}.values():
        why = broken_endpoint(guest, target, cluster)
        if why:
            found.append(f"Service {target}: {why}")
    return tuple(found)


def broken_endpoint(guest: Guest, target: Target, cluster: ClusterSeen) -> str | None:
    """Why the VM does not reach a ready endpoint of the target; None when it reaches them all."""
    for endpoint in target.service.endpoints:
        port = endpoint.ports.get((target.port, target.protocol))
        if endpoint.ready and port:
            why = guest.endpoint_reachable(endpoint.ip, port, target.protocol)
            if why:
                missing = _missing_route(endpoint.ip, cluster)
                return f"the VM does not reach {endpoint.ip}:{port}: {why}{missing}"
    return None


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
