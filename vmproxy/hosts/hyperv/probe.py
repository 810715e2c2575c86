"""Input for probe.ps1 and watch.ps1, and their output and resolve.ps1's."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from vmproxy.hosts.hyperv.facts import items
from vmproxy.hosts.protocols import Answer, Connection, Resolved
from vmproxy.model.net import Address, addresses

_WORDS = {
    "ConnectionRefused": "refused",
    "ConnectionReset": "refused",
    "HostUnreachable": "no route to host",
    "NetworkUnreachable": "no route to host",
    "TimedOut": "no answer within 5 s",
    "Silence": "no answer to 3 datagrams",
}
"""By .NET's own names, which are not localized."""
_NO_NAME = {
    "DNS_ERROR_RCODE_NAME_ERROR": "no such name",
    "HostNotFound": "no such name",
    "NoData": "no such name",
    "TryAgain": "no answer",
    "WSATRY_AGAIN": "no answer",
    "ERROR_TIMEOUT": "no answer",
    "DNS_ERROR_RCODE_SERVER_FAILURE": "the server failed",
}
"""By Windows' names of its errors."""


def question(connection: Connection) -> dict[str, Any]:
    return {
        "protocol": connection.protocol,
        "address": str(connection.address),
        "port": connection.port,
        "payload": base64.b64encode(connection.payload).decode(),
    }


def answers_of(lines: Iterable[Mapping[str, Any]], *, container: str | None = None) -> list[Answer]:
    return [Answer(line["ok"], _detail(line), _next_hop(line["via"]), container) for line in lines]


def resolved(line: Mapping[str, Any]) -> Resolved:
    ways = {"Resolve-DnsName": line["dnsClient"], "GetHostAddresses": line["addrInfo"]}
    return Resolved(str(line["name"]), {way: _found(answer) for way, answer in ways.items()})


def _found(answer: Mapping[str, Any]) -> tuple[Address, ...] | str:
    if "error" in answer:
        error = str(answer["error"]).strip()
        return _NO_NAME.get(error, error)
    return tuple(addresses(map(str, items(answer["addresses"])))) or "no IPv4 address"


def _next_hop(via: str | None) -> Address | None:
    return ip_address(via) if via else None


def lines_of(seen: Mapping[str, Any]) -> list[Any]:
    return items(seen["console"])


def _detail(line: Mapping[str, Any]) -> str:
    if line["ok"]:
        return f"answered in {line['ms']:.1f} ms"
    error = str(line["error"]).strip()
    return _WORDS.get(error, error)
