"""The cmdlets of virtual network adapters and their VLANs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.winhost import wildcards
from tests.winhost.engine import Call, CmdletError, Item, emulates, not_emulated
from tests.winhost.hyperv import find, ports
from tests.winhost.hyperv.failures import cannot_modify, failed, invalid, running_device, wrong_state
from tests.winhost.hyperv.host import mac
from tests.winhost.hyperv.items import adapter_item, default_adapter_name, vlan_item
from tests.winhost.hyperv.model import NO_MAC, VM, Adapter, Vlan, adapters, assign_macs, hyperv, power
from tests.winhost.state import Host

_ABOUT = {
    *("VM", "VMName", "ManagementOS", "VMNetworkAdapter", "VMNetworkAdapterName", "Name"),
    *("Passthru", "ComputerName", "CimSession", "Credential"),
}
_MOST_ADAPTERS = 8


def vm_of(host: Host, adapter: Adapter) -> VM | None:
    return hyperv(host).vms.get(adapter.vm) if adapter.vm else None


def _running(host: Host, adapter: Adapter) -> VM | None:
    vm = vm_of(host, adapter)
    return vm if vm is not None and vm.running else None


def reconnect(host: Host, adapter: Adapter) -> None:
    """What changed becomes real on a machine that runs."""
    vm = _running(host, adapter)
    if vm is not None:
        power(host).connect(host, vm, adapter)


def _refuse_management(adapter: Adapter, what: str) -> None:
    if adapter.vm is None:
        raise not_emulated(f"{what} of the management operating system")


def _passed(host: Host, call: Call, adapter: Adapter) -> Iterator[Item]:
    if call.switch("Passthru"):
        yield adapter_item(host, adapter)


@emulates("Get-VMNetworkAdapter")
def get_adapter(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMNetworkAdapter -VMSnapshot")
    found: Iterator[Adapter | CmdletError] = (
        _named(host, call) if call.switch("All") else find.vm_adapters(host, call)
    )
    for one in found:
        if isinstance(one, CmdletError):
            yield one
        elif _wanted(host, call, one):
            yield adapter_item(host, one)


def _named(host: Host, call: Call) -> Iterator[Adapter | CmdletError]:
    pattern = str(call.get("Name", "*"))
    yield from (one for one in adapters(host) if wildcards.matches(pattern, one.name))


def _wanted(host: Host, call: Call, adapter: Adapter) -> bool:
    if call.has("IsLegacy") and adapter.legacy != call.get("IsLegacy"):
        return False
    if not call.has("SwitchName"):
        return True
    switch = hyperv(host).switches.get(adapter.switch or "")
    return switch is not None and wildcards.matches(str(call.get("SwitchName")), switch.name)


@emulates("Add-VMNetworkAdapter")
def add_adapter(host: Host, call: Call) -> Iterator[object]:
    known = {"SwitchName", "IsLegacy", "DynamicMacAddress", "StaticMacAddress", "DeviceNaming"}
    _refuse_unknown(call, known)
    if call.switch("ManagementOS"):
        yield from _passed(host, call, _add_to_management(host, call))
        return
    switch = find.switch(host, call) if call.has("SwitchName") else None
    address = mac(str(call.get("StaticMacAddress"))) if call.has("StaticMacAddress") else None

    def add(vm: VM) -> Iterator[Item]:
        _check_room(call, vm)
        name = str(call.get("Name") or default_adapter_name(host))
        one = Adapter(vm.id, name, switch.id if switch else None, legacy=bool(call.get("IsLegacy", False)))
        one.mac, one.dynamic_mac = address or NO_MAC, address is None
        one.device_naming = call.get("DeviceNaming", "Off")
        if vm.running:
            assign_macs(host, vm, one)
            power(host).plug(host, vm, one)
        vm.adapters.append(one)
        yield from _passed(host, call, one)

    yield from find.each(list(find.vms(host, call)), add)


def _check_room(call: Call, vm: VM) -> None:
    if vm.running and vm.generation == 1:
        raise wrong_state(vm, doing="Failed to add device 'Network Adapter'.")
    if call.get("IsLegacy") and vm.generation == 2:
        raise cannot_modify(vm, "Network Adapter", "Generation 2 has no legacy network adapters.")
    most = 4 if call.get("IsLegacy") else _MOST_ADAPTERS
    if sum(1 for one in vm.adapters if one.legacy == bool(call.get("IsLegacy", False))) >= most:
        raise cannot_modify(vm, "Network Adapter", f"It has {most} network adapters already.")


def _add_to_management(host: Host, call: Call) -> Adapter:
    if {"StaticMacAddress", "DeviceNaming", "IsLegacy"} & set(call.parameters):
        raise not_emulated("Add-VMNetworkAdapter -ManagementOS with an address of its own")
    if not call.has("SwitchName"):
        raise invalid("Specify the virtual switch of the network adapter with SwitchName.")
    switch = find.switch(host, call)
    if switch.kind == "Private":
        raise invalid("A network adapter of the management operating system cannot be on a private switch.")
    return ports.give(host, switch, str(call.get("Name") or switch.name))


@emulates("Set-VMNetworkAdapter")
def set_adapter(host: Host, call: Call) -> Iterator[object]:
    _refuse_unknown(call, {"StaticMacAddress", "DynamicMacAddress", *_SETTINGS, *_MORE})
    if call.has("StaticMacAddress") and call.switch("DynamicMacAddress"):
        raise invalid("The parameters StaticMacAddress and DynamicMacAddress cannot be used together.")
    address = mac(str(call.get("StaticMacAddress"))) if call.has("StaticMacAddress") else None

    def change(one: Adapter) -> Iterator[Item]:
        _refuse_management(one, "Set-VMNetworkAdapter")
        vm = _running(host, one)
        if vm is not None and (address not in (None, one.mac) or call.switch("DynamicMacAddress")):
            raise running_device(vm, one.name)
        if address:
            one.mac, one.dynamic_mac = address, False
        if call.switch("DynamicMacAddress") and not one.dynamic_mac:
            one.mac, one.dynamic_mac = NO_MAC, True
        for name, field in _SETTINGS.items():
            if call.has(name):
                setattr(one, field, call.get(name))
        one.more.update({field: call.get(name) for name, field in _MORE.items() if call.has(name)})
        yield from _passed(host, call, one)

    yield from find.each(list(find.vm_adapters(host, call)), change)


_SETTINGS = {
    "MacAddressSpoofing": "spoofing",
    "DhcpGuard": "dhcp_guard",
    "RouterGuard": "router_guard",
    "AllowTeaming": "teaming",
    "DeviceNaming": "device_naming",
    "PortMirroring": "mirroring",
}
"""Parameter and field."""
_MORE = {
    **{name: name for name in ("DynamicIPAddressLimit", "FixSpeed10G", "IeeePriorityTag", "StormLimit")},
    **{name: name for name in ("IovWeight", "IovQueuePairsRequested", "IovInterruptModeration")},
    **{name: name for name in ("TestReplicaPoolName", "TestReplicaSwitchName", "VirtualSubnetId")},
    "IPsecOffloadMaximumSecurityAssociation": "IPsecOffloadMaxSA",
    "ResourcePoolName": "PoolName",
    "VmmqEnabled": "VmmqEnabledRequested",
    "VmqWeight": "VMQWeight",
    "VrssEnabled": "VrssEnabledRequested",
}
"""Parameter and property, of settings without an effect here."""


@emulates("Rename-VMNetworkAdapter")
def rename_adapter(host: Host, call: Call) -> Iterator[object]:
    def rename(one: Adapter) -> Iterator[Item]:
        if one.vm is None:
            ports.rename(host, one, str(call.get("NewName")))
        one.name = str(call.get("NewName"))
        yield from _passed(host, call, one)

    yield from find.each(list(find.vm_adapters(host, call)), rename)


@emulates("Remove-VMNetworkAdapter")
def remove_adapter(host: Host, call: Call) -> Iterator[object]:
    def remove(one: Adapter) -> Iterator[Item]:
        vm = vm_of(host, one)
        if vm is None:
            yield from _passed(host, call, one)
            ports.take(host, one)
            return
        if vm.state == "Saved":
            raise wrong_state(vm, doing=f"Failed to remove device '{one.name}'.")
        if vm.running:
            if vm.generation == 1 or one.legacy:
                raise wrong_state(vm, doing=f"Failed to remove device '{one.name}'.")
            power(host).unplug(host, vm, one)
        yield from _passed(host, call, one)
        vm.adapters.remove(one)

    yield from find.each(list(find.vm_adapters(host, call, name=_name(call))), remove)


@emulates("Connect-VMNetworkAdapter")
def connect_adapter(host: Host, call: Call) -> Iterator[object]:
    _refuse_unknown(call, {"SwitchName", "VMSwitch"})
    switch = find.switch(host, call)

    def connect(one: Adapter) -> Iterator[Item]:
        _refuse_management(one, "Connect-VMNetworkAdapter")
        one.switch = switch.id
        reconnect(host, one)
        yield from _passed(host, call, one)

    yield from find.each(list(find.vm_adapters(host, call)), connect)


@emulates("Disconnect-VMNetworkAdapter")
def disconnect_adapter(host: Host, call: Call) -> Iterator[object]:
    def disconnect(one: Adapter) -> Iterator[Item]:
        _refuse_management(one, "Disconnect-VMNetworkAdapter")
        one.switch = None
        reconnect(host, one)
        yield from _passed(host, call, one)

    yield from find.each(list(find.vm_adapters(host, call)), disconnect)


@emulates("Get-VMNetworkAdapterVlan")
def get_vlan(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMNetworkAdapterVlan -VMSnapshot")
    everything = not {"VM", "VMName", "VMNetworkAdapter", "ManagementOS"} & set(call.parameters)
    found = adapters(host) if everything else find.vm_adapters(host, call, name="VMNetworkAdapterName")
    yield from find.each(found, lambda one: [vlan_item(host, one)])


@emulates("Set-VMNetworkAdapterVlan")
def set_vlan(host: Host, call: Call) -> Iterator[object]:
    vlan = wanted_vlan(call)

    def change(one: Adapter) -> Iterator[Item]:
        if vlan != one.vlan:
            _refuse_management(one, "a VLAN")
        one.vlan = vlan
        reconnect(host, one)
        if call.switch("Passthru"):
            yield vlan_item(host, one)

    yield from find.each(list(find.vm_adapters(host, call, name="VMNetworkAdapterName")), change)


_MODES = ("Access", "Trunk", "Untagged", "Isolated", "Community", "Promiscuous")


def wanted_vlan(call: Call) -> Vlan:
    """What Set-VMNetworkAdapterVlan asks for; a mode must come with its numbers."""
    modes = [
        one
        for one in ("Access", "Trunk", "Untagged", "Isolated", "Community", "Promiscuous")
        if call.switch(one)
    ]
    if len(modes) != 1:
        raise invalid("Specify one VLAN mode: Access, Trunk, Untagged, Isolated, Community or Promiscuous.")
    match modes[0]:
        case "Untagged":
            return Vlan()
        case "Access":
            return Vlan("Access", access=_vlan_id(call, "VlanId"))
        case "Trunk":
            allowed = _list(str(call.get("AllowedVlanIdList") or ""))
            return Vlan("Trunk", native=_vlan_id(call, "NativeVlanId", least=0), allowed=allowed)
        case mode:
            secondary = (
                _list(str(call.get("SecondaryVlanIdList") or ""))
                if mode == "Promiscuous"
                else [_vlan_id(call, "SecondaryVlanId")]
            )
            primary = _vlan_id(call, "PrimaryVlanId")
            return Vlan("Private", primary=primary, secondary=secondary, private_mode=mode)


def _vlan_id(call: Call, name: str, *, least: int = 1) -> int:
    number = call.get(name)
    if number is None or not least <= number <= 4094:
        raise failed(
            f"Failed to modify device 'Ethernet Switch Port Settings'.\r\n\r\nThe {name} is missing or not "
            f"between {least} and 4094.",
            error_id="InvalidParameter",
            category="InvalidArgument",
        )
    return int(number)


def _list(text: str) -> list[int]:
    """ "1-3,7" is [1, 2, 3, 7]."""
    numbers: list[int] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if ends is None:
            raise invalid(f"The VLAN list '{text}' is not valid.", text)
        numbers += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if not numbers or not all(1 <= one <= 4094 for one in numbers):
        raise invalid(f"The VLAN list '{text}' is not valid.", text)
    return sorted(set(numbers))


def _name(call: Call) -> str:
    return "VMNetworkAdapterName" if call.has("VMNetworkAdapterName") else "Name"


def _refuse_unknown(call: Call, known: set[str]) -> None:
    unknown = set(call.parameters) - known - _ABOUT
    if unknown:
        raise not_emulated(f"{call.cmdlet} -{', -'.join(sorted(unknown))}")
