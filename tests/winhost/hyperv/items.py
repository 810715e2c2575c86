"""Machines and their parts as the objects that cmdlets give."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.winhost.engine import DateTime, Enum, Item, TimeSpan, rereads
from tests.winhost.hyperv import model, ports, services, storage
from tests.winhost.hyperv.model import VM, Adapter, Firmware, Switch, hyperv, power
from tests.winhost.state import Host

SPACE = "Microsoft.HyperV.PowerShell"
NOBODY = "00000000-0000-0000-0000-000000000000"
TEMPLATES = {
    model.WINDOWS: ("MicrosoftWindows", "Microsoft Windows"),
    model.UEFI_CA: ("MicrosoftUEFICertificateAuthority", "Microsoft UEFI Certificate Authority"),
    model.SHIELDED: ("OpenSourceShieldedVM", "Open Source Shielded VM"),
}
"""Secure Boot templates: id, and name and description."""
_NETWORK_ADAPTER = {"de-DE": "Netzwerkadapter"}
_NORMAL = {"de-DE": "Normaler Betrieb"}


def owner(host: Host, vm: VM | None) -> dict[str, Any]:
    """What every part says of its machine."""
    return {
        "ComputerName": host.name,
        "IsDeleted": False,
        "VMId": vm.id if vm else NOBODY,
        "VMName": vm.name if vm else "",
        "VMSnapshotId": NOBODY,
        "VMSnapshotName": "",
    }


def default_adapter_name(host: Host) -> str:
    return _NETWORK_ADAPTER.get(host.language, "Network Adapter")


def normal(host: Host) -> str:
    return _NORMAL.get(host.language, "Operating normally")


def vm_item(host: Host, vm: VM) -> Item:
    properties = {
        **_identity(host, vm),
        **_state(host, vm),
        **_settings(host, vm),
        "HardDrives": [one for one in drives(host, vm) if one.type.endswith("HardDiskDrive")],
        "DVDDrives": [one for one in drives(host, vm) if one.type.endswith("DvdDrive")],
        "NetworkAdapters": [adapter_item(host, one) for one in vm.adapters],
        "ComPort1": com_port_item(host, vm, 1),
        "ComPort2": com_port_item(host, vm, 2),
        "VMIntegrationService": [service_item(host, vm, one) for one in services.SERVICES],
    }
    if host.version == "2016":
        del properties["AutomaticCheckpointsEnabled"]
    return Item(f"{SPACE}.VirtualMachine", vm.id, properties)


@rereads(f"{SPACE}.VirtualMachine")
def _vm_again(host: Host, identity: str) -> Item | None:
    vm = hyperv(host).vms.get(identity)
    return vm_item(host, vm) if vm else None


@rereads(f"{SPACE}.VMNetworkAdapter")
def _adapter_again(host: Host, identity: str) -> Item | None:
    found = (one for one in model.adapters(host) if one.id == identity)
    return next((adapter_item(host, one) for one in found), None)


def drives(host: Host, vm: VM) -> list[Item]:
    """Its disks, then its DVDs."""
    from tests.winhost.hyperv import drive_items  # noqa: PLC0415 - it is made of what is in here

    disks = (drive_items.disk_item(host, vm, one) for one in storage.hard_disks(host, vm.id))
    return [*disks, *(drive_items.dvd_item(host, vm, one) for one in storage.dvds(host, vm.id))]


def _identity(host: Host, vm: VM) -> dict[str, Any]:
    return {
        "Id": vm.id,
        "Name": vm.name,
        "Generation": vm.generation,
        "Version": vm.version,
        "VirtualMachineType": Enum("VirtualMachineType", "RealizedVirtualMachine"),
        "VirtualMachineSubType": Enum("VirtualMachineSubType", f"Generation{vm.generation}"),
        "Path": vm.folder,
        "ConfigurationLocation": vm.folder,
        "SnapshotFileLocation": vm.checkpoint_folder,
        "SmartPagingFilePath": vm.paging_folder,
        "ComputerName": host.name,
        "CreationTime": DateTime(datetime.fromtimestamp(vm.created, UTC).isoformat()),
        "IsClustered": False,
        "IsDeleted": False,
        "SizeOfSystemFiles": 28754,
    }


def _state(host: Host, vm: VM) -> dict[str, Any]:
    runs = vm.state == "Running"
    return {
        "State": Enum("VMState", vm.state),
        "Status": normal(host),
        "StatusDescriptions": [normal(host)],
        "OperationalStatus": [Enum("VMOperationalStatus", "Ok")],
        "PrimaryOperationalStatus": Enum("VMOperationalStatus", "Ok"),
        "PrimaryStatusDescription": normal(host),
        "Uptime": TimeSpan(time.monotonic() - vm.started if vm.started is not None else 0),
        "Heartbeat": Enum("VMHeartbeatStatus", heartbeat(host, vm)) if vm.running else None,
        "MemoryAssigned": vm.memory.startup if vm.running else 0,
        "MemoryDemand": vm.memory.startup // 4 if runs else 0,
        "MemoryStatus": "OK" if runs and vm.memory.dynamic else "",
        "CPUUsage": 0,
        "IntegrationServicesState": "",
        "ReplicationState": Enum("VMReplicationState", "Disabled"),
        "ReplicationHealth": Enum("VMReplicationHealthState", "NotApplicable"),
        "ReplicationMode": Enum("VMReplicationMode", "None"),
    }


def _settings(host: Host, vm: VM) -> dict[str, Any]:
    return {
        "Notes": vm.notes,
        "ProcessorCount": vm.processor.count,
        "MemoryStartup": vm.memory.startup,
        "MemoryMinimum": vm.memory.minimum,
        "MemoryMaximum": vm.memory.maximum,
        "DynamicMemoryEnabled": vm.memory.dynamic,
        "AutomaticStartAction": Enum("StartAction", vm.start_action),
        "AutomaticStartDelay": vm.start_delay,
        "AutomaticStopAction": Enum("StopAction", vm.stop_action),
        "AutomaticCriticalErrorAction": Enum("CriticalErrorAction", "Pause"),
        "AutomaticCriticalErrorActionTimeout": 30,
        "AutomaticCheckpointsEnabled": vm.automatic_checkpoints,
        "CheckpointType": Enum("CheckpointType", vm.checkpoint_type),
        "GuestControlledCacheTypes": False,
        "LockOnDisconnect": Enum("OnOffState", "Off"),
        "LowMemoryMappedIoSpace": 128 * model.MiB,
        "HighMemoryMappedIoSpace": 512 * model.MiB,
        "EnhancedSessionTransportType": Enum("EnhancedSessionTransportType", "VMBus"),
        **vm.more,
    }


def heartbeat(host: Host, vm: VM) -> str:
    """A member of VMHeartbeatStatus; switched off, the host is told nothing."""
    if not services.enabled(vm, services.HEARTBEAT):
        return "Disabled"
    return power(host).heartbeat(host, vm)


def adapter_item(host: Host, adapter: Adapter) -> Item:
    vm = hyperv(host).vms.get(adapter.vm) if adapter.vm else None
    switch = hyperv(host).switches.get(adapter.switch) if adapter.switch else None
    runs = vm is not None and vm.running
    kind = "VMNetworkAdapter" if adapter.vm else "VMInternalNetworkAdapter"
    properties = {
        **owner(host, vm),
        "Id": f"Microsoft:{(vm.id if vm else NOBODY).upper()}\\{adapter.id.upper()}",
        "AdapterId": adapter.id.upper(),
        "Name": adapter.name,
        "SwitchName": switch.name if switch else "",
        "SwitchId": switch.id if switch else None,
        "Connected": switch is not None,
        "MacAddress": adapter.mac if adapter.vm else ports.address(host, adapter),
        "DynamicMacAddressEnabled": adapter.dynamic_mac,
        "IPAddresses": list(power(host).addresses(host, vm, adapter)) if vm and runs else [],
        "IsManagementOs": adapter.vm is None,
        "IsLegacy": adapter.legacy,
        "IsSynthetic": not adapter.legacy,
        "Status": [Enum("VMNetworkAdapterOperationalStatus", "Ok")] if runs else [],
        "StatusDescription": ["OK"] if runs else [],
        "MacAddressSpoofing": Enum("OnOffState", adapter.spoofing),
        "DhcpGuard": Enum("OnOffState", adapter.dhcp_guard),
        "RouterGuard": Enum("OnOffState", adapter.router_guard),
        "AllowTeaming": Enum("OnOffState", adapter.teaming),
        "DeviceNaming": Enum("OnOffState", adapter.device_naming),
        "IeeePriorityTag": Enum("OnOffState", "Off"),
        "FixSpeed10G": Enum("OnOffState", "Off"),
        "PortMirroringMode": Enum("VMNetworkAdapterPortMirroringMode", adapter.mirroring),
        "ClusterMonitored": True,
        "VlanSetting": vlan_item(host, adapter, alone=True),
        **adapter.more,
    }
    return Item(f"{SPACE}.{kind}", adapter.id, properties)


def vlan_item(host: Host, adapter: Adapter, *, alone: bool = False) -> Item:
    """`alone`: without the adapter it belongs to, which would hold it again."""
    vlan = adapter.vlan
    private = vlan.private_mode
    properties = {
        "ComputerName": host.name,
        "IsDeleted": False,
        "IsTemplate": False,
        "OperationMode": Enum("VMNetworkAdapterVlanMode", vlan.mode),
        "AccessVlanId": vlan.access,
        "NativeVlanId": vlan.native,
        "AllowedVlanIdList": vlan.allowed,
        "AllowedVlanIdListString": ranges(vlan.allowed),
        "PrimaryVlanId": vlan.primary,
        "SecondaryVlanId": vlan.secondary[0] if vlan.secondary else 0,
        "SecondaryVlanIdList": vlan.secondary,
        "SecondaryVlanIdListString": ranges(vlan.secondary),
        "PrivateVlanMode": Enum("VMNetworkAdapterPrivateVlanMode", private) if private else None,
    }
    if not alone:
        properties["ParentAdapter"] = adapter_item(host, adapter)
    return Item(f"{SPACE}.VMNetworkAdapterVlanSetting", adapter.id, properties)


def ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 7] is "1-3,7"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in parts)


def com_port_item(host: Host, vm: VM, number: int) -> Item:
    properties = {
        **owner(host, vm),
        "Id": f"Microsoft:{vm.id.upper()}\\{number - 1}",
        "Name": f"COM {number}",
        "Path": vm.com_ports[number],
        "DebuggerMode": Enum("OnOffState", "Off"),
    }
    return Item(f"{SPACE}.VMComPort", f"{vm.id}/{number}", properties)


def service_item(host: Host, vm: VM, service: str) -> Item:
    on, beats = services.enabled(vm, service), vm.running and power(host).heartbeat(host, vm).startswith("Ok")
    status = "Ok" if beats else "NoContact"
    text = {"Ok": "OK", "NoContact": "No Contact"}[status]
    told = on and vm.running
    properties = {
        **owner(host, vm),
        "Id": f"Microsoft:{vm.id.upper()}\\{service}",
        "Name": services.name(service, host.language),
        "Enabled": on,
        "OperationalStatus": [Enum("VMIntegrationComponentOperationalStatus", status)] if told else [],
        "PrimaryOperationalStatus": Enum("VMIntegrationComponentOperationalStatus", status) if told else None,
        "PrimaryStatusDescription": text if told else "",
        "SecondaryStatusDescription": "",
        "StatusDescription": [text] if told else [],
    }
    return Item(f"{SPACE}.VMIntegrationComponent", f"{vm.id}/{service}", properties)


def firmware_item(host: Host, vm: VM) -> Item:
    firmware: Firmware = vm.firmware
    template, _ = TEMPLATES.get(firmware.template, ("", ""))
    properties = {
        **owner(host, vm),
        "SecureBoot": Enum("OnOffState", firmware.secure_boot),
        "SecureBootTemplate": template,
        "SecureBootTemplateId": firmware.template,
        "BootOrder": [
            *(_boot_file(host, vm, path) for path in firmware.loaders),
            *(_boot_source(host, vm, one) for one in boot_devices(host, vm)),
        ],
        "ConsoleMode": Enum("ConsoleModeType", firmware.console),
        "PauseAfterBootFailure": Enum("OnOffState", firmware.pause_after_failure),
        "PreferredNetworkBootProtocol": Enum("IPProtocolPreference", firmware.network_protocol),
    }
    return Item(f"{SPACE}.VMFirmware", vm.id, properties)


def boot_devices(host: Host, vm: VM) -> list[Item]:
    """In the firmware's order; what it does not name yet comes last."""
    devices = {one.id: one for one in [*drives(host, vm), *(adapter_item(host, a) for a in vm.adapters)]}
    order = [one for one in vm.firmware.boot_order if one in devices]
    return [devices[one] for one in [*order, *(one for one in devices if one not in order)]]


def _boot_source(host: Host, vm: VM, device: Item) -> Item:
    network = device.type.endswith("VMNetworkAdapter")
    properties = {
        **owner(host, vm),
        "BootType": Enum("BootSourceType", "Network" if network else "Drive"),
        "Description": "EFI Network" if network else "EFI SCSI Device",
        "Device": device,
        "FirmwarePath": f"\\AcpiEx(VMBus,0,0)\\VenHw({device.id.upper()})",
    }
    return Item(f"{SPACE}.VMBootSource", device.id, properties)


def _boot_file(host: Host, vm: VM, path: str) -> Item:
    properties = {
        **owner(host, vm),
        "BootType": Enum("BootSourceType", "File"),
        "Description": "debian",
        "Device": None,
        "FirmwarePath": f"\\HD(1,GPT,5A2F0C11-0000-4000-8000-000000000001,0x800,0x1F800)\\{path}",
    }
    return Item(f"{SPACE}.VMBootSource", f"{vm.id}/{path}", properties)


def switch_item(host: Host, switch: Switch) -> Item:
    properties = {
        "ComputerName": host.name,
        "IsDeleted": False,
        "Id": switch.id,
        "Name": switch.name,
        "Notes": switch.notes,
        "SwitchType": Enum("VMSwitchType", switch.kind),
        "AllowManagementOS": switch.management if switch.kind == "External" else switch.kind == "Internal",
        "NetAdapterInterfaceDescription": switch.uplink,
        "NetAdapterInterfaceDescriptions": [switch.uplink] if switch.uplink else [],
        "NetAdapterInterfaceGuid": [],
        "BandwidthReservationMode": Enum("VMSwitchBandwidthMode", "Absolute"),
        "EmbeddedTeamingEnabled": False,
        "IovEnabled": False,
        **({} if host.version == "2016" else {"SoftwareRscEnabled": True}),
        **switch.more,
    }
    return Item(f"{SPACE}.VMSwitch", switch.id, properties)


def part_item(host: Host, vm: VM, kind: str, name: str, properties: Mapping[str, Any]) -> Item:
    """A machine's processor, memory or security: one of each."""
    identity = {"Id": f"Microsoft:{vm.id.upper()}\\{kind}", "Name": name} if name else {}
    return Item(f"{SPACE}.{kind}", vm.id, {**owner(host, vm), **identity, **properties})
