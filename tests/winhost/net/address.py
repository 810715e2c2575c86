"""Get-, New-, Set- and Remove-NetIPAddress."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

from tests.winhost.engine import Byte, Call, CmdletError, Item, Ref, UInt32, emulates
from tests.winhost.net import gateway
from tests.winhost.net.cim import (
    FOREVER,
    Filter,
    Instance,
    Query,
    enum,
    invalid,
    item,
    numbered,
    refuse,
    win32,
)
from tests.winhost.net.kernel import Address, IPInterface, Refused
from tests.winhost.net.naming import FAMILY, NOWHERE, STORE, Place, by_link, check_family, place, stores
from tests.winhost.net.state import Store, interface, kernel, network
from tests.winhost.state import Host

CLASS = "MSFT_NetIPAddress"
STATES = numbered(("Invalid", "Tentative", "Duplicate", "Deprecated", "Preferred"))
ORIGINS = numbered(("Other", "Manual", "WellKnown", "Dhcp", "RouterAdvertisement"))
SUFFIXES = numbered(("Other", "Manual", "WellKnown", "Dhcp", "Link", "Random"))
TYPES = numbered(("Unicast", "Anycast"), 1)
_FILTERS = (
    Filter("IPAddress", "IPAddress", globs=True),
    Filter("InterfaceIndex", "InterfaceIndex"),
    Filter("InterfaceAlias", "InterfaceAlias", globs=True),
    Filter("AddressFamily", "AddressFamily", numbers=FAMILY),
    Filter("Type", "Type", numbers=TYPES),
    Filter("PrefixLength", "PrefixLength"),
    Filter("PrefixOrigin", "PrefixOrigin", numbers=ORIGINS),
    Filter("SuffixOrigin", "SuffixOrigin", numbers=SUFFIXES),
    Filter("AddressState", "AddressState", numbers=STATES),
    Filter("SkipAsSource", "SkipAsSource"),
)


def _belongs(start: Ref, instance: Instance) -> bool:
    link, _, family = start.id.partition("|")
    return link == instance.raw["link"] and family in ("", instance.raw["AddressFamily"])


_QUERY = Query(CLASS, _FILTERS, "AssociatedIPInterface", _belongs)
_SELECTION = Query(CLASS, [one for one in _FILTERS if one.parameter not in ("PrefixLength", "SkipAsSource")])


@emulates("Get-NetIPAddress")
def get_net_ip_address(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime")
    for one in _QUERY.select(call, instances(host, stores(call, CLASS) or ["ActiveStore"])):
        yield one.item if isinstance(one, Instance) else one


@emulates("New-NetIPAddress")
def new_net_ip_address(host: Host, call: Call) -> Iterator[Item]:
    """In both stores, unless the active one alone is asked for; -DefaultGateway makes that route too."""
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime", "Type")
    chosen = stores(call, CLASS) or ["ActiveStore", "PersistentStore"]
    wanted = _wanted(call)
    where = place(host, call, CLASS)
    leased = interface(host, where.link).settings.get((wanted.version, "Dhcp")) == "Enabled"
    if "PersistentStore" in chosen and leased:
        raise win32(87, "Inconsistent parameters PolicyStore PersistentStore and Dhcp Enabled", CLASS)
    if any(one.interface.ip == wanted.ip for one in _every(host, chosen)):
        raise win32(87, f"Instance {CLASS} already exists", CLASS)
    gateway.check(host, call, wanted, where.link)
    made = Address(where.link, wanted, dynamic=False)
    if call.get("SkipAsSource"):
        network(host).skip_as_source.add((where.link, str(wanted.ip)))
    yield from _make(host, made, chosen)
    gateway.add(host, call, where.link, chosen)


@emulates("Set-NetIPAddress")
def set_net_ip_address(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    """The prefix's length, and whether it serves as a source."""
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime")
    for one in list(_named(host, call, _SELECTION)):
        if isinstance(one, CmdletError):
            yield one
            continue
        address = _change(host, one, call)
        if call.switch("PassThru"):
            yield _instance(host, one.raw["Store"], address).item


@emulates("Remove-NetIPAddress")
def remove_net_ip_address(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", "ValidLifetime", "PreferredLifetime", "DefaultGateway")
    for one in list(_named(host, call, _QUERY)):
        if isinstance(one, CmdletError):
            yield one
            continue
        _drop(host, one.raw["Store"], one.raw["address"])
        if call.switch("PassThru"):
            yield one.item


def found(host: Host, source: str, link: str) -> Item:
    """The address that a packet would come from."""
    for address in kernel(host).addresses():
        if str(address.interface.ip) == source:
            return _instance(host, "ActiveStore", address).item
    family = "IPv6" if ":" in source else "IPv4"
    raise win32(1168, f"Element not found. ({family} {source} on {link})", CLASS)


def instances(host: Host, wanted: Container[str]) -> list[Instance]:
    network(host)
    there = by_link(host)
    active = kernel(host).addresses() if "ActiveStore" in wanted else []
    lasting = network(host).addresses if "PersistentStore" in wanted else []
    found = [_instance(host, "ActiveStore", one, there) for one in active]
    return found + [_instance(host, "PersistentStore", one, there) for one in lasting if one.link in there]


def _every(host: Host, wanted: Container[str]) -> list[Address]:
    return [one.raw["address"] for one in instances(host, wanted)]


def _named(host: Host, call: Call, query: Query) -> Iterator[Instance | CmdletError]:
    if not call.has("InputObject"):
        chosen = stores(call, CLASS) or ["ActiveStore", "PersistentStore"]
        yield from query.select(call, instances(host, chosen))
        return
    there = {one.item.id: one for one in instances(host, ["ActiveStore", "PersistentStore"])}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", CLASS)


def _wanted(call: Call) -> IPInterface:
    text = str(call.get("IPAddress"))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        invalid(CLASS, "IPAddress", text)
    check_family(call, address.version, CLASS, "IPAddress", address)
    longest = address.max_prefixlen
    length = int(call.get("PrefixLength", longest))
    if not 0 < length <= longest:
        invalid(CLASS, "PrefixLength", length)
    return ipaddress.ip_interface(f"{address}/{length}")


def _make(host: Host, made: Address, chosen: Iterable[Store]) -> Iterator[Item]:
    for store in chosen:
        if store == "ActiveStore":
            try:
                kernel(host).run("address", "add", str(made.interface), "dev", made.link)
            except Refused as exc:
                raise win32(5010, "The object already exists.", CLASS) from exc
        else:
            network(host).addresses.append(made)
        yield _instance(host, store, made).item


def _change(host: Host, instance: Instance, call: Call) -> Address:
    old: Address = instance.raw["address"]
    key = (old.link, str(old.interface.ip))
    if call.has("SkipAsSource"):
        marked = network(host).skip_as_source
        (marked.add if call.get("SkipAsSource") else marked.discard)(key)
    length = int(call.get("PrefixLength", old.interface.network.prefixlen))
    new = replace(old, interface=ipaddress.ip_interface(f"{old.interface.ip}/{length}"))
    if new != old:
        _drop(host, instance.raw["Store"], old)
        list(_make(host, new, [instance.raw["Store"]]))
    return new


def _drop(host: Host, store: Store, address: Address) -> None:
    if store == "PersistentStore":
        network(host).addresses.remove(address)
    else:
        kernel(host).run("address", "del", str(address.interface), "dev", address.link)


def _instance(
    host: Host, store: Store, address: Address, there: Mapping[str | None, Place] | None = None
) -> Instance:
    where = (by_link(host) if there is None else there).get(address.link, NOWHERE)
    at = address.interface
    family = "IPv4" if at.version == 4 else "IPv6"
    origin = "WellKnown" if at.is_loopback or at.is_link_local else "Dhcp" if address.dynamic else "Manual"
    suffix = "Link" if at.is_link_local and family == "IPv6" else origin
    skip = (address.link, str(at.ip)) in network(host).skip_as_source
    state = "Preferred" if store == "ActiveStore" else "Invalid"
    key = f"{address.link}|{store}|{at}"
    raw = {
        "IPAddress": str(at.ip),
        "InterfaceIndex": where.index,
        "InterfaceAlias": where.alias,
        "AddressFamily": family,
        "Type": "Unicast",
        "PrefixLength": at.network.prefixlen,
        "PrefixOrigin": origin,
        "SuffixOrigin": suffix,
        "AddressState": state,
        "SkipAsSource": skip,
        "Store": store,
        "link": address.link,
        "address": address,
    }
    shown = {
        "AddressFamily": enum(FAMILY, family),
        "AddressState": enum(STATES, state),
        "PrefixOrigin": enum(ORIGINS, origin),
        "SuffixOrigin": enum(SUFFIXES, suffix),
        "Store": enum(STORE, store),
        "Type": enum(TYPES, "Unicast"),
        "ifIndex": UInt32(where.index),
        "Address": str(at.ip),
        "IPAddress": str(at.ip),
        "IPv4Address": str(at.ip) if family == "IPv4" else None,
        "IPv6Address": str(at.ip) if family == "IPv6" else None,
        "InterfaceAlias": where.alias,
        "InterfaceIndex": UInt32(where.index),
        "PrefixLength": Byte(at.network.prefixlen),
        "PreferredLifetime": FOREVER,
        "ValidLifetime": FOREVER,
        "SkipAsSource": skip,
    }
    return Instance(item(CLASS, key, shown), raw)
