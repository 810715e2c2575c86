"""Get- and Set-DnsClient: what of an interface is registered in DNS."""

from __future__ import annotations

from collections.abc import Iterator

from tests.winhost.engine import Call, CmdletError, Item, UInt32, emulates
from tests.winhost.net.cim import Filter, Instance, Query, item, refuse, win32
from tests.winhost.net.naming import Place, places
from tests.winhost.net.state import interface, network
from tests.winhost.state import Host

CLASS = "MSFT_DNSClient"
_PLACE = (
    Filter("InterfaceAlias", "InterfaceAlias", globs=True),
    Filter("InterfaceIndex", "InterfaceIndex"),
)
_QUERY = Query(
    CLASS,
    (
        *_PLACE,
        Filter("ConnectionSpecificSuffix", "ConnectionSpecificSuffix", globs=True),
        Filter("RegisterThisConnectionsAddress", "RegisterThisConnectionsAddress"),
        Filter("UseSuffixWhenRegistering", "UseSuffixWhenRegistering"),
    ),
)
_SELECTION = Query(CLASS, _PLACE)


@emulates("Get-DnsClient")
def get_dns_client(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in _QUERY.select(call, _instances(host)):
        yield one.item if isinstance(one, Instance) else one


@emulates("Set-DnsClient")
def set_dns_client(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in list(_named(host, call)):
        if isinstance(one, CmdletError):
            yield one
            continue
        kept = interface(host, one.raw["link"])
        kept.registers = bool(call.get("RegisterThisConnectionsAddress", kept.registers))
        kept.uses_suffix = bool(call.get("UseSuffixWhenRegistering", kept.uses_suffix))
        kept.suffix = str(call.get("ConnectionSpecificSuffix", kept.suffix))
        if call.switch("ResetConnectionSpecificSuffix"):
            kept.suffix = ""
        if call.switch("PassThru"):
            yield next(now.item for now in _instances(host) if now.item.id == one.item.id)


def _named(host: Host, call: Call) -> Iterator[Instance | CmdletError]:
    if not call.has("InputObject"):
        yield from _SELECTION.select(call, _instances(host))
        return
    there = {one.item.id: one for one in _instances(host)}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", CLASS)


def _instances(host: Host) -> list[Instance]:
    network(host)
    return [_instance(host, one) for one in places(host)]


def _instance(host: Host, place: Place) -> Instance:
    kept = interface(host, place.link)
    shown = {
        "InterfaceAlias": place.alias,
        "InterfaceIndex": UInt32(place.index),
        "ConnectionSpecificSuffix": kept.suffix,
        "ConnectionSpecificSuffixSearchList": [],
        "RegisterThisConnectionsAddress": kept.registers,
        "UseSuffixWhenRegistering": kept.uses_suffix,
        "ElementName": place.alias,
    }
    raw = {**shown, "InterfaceIndex": place.index, "link": place.link}
    return Instance(item(CLASS, place.link, shown), raw)
