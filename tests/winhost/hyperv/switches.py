"""The cmdlets of virtual switches: each is a Linux bridge in the host's `switch_namespace`.

An external switch is on a network card. Those of `Host.bridges` are there from the start; the card of one
that is removed is free for another, and behind its cable is the same bridge.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from tests.winhost.engine import Call, Enum, Item, emulates, not_emulated
from tests.winhost.hyperv import find, ports
from tests.winhost.hyperv.adapters import reconnect
from tests.winhost.hyperv.failures import failed, invalid, no_switch
from tests.winhost.hyperv.items import SPACE, switch_item
from tests.winhost.hyperv.model import Switch, SwitchKind, adapters, hyperv
from tests.winhost.net.state import Network
from tests.winhost.state import Host
from vmproxy.util.run import run

_CARDS = {"NetAdapterName", "NetAdapterInterfaceDescription"}
_REMOTE = {"ComputerName", "CimSession", "Credential", "Passthru", "Force"}


@emulates("Get-VMSwitch")
def get_switch(host: Host, call: Call) -> Iterator[object]:
    if call.has("ResourcePoolName"):
        raise not_emulated("Get-VMSwitch -ResourcePoolName")
    kinds = [str(one).lower() for one in call.list("SwitchType")]
    asked = call.has("Name") or call.has("Id")
    found = find.switches(host, call) if asked else iter(hyperv(host).switches.values())

    def shown(one: Switch) -> list[Item]:
        return [switch_item(host, one)] if not kinds or one.kind.lower() in kinds else []

    yield from find.each(found, shown)


@emulates("New-VMSwitch")
def new_switch(host: Host, call: Call) -> Iterator[Item]:
    unknown = (
        set(call.parameters) - {"Name", "SwitchType", "Notes", "Id", "AllowManagementOS"} - _CARDS - _REMOTE
    )
    if unknown:
        raise not_emulated(f"New-VMSwitch -{', -'.join(sorted(unknown))}")
    kind: SwitchKind = "External" if _CARDS & set(call.parameters) else call.get("SwitchType")
    if kind not in ("External", "Internal", "Private") or (kind == "External" and call.has("SwitchType")):
        raise invalid("Specify the network adapter of an External switch with NetAdapterName.", kind)
    switch = Switch(str(call.get("Name")), kind, notes=str(call.get("Notes", "")))
    switch.id = str(call.get("Id", switch.id)).lower()
    if switch.id in hyperv(host).switches:
        raise failed(
            "Failed to create the virtual switch: it exists.",
            error_id="ResourceExists",
            category="ResourceExists",
        )
    if kind == "External":
        _bind(host, call, switch)
    else:
        _make(host, switch)
    hyperv(host).switches[switch.id] = switch
    yield switch_item(host, switch)


def _bind(host: Host, call: Call, switch: Switch) -> None:
    """An external switch on a card that is free; without a port on it the host would be cut off."""
    if call.get("AllowManagementOS") is False:
        raise not_emulated("New-VMSwitch -AllowManagementOS $false")
    asked = [str(one) for name in _CARDS for one in call.list(name)]
    if len(asked) != 1:
        raise not_emulated("New-VMSwitch with several network adapters")
    network = host.part(Network)
    first = network.interfaces.get(ports.FIRST)
    if any(asked[0] in (card.name, card.description) for card in network.physical):
        raise failed(
            "Failed while adding virtual Ethernet switch connections.\r\n\r\nThe network adapter is already "
            "bound to another virtual switch.",
            error_id="InvalidOperation",
            category="InvalidOperation",
        )
    if first is None or asked[0] not in (first.alias, first.description):
        raise invalid(f'Hyper-V was unable to find a network adapter with name "{asked[0]}".', asked[0])
    switch.uplink, switch.management = first.description, True
    ports.bind_card(host, switch)


def _make(host: Host, switch: Switch) -> None:
    """Without a namespace for switches it has no bridge, and no machine can run on it."""
    if host.switch_namespace is not None:
        switch.bridge = "vs" + sha256(switch.id.encode()).hexdigest()[:10]
        run(["ip", "-n", host.switch_namespace, "link", "add", switch.bridge, "type", "bridge"])
        run(["ip", "-n", host.switch_namespace, "link", "set", switch.bridge, "up"])
    if switch.kind == "Internal":
        ports.give(host, switch, switch.name)


@emulates("Get-VMSwitchExtension")
def get_switch_extension(host: Host, call: Call) -> Iterator[object]:
    """Those that every switch has, which are known; no others."""
    for name in call.list("VMSwitchName"):
        found = [one for one in hyperv(host).switches.values() if one.name.lower() == str(name).lower()]
        if not found:
            yield no_switch(str(name))
        for one in found:
            yield from (_extension(one, *extension) for extension in _EXTENSIONS)


_EXTENSIONS = (
    ("E7C3B2F0-F3C5-48DF-AF2B-10FED6D72E7A", "Microsoft Windows Filtering Platform", "Filter"),
    ("EA24CD6C-D17A-4348-9190-09F0D5BE83DD", "Microsoft NDIS Capture", "Capture"),
)


def _extension(switch: Switch, number: str, name: str, kind: str) -> Item:
    properties = {
        "Id": number,
        "Name": name,
        "SwitchName": switch.name,
        "SwitchId": switch.id,
        "Enabled": kind == "Filter",
        "Running": kind == "Filter",
        "ExtensionType": Enum("VMSwitchExtensionType", kind),
    }
    return Item(f"{SPACE}.VMSwitchExtension", f"{switch.id}|{name}", properties)


@emulates("Set-VMSwitch")
def set_switch(host: Host, call: Call) -> Iterator[object]:
    unknown = set(call.parameters) - {"Name", "VMSwitch", "Notes", "AllowManagementOS"} - _REMOTE
    if unknown:
        raise not_emulated(f"Set-VMSwitch -{', -'.join(sorted(unknown))}")

    def change(one: Switch) -> Iterator[Item]:
        if call.has("AllowManagementOS") and call.get("AllowManagementOS") != one.management:
            raise not_emulated("Set-VMSwitch -AllowManagementOS")
        if call.has("Notes"):
            one.notes = str(call.get("Notes"))
        if call.switch("Passthru"):
            yield switch_item(host, one)

    yield from find.each(list(find.switches(host, call)), change)


@emulates("Rename-VMSwitch")
def rename_switch(host: Host, call: Call) -> Iterator[object]:
    def rename(one: Switch) -> Iterator[Item]:
        if one.kind != "Private":
            raise not_emulated("Rename-VMSwitch of a switch that the host is on")
        one.name = str(call.get("NewName"))
        if call.switch("Passthru"):
            yield switch_item(host, one)

    yield from find.each(list(find.switches(host, call)), rename)


@emulates("Remove-VMSwitch")
def remove_switch(host: Host, call: Call) -> Iterator[object]:
    def remove(one: Switch) -> None:
        part = hyperv(host)
        if any(port.switch == one.id and port.vm and part.vms[port.vm].running for port in adapters(host)):
            raise failed(
                f"The virtual switch '{one.name}' cannot be deleted because it is being used by running "
                "virtual machines or assigned to child pools.",
                error_id="ObjectInUse",
                category="ResourceBusy",
            )
        if one.kind == "External":
            ports.release_card(host, one)
        for port in adapters(host):
            if port.switch == one.id and port.vm is None:
                ports.take(host, port)
            elif port.switch == one.id:
                port.switch = None
                reconnect(host, port)
        del part.switches[one.id]
        if one.kind != "External":
            _unmake(host, one)

    yield from find.each(list(find.switches(host, call)), remove)


def _unmake(host: Host, switch: Switch) -> None:
    if switch.bridge is not None:
        run(["ip", "-n", str(host.switch_namespace), "link", "del", switch.bridge], ok=(0, 1))


def close(host: Host) -> None:
    """Take away what cmdlets made of switches and of the host's ports on them."""
    part = hyperv(host)
    for port in [one for one in part.management if one.id in part.ports]:
        ports.take(host, port)
    for switch in (one for one in part.switches.values() if one.kind != "External"):
        _unmake(host, switch)
