"""Values for tests, from the text that a person writes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from vmproxy.model.net import Route
from vmproxy.model.seen import NodeSeen


def route(prefix: str, via: str, flaw: str = "") -> Route:
    return Route(ip_network(prefix), ip_address(via) if via else None, flaw)


def node(name: str, address: str, *pod_cidrs: str) -> NodeSeen:
    return NodeSeen(name, (ip_address(address),), tuple(map(ip_network, pod_cidrs)))
