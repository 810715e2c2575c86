"""Get- and Set-NetIPInterface: MTU and forwarding are the namespace's, the rest is kept as settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.winhost.engine import Call, CmdletError, Item, Ref, TimeSpan, UInt32, emulates
from tests.winhost.net import nat
from tests.winhost.net.cim import Filter, Instance, Query, enum, item, numbered, refuse, win32
from tests.winhost.net.kernel import Family, Link, Refused
from tests.winhost.net.naming import FAMILY, STORE, VERSIONS, stores
from tests.winhost.net.state import Store, index, interface, interface_metric, kernel, network, settle
from tests.winhost.state import Host

CLASS = "MSFT_NetIPInterface"
SWITCH = numbered(("Disabled", "Enabled"))
CONNECTION = numbered(("Disconnected", "Connected"))
DISCOVERY = numbered(("Disabled", "Enabled", "ControlledByDHCP"))
ECN = numbered(("Disabled", "UseEct1", "UseEct0", "AppDecide"))
_ENUMS: dict[str, tuple[dict[str, int], str]] = {
    "Forwarding": (SWITCH, "Disabled"),
    "Dhcp": (SWITCH, "Disabled"),
    "AutomaticMetric": (SWITCH, "Enabled"),
    "WeakHostSend": (SWITCH, "Disabled"),
    "WeakHostReceive": (SWITCH, "Disabled"),
    "Advertising": (SWITCH, "Disabled"),
    "AdvertiseDefaultRoute": (SWITCH, "Disabled"),
    "IgnoreDefaultRoutes": (SWITCH, "Disabled"),
    "ManagedAddressConfiguration": (SWITCH, "Enabled"),
    "OtherStatefulConfiguration": (SWITCH, "Enabled"),
    "NeighborUnreachabilityDetection": (SWITCH, "Enabled"),
    "ForceArpNdWolPattern": (SWITCH, "Disabled"),
    "DirectedMacWolPattern": (SWITCH, "Disabled"),
    "ClampMss": (SWITCH, "Disabled"),
    "RouterDiscovery": (DISCOVERY, "ControlledByDHCP"),
    "EcnMarking": (ECN, "AppDecide"),
}
_NUMBERS = {
    "BaseReachableTime": 30000,
    "RetransmitTime": 1000,
    "DadTransmits": 3,
    "DadRetransmitTime": 1000,
    "CurrentHopLimit": 0,
}
_PARAMETERS = {
    "BaseReachableTimeMs": "BaseReachableTime",
    "RetransmitTimeMs": "RetransmitTime",
    "DadRetransmitTimeMs": "DadRetransmitTime",
    "NlMtuBytes": "NlMtu",
}
_UNKNOWN = ("AdvertisedRouterLifetime", "ReachableTimeMs", "ReachableTime", "NeighborDiscoverySupported")
_FILTERS = (
    Filter("InterfaceIndex", "InterfaceIndex"),
    Filter("InterfaceAlias", "InterfaceAlias", globs=True),
    Filter("AddressFamily", "AddressFamily", numbers=FAMILY),
    *(Filter(name, name, numbers=numbers) for name, (numbers, _) in _ENUMS.items()),
    Filter("ConnectionState", "ConnectionState", numbers=CONNECTION),
    *(Filter(name, _PARAMETERS.get(name, name)) for name in _PARAMETERS),
    *(Filter(name, name) for name in ("DadTransmits", "CurrentHopLimit", "InterfaceMetric", "CompartmentId")),
)
_STARTS = ("AssociatedRoute", "AssociatedIPAddress", "AssociatedNeighbor", "AssociatedAdapter")


def _belongs(start: Ref, instance: Instance) -> bool:
    return bool(start.id.split("|")[0] == instance.raw["link"])


@emulates("Get-NetIPInterface")
def get_net_ip_interface(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", *_UNKNOWN)
    start = next((one for one in _STARTS if call.has(one)), None)
    query = Query(CLASS, _FILTERS, start, _belongs)
    for one in query.select(call, instances(host, stores(call, CLASS) or ["ActiveStore"])):
        yield one.item if isinstance(one, Instance) else one


@emulates("Set-NetIPInterface")
def set_net_ip_interface(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", *_UNKNOWN)
    for one in list(_named(host, call)):
        if isinstance(one, CmdletError):
            yield one
            continue
        _change(host, one, call)
        if call.switch("PassThru"):
            yield next(new.item for new in instances(host, [one.raw["Store"]]) if new.item.id == one.item.id)


def instances(host: Host, wanted: Iterable[Store]) -> list[Instance]:
    network(host)
    v6 = {one.link for one in kernel(host).addresses() if one.interface.version == 6}
    return [
        _instance(host, link, family, store)
        for store in wanted
        for family in VERSIONS.values()
        for link in kernel(host).links()
        if family == 4 or link.name in v6
    ]


def _named(host: Host, call: Call) -> Iterator[Instance | CmdletError]:
    """Those of -InputObject, or those that the parameters name; a new value is no filter."""
    chosen = stores(call, CLASS)[:1] or ["ActiveStore"]
    if not call.has("InputObject"):
        names = ("InterfaceAlias", "InterfaceIndex", "AddressFamily", "CompartmentId")
        query = Query(CLASS, [one for one in _FILTERS if one.parameter in names])
        yield from query.select(call, instances(host, chosen))
        return
    there = {one.item.id: one for one in instances(host, ["ActiveStore", "PersistentStore"])}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", CLASS)


def _change(host: Host, instance: Instance, call: Call) -> None:
    link: str = instance.raw["link"]
    family: Family = instance.raw["family"]
    settings = interface(host, link).settings
    if call.has("NlMtuBytes"):
        _set_mtu(host, link, family, int(call.get("NlMtuBytes")))
    if call.has("Forwarding"):
        _set_forwarding(host, link, family, str(call.get("Forwarding")))
    for name in (*_ENUMS, *_NUMBERS, *_PARAMETERS, "InterfaceMetric"):
        if call.has(name) and name not in ("NlMtuBytes", "Forwarding"):
            settings[family, _PARAMETERS.get(name, name)] = call.get(name)
    if call.has("InterfaceMetric"):
        settings[family, "AutomaticMetric"] = "Disabled"
    elif call.get("AutomaticMetric") == "Enabled":
        settings.pop((family, "InterfaceMetric"), None)
    if call.has("InterfaceMetric") or call.has("AutomaticMetric"):
        settle(host, link)


def _set_forwarding(host: Host, link: str, family: Family, value: str) -> None:
    """Of IPv4, NAT has a say too."""
    if family == 4:
        nat.set_forwarding(host, link, on=value == "Enabled")
    else:
        kernel(host).set_sysctl(f"ipv6/conf/{link}/forwarding", "1" if value == "Enabled" else "0")


def _set_mtu(host: Host, link: str, family: Family, size: int) -> None:
    if size < (576 if family == 4 else 1280):
        raise win32(87, "The parameter is incorrect.", CLASS)
    try:
        kernel(host).run("link", "set", link, "mtu", str(size))
    except Refused as exc:
        raise win32(87, "The parameter is incorrect.", CLASS) from exc


def _instance(host: Host, link: Link, family: Family, store: Store) -> Instance:
    raw = _raw(host, link, family, store)
    key = f"{link.name}|{raw['AddressFamily']}|{store}"
    shown: dict[str, Any] = {name: enum(numbers, raw[name]) for name, (numbers, _) in _ENUMS.items()}
    shown |= {
        "AddressFamily": enum(FAMILY, raw["AddressFamily"]),
        "ConnectionState": enum(CONNECTION, raw["ConnectionState"]),
        "Store": enum(STORE, store),
        "ifIndex": UInt32(raw["InterfaceIndex"]),
        "InterfaceIndex": UInt32(raw["InterfaceIndex"]),
        "InterfaceAlias": raw["InterfaceAlias"],
        "CompartmentId": UInt32(1),
        "NlMtu": UInt32(raw["NlMtu"]),
        "InterfaceMetric": UInt32(raw["InterfaceMetric"]),
        "ReachableTime": UInt32(raw["BaseReachableTime"]),
        "AdvertisedRouterLifetime": TimeSpan(1800),
    }
    shown |= {name: UInt32(raw[name]) for name in _NUMBERS}
    return Instance(item(CLASS, key, shown), raw)


def _raw(host: Host, link: Link, family: Family, store: Store) -> dict[str, Any]:
    settings = interface(host, link.name).settings
    of_six = family == 6 and kernel(host).sysctl(f"ipv6/conf/{link.name}/forwarding") == "1"
    forwarding = of_six or (family == 4 and nat.forwards(host, link.name))
    raw: dict[str, Any] = {
        name: settings.get((family, name), default) for name, (_, default) in _ENUMS.items()
    }
    raw |= {name: int(settings.get((family, name), default)) for name, default in _NUMBERS.items()}
    return raw | {
        "Forwarding": "Enabled" if forwarding else "Disabled",
        "AddressFamily": "IPv4" if family == 4 else "IPv6",
        "ConnectionState": "Connected" if link.up and link.carrier else "Disconnected",
        "InterfaceAlias": interface(host, link.name).alias,
        "InterfaceIndex": index(host, link),
        "InterfaceMetric": interface_metric(host, link.name, family),
        "CompartmentId": 1,
        "NlMtu": 4294967295 if link.loopback else link.mtu,
        "Store": store,
        "link": link.name,
        "family": family,
    }
