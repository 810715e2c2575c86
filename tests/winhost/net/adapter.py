"""Get-, Rename-, Enable-, Disable- and Restart-NetAdapter: the namespace's links, and the network cards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests.winhost.engine import Call, CmdletError, Item, UInt32, UInt64, emulates
from tests.winhost.net.cim import Filter, Instance, Query, enum, item, numbered, refuse, win32
from tests.winhost.net.kernel import Link
from tests.winhost.net.state import Physical, index, interface, kernel, network, settle
from tests.winhost.state import Host

CLASS = "MSFT_NetAdapter"
OPERATION = numbered(("Up", "Down", "Testing", "Unknown", "Dormant", "NotPresent", "LowerLayerDown"), 1)
ADMINISTRATION = numbered(("Up", "Down", "Testing"), 1)
MEDIA = numbered(("Unknown", "Connected", "Disconnected"))
SPEED = 10_000_000_000
_FILTERS = (
    Filter("Name", "Name", globs=True),
    Filter("InterfaceDescription", "InterfaceDescription", globs=True),
    Filter("InterfaceIndex", "InterfaceIndex"),
)
_QUERY = Query(CLASS, _FILTERS)


@emulates("Get-NetAdapter")
def get_net_adapter(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    pool = [
        one
        for one in instances(host, hidden=call.switch("IncludeHidden"))
        if not call.switch("Physical") or isinstance(one.raw["device"], Physical)
    ]
    for one in _QUERY.select(call, pool):
        yield one.item if isinstance(one, Instance) else one


@emulates("Rename-NetAdapter")
def rename_net_adapter(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    name = str(call.get("NewName"))
    for one in list(_named(host, call)):
        if isinstance(one, CmdletError):
            yield one
        elif any(other.raw["Name"].lower() == name.lower() for other in instances(host, hidden=True)):
            yield win32(183, "Cannot create a file when that file already exists.", CLASS)
        else:
            _rename(host, one.raw["device"], name)
            yield from _passed(host, call, one)


@emulates("Enable-NetAdapter", "Disable-NetAdapter", "Restart-NetAdapter")
def switch_net_adapter(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in list(_named(host, call)):
        if isinstance(one, CmdletError):
            yield one
            continue
        if not call.cmdlet.lower().startswith("enable"):
            _switch(host, one.raw["device"], on=False)
        if not call.cmdlet.lower().startswith("disable"):
            _switch(host, one.raw["device"], on=True)
        yield from _passed(host, call, one)


def instances(host: Host, *, hidden: bool = False) -> list[Instance]:
    network(host)
    virtual = [_virtual(host, one) for one in kernel(host).links() if hidden or not one.loopback]
    return virtual + [_physical(one) for one in network(host).physical]


def _named(host: Host, call: Call) -> Iterator[Instance | CmdletError]:
    if not call.has("InputObject"):
        yield from _QUERY.select(call, instances(host, hidden=call.switch("IncludeHidden")))
        return
    there = {one.item.id: one for one in instances(host, hidden=True)}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", CLASS)


def _passed(host: Host, call: Call, old: Instance) -> Iterator[Item]:
    if call.switch("PassThru"):
        yield next(one.item for one in instances(host, hidden=True) if one.item.id == old.item.id)


def _rename(host: Host, device: Link | Physical, name: str) -> None:
    if isinstance(device, Physical):
        device.name = name
    else:
        interface(host, device.name).alias = name


def _switch(host: Host, device: Link | Physical, *, on: bool) -> None:
    if isinstance(device, Physical):
        device.enabled = on
        return
    kernel(host).run("link", "set", device.name, "up" if on else "down")
    if on:
        settle(host, device.name, reapply=True)


def _virtual(host: Host, link: Link) -> Instance:
    named = interface(host, link.name)
    mac = link.mac.upper().replace(":", "-")
    return _instance(
        link,
        key=link.name,
        name=named.alias,
        description=named.description,
        number=index(host, link),
        mac=mac,
        mtu=link.mtu,
        enabled=link.up,
        connected=link.carrier,
    )


def _physical(card: Physical) -> Instance:
    return _instance(
        card,
        key=f"card {card.index}",
        name=card.name,
        description=card.description,
        number=card.index,
        mac=card.mac,
        mtu=1500,
        enabled=card.enabled,
        connected=card.connected,
    )


def _instance(
    device: Link | Physical,
    *,
    key: str,
    name: str,
    description: str,
    number: int,
    mac: str,
    mtu: int,
    enabled: bool,
    connected: bool,
) -> Instance:
    up = enabled and connected
    raw = {"Name": name, "InterfaceDescription": description, "InterfaceIndex": number, "device": device}
    shown = {
        **_told(key, name, description, mac),
        "ifIndex": UInt32(number),
        "InterfaceIndex": UInt32(number),
        "Status": "Up" if up else "Disconnected" if enabled else "Disabled",
        "ifOperStatus": enum(OPERATION, "Up" if up else "Down"),
        "InterfaceOperationalStatus": UInt32(OPERATION["Up" if up else "Down"]),
        "AdminStatus": enum(ADMINISTRATION, "Up" if enabled else "Down"),
        "MediaConnectionState": enum(MEDIA, "Connected" if connected else "Disconnected"),
        "LinkSpeed": "10 Gbps" if up else "0 bps",
        "Speed": UInt64(SPEED if up else 0),
        "ReceiveLinkSpeed": UInt64(SPEED if up else 0),
        "TransmitLinkSpeed": UInt64(SPEED if up else 0),
        "MtuSize": UInt32(mtu),
        "Virtual": isinstance(device, Link),
        "HardwareInterface": isinstance(device, Physical),
        "ConnectorPresent": isinstance(device, Physical),
        "Hidden": isinstance(device, Link) and device.loopback,
    }
    return Instance(item(CLASS, key, shown), raw)


def _told(key: str, name: str, description: str, mac: str) -> Mapping[str, Any]:
    digest = hashlib.sha256(f"{key}{mac}".encode()).hexdigest().upper()
    guid = f"{{{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}}}"
    return {
        "Name": name,
        "InterfaceName": f"ethernet_{digest[:5]}",
        "InterfaceAlias": name,
        "ifAlias": name,
        "InterfaceDescription": description,
        "ifDesc": description,
        "DriverDescription": description.partition(" #")[0],
        "InterfaceGuid": guid,
        "DeviceID": guid,
        "MacAddress": mac,
        "LinkLayerAddress": mac,
        "PermanentAddress": mac.replace("-", ""),
        "NetworkAddresses": [mac.replace("-", "")],
    }
