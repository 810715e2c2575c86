"""The VM's own switch on a Windows host: what observe.ps1 reports of it, and what switch.ps1 is given."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from vmproxy.errors import Conflict
from vmproxy.hosts.hyperv.facts import Facts, items
from vmproxy.model import names
from vmproxy.model.drift import ABSENT
from vmproxy.model.net import Address, Interface, Network, addresses
from vmproxy.model.seen import Entrance, OwnSwitchSeen
from vmproxy.model.steps import CreateSwitch, SetSwitch, SwitchWanted, mapping

_EVERYBODY = "0.0.0.0/0"
"""As a remote prefix; as an external one, any of the host's addresses."""


@dataclass(frozen=True)
class OwnSeen:
    """As CarrierSeen has it."""

    switch: OwnSwitchSeen | None = None
    nats: Mapping[str, str] = field(default_factory=dict)


def parse(facts: Facts | None, name: str, mark: str, *, host: str) -> OwnSeen:
    """From the `own` of observe.ps1; None: not looked at. Raises Conflict when names are not unique."""
    if facts is None:
        return OwnSeen()
    switches = items(facts["switches"])
    if len(switches) > 1:
        raise Conflict(
            f"cannot use {name} on {host}: there are {len(switches)} switches named {name}",
            hint="rename all but one of them",
        )
    nats = {str(item["name"]): str(item["prefix"]) for item in items(facts["nats"])}
    return OwnSeen(_switch(switches[0], facts, name, mark) if switches else None, nats)


def host_addresses(facts: Facts) -> tuple[Interface, ...]:
    """All of them, from the same."""
    return tuple(map(_address, items(facts["hostAddresses"])))


def _address(item: Facts) -> IPv4Interface:
    return IPv4Interface(f"{item['address']}/{item['length']}")


def _switch(switch: Facts, facts: Facts, name: str, mark: str) -> OwnSwitchSeen:
    interface = facts["interface"]
    listed = items(interface["addresses"]) if interface else []
    own = set(map(_address, listed))
    nat = next((str(item["prefix"]) for item in items(facts["nats"]) if item["name"] == name), ABSENT)
    settings = {
        **_of_interface(interface, listed),
        "nat": nat,
        "mapping": "; ".join(sorted(map(_mapping, items(facts["mappings"])))) or ABSENT,
    }
    ours = mark in str(switch["notes"]).split()
    return OwnSwitchSeen(ours, switch["type"] == "Internal", settings, tuple(sorted(own)))


def _of_interface(interface: Facts | None, listed: Sequence[Facts]) -> dict[str, Any]:
    """Nothing where Windows has not made it yet."""
    if interface is None:
        return {}
    return {
        "address": ", ".join(_addresses(listed)) or ABSENT,
        "dnsRegistration": "on" if interface["registers"] else "off",
        "metric": int(interface["metric"]),
        "forwarding": str(interface["forwarding"]),
    }


def _addresses(listed: Sequence[Facts]) -> list[str]:
    stores: dict[str, set[str]] = {}
    for item in listed:
        stores.setdefault(f"{item['address']}/{item['length']}", set()).add(str(item["store"]))
    flaws = {
        frozenset({"ActiveStore"}): " (active store only: lost at the next restart)",
        frozenset({"PersistentStore"}): " (persistent store only: not active)",
    }
    return sorted(address + flaws.get(frozenset(there), "") for address, there in stores.items())


def _mapping(item: Facts) -> str:
    """As `steps.mapping` writes it, and whatever else there is."""
    remote = ip_network(str(item["remote"] or _EVERYBODY), strict=False)
    outside = str(item["external"]).partition("/")[0]
    text = mapping(
        remote.network_address if remote.prefixlen == remote.max_prefixlen else remote,
        ip_address(str(item["internal"])),
        protocol=str(item["protocol"]).lower(),
        port=int(item["externalPort"]),
        to=int(item["internalPort"]),
    )
    return text if outside == _EVERYBODY.partition("/")[0] else f"{text} at {outside}"


def settings(step: CreateSwitch | SetSwitch) -> dict[str, Any]:
    """What switch.ps1 is given: of an existing switch only what differs."""
    want = step.switch
    every = _values(want)
    chosen = (
        every if isinstance(step, CreateSwitch) else {item.field: every[item.field] for item in step.drift}
    )
    return {
        "create": isinstance(step, CreateSwitch),
        "mark": want.own.mark,
        "settings": chosen,
        "mapping": _wanted_mapping(want),
    }


def _values(want: SwitchWanted) -> dict[str, Any]:
    host = want.own.host
    return {
        **want.settings,
        "address": {"address": str(host.ip), "length": host.network.prefixlen},
        "nat": str(host.network) if want.own.nat else None,
        "mapping": want.controller is not None,
    }


def _wanted_mapping(want: SwitchWanted) -> dict[str, Any] | None:
    if want.controller is None:
        return None
    return {
        "port": names.MAPPED_PORT,
        "from": str(ip_network(want.controller)),
        "to": str(want.own.vm),
        "toPort": 22,
    }


# How this machine gets to the host.


def entrance(
    endpoint: str,
    host: Sequence[Interface],
    *,
    beside: Network,
    local: Callable[[Address], Address | None] | None = None,
) -> Entrance | None:
    """The host's own address that its endpoint names; where that is a relay's, one of a network that this
    machine is on too. None: there is none. `beside` is the switch's own network, which leads nowhere from
    here; `local` tells this machine's address for packets to another one."""
    local = local or _local
    own = [item for item in host if not (item.ip.is_loopback or item.ip.is_link_local or item.ip in beside)]
    named = set(_resolved(urlsplit(endpoint).hostname or ""))
    for item in own:
        if item.ip in named and (here := local(item.ip)):
            return Entrance(item.ip, here)
    for item in own:
        here = local(item.ip)
        if here is not None and here in item.network and here != item.ip:
            return Entrance(item.ip, here)
    return None


def _resolved(name: str) -> Iterable[Address]:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return ()
    return addresses(str(item[4][0]) for item in found)


def _local(to: Address) -> Address | None:
    """Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(to), 9))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])
