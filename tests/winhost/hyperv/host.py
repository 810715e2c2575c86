"""Get-VMHost and Set-VMHost."""

from __future__ import annotations

from collections.abc import Iterator

from tests.winhost.engine import Call, CmdletError, Enum, Item, TimeSpan, emulates, not_emulated
from tests.winhost.hyperv.failures import invalid
from tests.winhost.hyperv.items import SPACE, TEMPLATES
from tests.winhost.hyperv.model import hyperv
from tests.winhost.state import Host

CONFIGURATIONS = {
    "2016": ("5.0", "6.2", "7.0", "7.1", "8.0"),
    "2019": ("5.0", "6.2", "7.0", "7.1", "8.0", "8.1", "8.2", "8.3", "9.0"),
    "2022": ("8.0", "8.1", "8.2", "8.3", "9.0", "9.1", "9.2", "9.3", "10.0"),
    "2025": ("8.0", "8.1", "8.2", "8.3", "9.0", "9.1", "9.2", "9.3", "10.0", "10.5", "11.0", "11.1", "12.0"),
}
"""Versions of a machine's configuration that a host supports; the last is a new machine's."""
_SETTABLE = {
    "VirtualHardDiskPath": "disks_folder",
    "VirtualMachinePath": "machines_folder",
    "MacAddressMinimum": "mac_minimum",
    "MacAddressMaximum": "mac_maximum",
}
_REMOTE = {"ComputerName", "CimSession", "Credential", "Passthru"}


@emulates("Get-VMHost")
def get_vm_host(host: Host, call: Call) -> Iterator[Item]:
    yield host_item(host)


@emulates("Set-VMHost")
def set_vm_host(host: Host, call: Call) -> Iterator[Item]:
    unknown = set(call.parameters) - set(_SETTABLE) - _REMOTE
    if unknown:
        raise not_emulated(f"Set-VMHost -{', -'.join(sorted(unknown))}")
    for name, field in _SETTABLE.items():
        if call.has(name):
            setattr(hyperv(host), field, _checked(host, name, str(call.get(name))))
    if call.switch("Passthru"):
        yield host_item(host)


def _checked(host: Host, name: str, value: str) -> str:
    if name.startswith("MacAddress"):
        return mac(value)
    try:
        folder = host.local(value)
    except FileNotFoundError as exc:
        raise _no_folder(value) from exc
    if not folder.is_dir():
        raise _no_folder(value)
    return value


def _no_folder(path: str) -> CmdletError:
    return invalid(f"Failed to modify service settings.\r\n\r\nThe folder '{path}' was not found.", path)


def mac(text: str) -> str:
    """Twelve hexadecimal digits, upper case, from any usual way to write an address."""
    digits = text.replace("-", "").replace(":", "").replace(".", "").upper()
    if len(digits) != 12 or set(digits) - set("0123456789ABCDEF") or int(digits[:2], 16) & 1:
        raise invalid(f"The MAC address '{text}' is not valid.", text)
    return digits


def host_item(host: Host) -> Item:
    part = hyperv(host)
    templates = [
        Item(f"{SPACE}.SecureBootTemplate", key, {"Id": key, "Name": name, "Description": description})
        for key, (name, description) in TEMPLATES.items()
    ]
    properties = {
        "ComputerName": host.name,
        "Name": host.name,
        "FullyQualifiedDomainName": host.name,
        "IsDeleted": False,
        "LogicalProcessorCount": host.processors,
        "MemoryCapacity": host.memory,
        "VirtualHardDiskPath": part.disks_folder,
        "VirtualMachinePath": part.machines_folder,
        "MacAddressMinimum": part.mac_minimum,
        "MacAddressMaximum": part.mac_maximum,
        "SecureBootTemplates": templates,
        "SupportedVmVersions": list(CONFIGURATIONS[host.version]),
        "NumaSpanningEnabled": True,
        "EnableEnhancedSessionMode": False,
        "IovSupport": False,
        "IovSupportReasons": ["The system does not support SR-IOV."],
        "MaximumStorageMigrations": 2,
        "MaximumVirtualMachineMigrations": 2,
        "UseAnyNetworkForMigration": False,
        "VirtualMachineMigrationEnabled": False,
        "VirtualMachineMigrationAuthenticationType": Enum("MigrationAuthenticationType", "CredSSP"),
        "VirtualMachineMigrationPerformanceOption": Enum("VMMigrationPerformance", "Compression"),
        "ResourceMeteringSaveInterval": TimeSpan(3600),
    }
    return Item(f"{SPACE}.VMHost", host.name, properties)
