"""Input for probe.ps1 and watch.ps1, and their output."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from vmproxy.hosts.hyperv.seen import items
from vmproxy.hosts.protocols import Answer, Connection
from vmproxy.model.net import Address

_WORDS = {
    "ConnectionRefused": "refused",
    "ConnectionReset": "refused",
    "HostUnreachable": "no route to host",
    "NetworkUnreachable": "no route to host",
    "TimedOut": "no answer within 5 s",
    "Silence": "no answer to 3 datagrams",
}
"""By .NET's own names, which are not localized."""


def question(connection: Connection) -> dict[str, Any]:
    return {
        "protocol": connection.protocol,
        "address": str(connection.address),
        "port": connection.port,
        "payload": base64.b64encode(connection.payload).decode(),
    }


def answers_of(lines: Iterable[Mapping[str, Any]], *, container: str | None = None) -> list[Answer]:
    return [Answer(line["ok"], _detail(line), _next_hop(line["via"]), container) for line in lines]


def _next_hop(via: str | None) -> Address | None:
    return ip_address(via) if via else None


def lines_of(seen: Mapping[str, Any]) -> list[Any]:
    return items(seen["console"])


def _detail(line: Mapping[str, Any]) -> str:
    if line["ok"]:
        return f"answered in {line['ms']:.1f} ms"
    error = str(line["error"]).strip()
    return _WORDS.get(error, error)
