"""Interfaces by alias, by index and by family; the stores."""

from __future__ import annotations

from dataclasses import dataclass

from tests.winhost.engine import Call
from tests.winhost.net.cim import invalid, numbered, win32
from tests.winhost.net.kernel import Family
from tests.winhost.net.state import STORES, Store, index, interface, kernel, network
from tests.winhost.state import Host

FAMILY = {"IPv4": 2, "IPv6": 23}
VERSIONS: dict[str, Family] = {"IPv4": 4, "IPv6": 6}
STORE = numbered(("PersistentStore", "ActiveStore"))


@dataclass(frozen=True)
class Place:
    """An interface as cmdlets name it; `link` is its device in the namespace."""

    link: str
    alias: str
    index: int


NOWHERE = Place("", "", 0)
"""Of what lasts while its interface is gone."""

GONE = Place("", "", 4242)
"""Of a route that lasts while its interface is gone: the index that the interface had."""


def places(host: Host) -> list[Place]:
    """Every interface; the loopback's too."""
    network(host)
    return [
        Place(one.name, interface(host, one.name).alias, index(host, one)) for one in kernel(host).links()
    ]


def by_link(host: Host) -> dict[str | None, Place]:
    return {one.link: one for one in places(host)}


def place(host: Host, call: Call, name: str) -> Place:
    """The interface that -InterfaceAlias or -InterfaceIndex names."""
    for one in places(host):
        if call.has("InterfaceAlias"):
            if one.alias.lower() == str(call.get("InterfaceAlias")).lower():
                return one
        elif one.index == call.get("InterfaceIndex"):
            return one
    if call.has("InterfaceAlias"):
        invalid(name, "InterfaceAlias", call.get("InterfaceAlias"))
    raise win32(1168, "Element not found.", name)


def stores(call: Call, name: str) -> list[Store]:
    """What -PolicyStore names; empty without it."""
    if not call.has("PolicyStore"):
        return []
    asked = str(call.get("PolicyStore"))
    found = [one for one in STORES if one.lower() == asked.lower()]
    return found or invalid(name, "PolicyStore", asked)


def check_family(call: Call, version: int, name: str, parameter: str, value: object) -> None:
    asked = call.get("AddressFamily")
    if asked is not None and VERSIONS[asked] != version:
        raise win32(87, f"Inconsistent parameters AddressFamily {asked} and {parameter} {value}", name)
