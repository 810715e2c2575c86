"""Get-, New-, Set- and Remove-NetNeighbor: the namespace's neighbour table."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Iterator, Mapping

from tests.winhost.engine import Call, CmdletError, Item, Ref, UInt32, emulates
from tests.winhost.net.cim import Filter, Instance, Query, enum, invalid, item, numbered, refuse, win32
from tests.winhost.net.kernel import Neighbor, Refused
from tests.winhost.net.naming import FAMILY, NOWHERE, STORE, Place, by_link, check_family, place, stores
from tests.winhost.net.state import Store, kernel, network
from tests.winhost.state import Host

CLASS = "MSFT_NetNeighbor"
STATE = numbered(("Unreachable", "Incomplete", "Probe", "Delay", "Stale", "Reachable", "Permanent"))
_KERNEL = {
    "FAILED": "Unreachable",
    "NONE": "Unreachable",
    "INCOMPLETE": "Incomplete",
    "PROBE": "Probe",
    "DELAY": "Delay",
    "STALE": "Stale",
    "REACHABLE": "Reachable",
    "PERMANENT": "Permanent",
    "NOARP": "Permanent",
}
_FILTERS = (
    Filter("IPAddress", "IPAddress", globs=True),
    Filter("InterfaceIndex", "InterfaceIndex"),
    Filter("InterfaceAlias", "InterfaceAlias", globs=True),
    Filter("LinkLayerAddress", "LinkLayerAddress", globs=True),
    Filter("State", "State", numbers=STATE),
    Filter("AddressFamily", "AddressFamily", numbers=FAMILY),
)


def _belongs(start: Ref, instance: Instance) -> bool:
    return bool(start.id.split("|")[0] == instance.raw["link"])


_QUERY = Query(CLASS, _FILTERS, "AssociatedIPInterface", _belongs)


@emulates("Get-NetNeighbor")
def get_net_neighbor(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in _QUERY.select(call, instances(host, stores(call, CLASS) or ["ActiveStore"])):
        yield one.item if isinstance(one, Instance) else one


@emulates("New-NetNeighbor")
def new_net_neighbor(host: Host, call: Call) -> Iterator[Item]:
    """A permanent entry, in both stores."""
    refuse(call, "CimSession", "AsJob")
    if call.get("State", "Permanent") != "Permanent":
        invalid(CLASS, "State", call.get("State"))
    address = _ip(call)
    mac = _mac(call)
    where = place(host, call, CLASS)
    chosen: list[Store] = stores(call, CLASS) or ["ActiveStore", "PersistentStore"]
    new = Neighbor(where.link, address, mac, "PERMANENT")
    if any(one.raw["key"] == (where.link, address) for one in instances(host, chosen)):
        raise win32(87, f"Instance {CLASS} already exists", CLASS)
    for store in chosen:
        if store == "PersistentStore":
            network(host).neighbors[where.link, address] = mac
        else:
            kernel(host).run("neighbor", "replace", address, "lladdr", mac, "dev", where.link)
        yield _instance(host, new, store).item


@emulates("Remove-NetNeighbor")
def remove_net_neighbor(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in list(_named(host, call)):
        if isinstance(one, CmdletError):
            yield one
            continue
        _drop(host, one)
        if call.switch("PassThru"):
            yield one.item


def instances(host: Host, wanted: Container[Store]) -> list[Instance]:
    network(host)
    there = by_link(host)
    active = kernel(host).neighbors() if "ActiveStore" in wanted else []
    kept = network(host).neighbors.items() if "PersistentStore" in wanted else []
    found = [_instance(host, one, "ActiveStore", there) for one in active]
    lasting = [Neighbor(*key, mac, "PERMANENT") for key, mac in kept]
    return found + [_instance(host, one, "PersistentStore", there) for one in lasting]


def _named(host: Host, call: Call) -> Iterator[Instance | CmdletError]:
    if not call.has("InputObject"):
        chosen: list[Store] = stores(call, CLASS) or ["ActiveStore", "PersistentStore"]
        yield from _QUERY.select(call, instances(host, chosen))
        return
    there = {one.item.id: one for one in instances(host, ["ActiveStore", "PersistentStore"])}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", CLASS)


def _drop(host: Host, one: Instance) -> None:
    link, address = one.raw["key"]
    if one.raw["Store"] == "PersistentStore":
        del network(host).neighbors[link, address]
        return
    try:
        kernel(host).run("neighbor", "del", address, "dev", link)
    except Refused as exc:
        raise win32(1168, "Element not found.", CLASS) from exc


def _ip(call: Call) -> str:
    try:
        address = ipaddress.ip_address(str(call.get("IPAddress")))
    except ValueError:
        invalid(CLASS, "IPAddress", call.get("IPAddress"))
    check_family(call, address.version, CLASS, "IPAddress", address)
    return str(address)


def _mac(call: Call) -> str:
    """Twelve hexadecimal digits, with dashes or without: as the kernel writes them."""
    told = str(call.get("LinkLayerAddress", ""))
    if not re.fullmatch(r"[0-9a-fA-F]{12}|([0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}", told):
        invalid(CLASS, "LinkLayerAddress", told)
    digits = told.replace("-", "").lower()
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _instance(
    host: Host, one: Neighbor, store: Store, there: Mapping[str | None, Place] | None = None
) -> Instance:
    where = (by_link(host) if there is None else there).get(one.link, NOWHERE)
    family = "IPv4" if ipaddress.ip_address(one.address).version == 4 else "IPv6"
    mac = (one.mac or "00:00:00:00:00:00").upper().replace(":", "-")
    raw = {
        "IPAddress": one.address,
        "InterfaceIndex": where.index,
        "InterfaceAlias": where.alias,
        "LinkLayerAddress": mac,
        "State": _KERNEL[one.state],
        "AddressFamily": family,
        "Store": store,
        "link": one.link,
        "key": (one.link, one.address),
    }
    shown = {
        "State": enum(STATE, _KERNEL[one.state]),
        "AddressFamily": enum(FAMILY, family),
        "Store": enum(STORE, store),
        "ifIndex": UInt32(where.index),
        "InterfaceIndex": UInt32(where.index),
        "InterfaceAlias": where.alias,
        "IPAddress": one.address,
        "LinkLayerAddress": mac,
    }
    return Instance(item(CLASS, f"{one.link}|{store}|{one.address}", shown), raw)
