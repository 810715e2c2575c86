"""New-NetIPAddress -DefaultGateway."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from tests.winhost.engine import Call
from tests.winhost.net.cim import invalid, win32
from tests.winhost.net.kernel import IPInterface
from tests.winhost.net.state import Route, active_routes, add_active, network
from tests.winhost.state import Host

CLASS = "MSFT_NetIPAddress"


def check(host: Host, call: Call, wanted: IPInterface, link: str) -> None:
    """It must be a neighbour, and not the default gateway already."""
    if not call.has("DefaultGateway"):
        return
    text = str(call.get("DefaultGateway"))
    try:
        hop = ipaddress.ip_address(text)
    except ValueError:
        invalid(CLASS, "DefaultGateway", text)
    if hop not in wanted.network:
        raise win32(87, "Invalid parameter DefaultGateway", CLASS)
    if any(one.key == _route(hop, link).key for one in active_routes(host)):
        raise win32(87, "Instance DefaultGateway already exists", CLASS)


def add(host: Host, call: Call, link: str, chosen: Iterable[str]) -> None:
    if not call.has("DefaultGateway"):
        return
    route = _route(ipaddress.ip_address(str(call.get("DefaultGateway"))), link)
    if "ActiveStore" in chosen:
        add_active(host, route)
    if "PersistentStore" in chosen:
        network(host).routes.append(replace(route, store="PersistentStore"))


def _route(hop: ipaddress.IPv4Address | ipaddress.IPv6Address, link: str) -> Route:
    everything = ipaddress.ip_network("0.0.0.0/0" if hop.version == 4 else "::/0")
    return Route("ActiveStore", link, everything, str(hop))
