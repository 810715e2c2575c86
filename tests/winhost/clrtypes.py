"""Which .NET types the modules need, and the one that a parameter is declared with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.winhost import tables
from tests.winhost.tables import Cmdlet, Parameter

HYPERV = "Microsoft.HyperV.PowerShell"
CDXML = "Microsoft.PowerShell.Cmdletization.GeneratedTypes"
CIM = "Microsoft.Management.Infrastructure.CimInstance"
_ROOT = f"{HYPERV}.VirtualizationObject"
_VHD = "Microsoft.Vhd.PowerShell"
_OF_VHD = {
    "VhdFormat",
    "VhdType",
    "VhdCompactMode",
    "VirtualHardDisk",
    "VirtualHardDiskPmemAddressAbstractionType",
}
"""What belongs to the namespace of virtual disks."""
_KNOWN = {
    "Boolean": "bool",
    "Byte": "byte",
    "CultureInfo": "cultureinfo",
    "DateTime": "datetime",
    "Guid": "guid",
    "Hashtable": "hashtable",
    "IDictionary": "System.Collections.IDictionary",
    "Int16": "int16",
    "Int32": "int",
    "Int64": "long",
    "Object": "object",
    "PSCredential": "pscredential",
    "PSObject": "psobject",
    "ScriptBlock": "scriptblock",
    "String": "string",
    "SwitchParameter": "switch",
    "TimeSpan": "timespan",
    "UInt16": "uint16",
    "UInt32": "uint32",
    "UInt64": "uint64",
    "Uri": "uri",
    "Version": "version",
    "WildcardPattern": "string",
}
_BASES = {
    "VMSnapshot": "VirtualMachineBase",
    "VirtualMachine": "VirtualMachineBase",
    "DvdDrive": "Drive",
    "HardDiskDrive": "Drive",
    "KeyStorageDrive": "Drive",
    "Drive": "VMComponentObject",
    "VMNetworkAdapter": "VMNetworkAdapterBase",
    "VMInternalNetworkAdapter": "VMNetworkAdapterBase",
    "VMExternalNetworkAdapter": "VMNetworkAdapterBase",
    "VMNetworkAdapterBase": "VMComponentObject",
    "VMScsiController": "VMDriveController",
    "VMIdeController": "VMDriveController",
    "VMPmemController": "VMDriveController",
    "VMDriveController": "VMComponentObject",
    "VMFirmware": "VMComponentObject",
    "VMBios": "VMComponentObject",
    "VMProcessor": "VMComponentObject",
    "VMMemory": "VMComponentObject",
    "VMComPort": "VMComponentObject",
    "VMIntegrationComponent": "VMComponentObject",
    "VMSecurity": "VMComponentObject",
    "VMBootSource": "VMComponentObject",
}
"""Which class a class derives from; the others are VirtualizationObjects."""
_OWNED = {
    "CimSession": "CimSession",
    "ComputerName": "String",
    "IsDeleted": "Boolean",
    "VMId": "Guid",
    "VMName": "String",
    "VMSnapshotId": "Guid",
    "VMSnapshotName": "String",
}
_MORE: dict[str, dict[str, str]] = {
    "VMIdeController": {
        **_OWNED,
        "ControllerNumber": "Int32",
        "Drives": "Drive[]",
        "Id": "String",
        "IsTemplate": "Boolean",
        "Name": "String",
    },
    "SecureBootTemplate": {"Id": "Guid", "Name": "String", "Description": "String"},
    "VMBootSource": {
        "BootType": "BootSourceType",
        "Description": "String",
        "Device": "VMComponentObject",
        "FirmwarePath": "String",
        **_OWNED,
    },
    "VMSwitchExtension": {
        "Enabled": "Boolean",
        "ExtensionType": "VMSwitchExtensionType",
        "Id": "String",
        "Name": "String",
        "Running": "Boolean",
        "SwitchId": "Guid",
        "SwitchName": "String",
    },
    "VMBios": {"NumLockEnabled": "Boolean", "StartupOrder": "BootDevice[]", **_OWNED},
    "VMFloppyDiskDrive": {"Id": "String", "Name": "String", "Path": "String", "PoolName": "String", **_OWNED},
    "VMSecurity": {
        "TpmEnabled": "Boolean",
        "KsdEnabled": "Boolean",
        "Shielded": "Boolean",
        "EncryptStateAndVmMigrationTraffic": "Boolean",
        "VirtualizationBasedSecurityOptOut": "Boolean",
        "BindToHostTpm": "Boolean",
        **_OWNED,
    },
}
"""Classes that the tables leave out, as far as they are needed."""
_MORE_ENUMS = {"BootSourceType": {"Unknown": 0, "Drive": 1, "Network": 2, "File": 3}}
_ABSENT = {
    ("2016", "VirtualMachine", "AutomaticCheckpointsEnabled"),
    ("2016", "VMSwitch", "SoftwareRscEnabled"),
    ("2016", "VMSnapshot", "IsAutomaticCheckpoint"),
}
_NUMBERS = {
    "AddressFamily": {"IPv4": 2, "IPv6": 23},
    "RecordType": {
        "A": 1,
        "NS": 2,
        "CNAME": 5,
        "SOA": 6,
        "PTR": 12,
        "MX": 15,
        "TXT": 16,
        "AAAA": 28,
        "SRV": 33,
    },
}
_FROM_ONE = {"Protocol", "Store"}
"""CIM's enums that count from 1 and not from 0."""


@dataclass(frozen=True)
class Namespace:
    """A module of a Windows version."""

    version: str
    module: str


@dataclass(frozen=True)
class Kind:
    """A parameter's type as PowerShell writes it; its accepted values; the type name its object must have."""

    name: str
    values: tuple[str, ...] = ()
    object: str | None = None


def parameter_type(space: Namespace, cmdlet: Cmdlet, parameter: Parameter) -> Kind:
    base = parameter.type.removesuffix("[]")
    array = "[]" if parameter.type.endswith("[]") else ""
    if base in _KNOWN:
        return Kind(_KNOWN[base] + array, _values(base, parameter))
    if base == "CimInstance" or base.startswith("CimInstance#"):
        return Kind("object" + array, object=f"{CIM}{_cim_class(cmdlet, parameter)}")
    name = enum_name(cmdlet, base) if parameter.values else full_name(base)
    return Kind((name if name in _names(space.version) else "object") + array)


def _cim_class(cmdlet: Cmdlet, parameter: Parameter) -> str:
    """The class an object must have: InputObject that of the noun, the others as they are named."""
    if cmdlet.module == "CimCmdlets":
        return ""
    if parameter.name == "InputObject":
        return f"#MSFT_{cmdlet.name.partition('-')[2]}"
    if not parameter.name.startswith("Associated"):
        return ""
    name = parameter.name.removeprefix("Associated")
    return f"#MSFT_{name}" if name.startswith("Net") else f"#MSFT_Net{name}"


def _values(base: str, parameter: Parameter) -> tuple[str, ...]:
    if not parameter.values or base not in ("String", "Int16", "UInt32"):
        return ()
    return parameter.values


def enum_name(cmdlet: Cmdlet, base: str) -> str:
    """The full name of a parameter's enum: Hyper-V's own, or one of CIM's, which go by the noun."""
    if cmdlet.module == "Hyper-V":
        return full_name(base)
    return f"{CDXML}.{cmdlet.name.partition('-')[2]}.{base}"


def full_name(short: str) -> str:
    """Of one of Hyper-V's types."""
    return f"{_VHD if short in _OF_VHD else HYPERV}.{short}"


@cache
def _names(version: str) -> frozenset[str]:
    said = wanted(version)
    return frozenset([*said["enums"], *(one["name"] for one in said["classes"])])


@cache
def wanted(version: str) -> Mapping[str, Any]:
    """Every type of a Windows version's modules, for bridge/emit.psm1."""
    return {
        "enums": _enums(version),
        "classes": _classes(version),
        "exceptions": [{"name": f"{HYPERV}.VirtualizationException", "base": None}],
    }


def _enums(version: str) -> dict[str, dict[str, int]]:
    known = {full_name(name): dict(members) for name, members in tables.types().enums.items()}
    known |= {full_name(name): members for name, members in _MORE_ENUMS.items()}
    found: dict[str, list[str]] = {}
    for cmdlet, parameter in _parameters(version):
        base = parameter.type.removesuffix("[]")
        name = enum_name(cmdlet, base)
        if parameter.values and base not in _KNOWN and name not in known:
            found.setdefault(name, []).extend(parameter.values)
    return known | {name: _numbered(name, values) for name, values in found.items()}


def _numbered(name: str, values: list[str]) -> dict[str, int]:
    short = name.rpartition(".")[2]
    if short in _NUMBERS:
        return _NUMBERS[short]
    start = 1 if short in _FROM_ONE else 0
    return {value: number for number, value in enumerate(dict.fromkeys(values), start)}


def _classes(version: str) -> list[dict[str, Any]]:
    """Bases before what derives from them; properties with full names."""
    properties = {name: dict(members) for name, members in tables.types().classes.items()} | _MORE
    properties["VirtualHardDisk"]["Number"] = "UInt32?"
    properties["VMInternalNetworkAdapter"] = properties["VMNetworkAdapter"]
    named = set(properties) | set(_BASES) | set(_BASES.values()) | _referred(version, properties)
    full = {name: full_name(name) for name in named | set(tables.types().enums) | set(_MORE_ENUMS)}
    made = [
        {
            "name": full[name],
            "base": full[_BASES[name]] if name in _BASES else _ROOT,
            "properties": {
                key: _full(kind, full)
                for key, kind in properties.get(name, {}).items()
                if (version, name, key) not in _ABSENT
            },
        }
        for name in sorted(named, key=lambda one: (_depth(one), one))
    ]
    cim = {"name": CIM, "base": _ROOT, "properties": {}}
    return [{"name": _ROOT, "base": None, "properties": {}}, *made, cim]


def _referred(version: str, properties: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Classes that only a parameter or a property names: empty ones, so that nothing else fits."""
    known = set(_KNOWN) | set(tables.types().enums) | set(_MORE_ENUMS) | {"CimSession", "CimInstance"}
    named = {
        parameter.type.removesuffix("[]")
        for cmdlet, parameter in _parameters(version)
        if cmdlet.module == "Hyper-V" and not parameter.values
    }
    named |= {re.sub(r"(\[\]|\?)$", "", kind) for members in properties.values() for kind in members.values()}
    return {name for name in named - known if "#" not in name}


def _depth(name: str) -> int:
    return 1 + _depth(_BASES[name]) if name in _BASES else 0


def _full(kind: str, names: Mapping[str, str]) -> str:
    short, suffix = re.fullmatch(r"(.*?)(\[\]|\?)?", kind).groups()  # type: ignore[union-attr]
    return names.get(short, short) + (suffix or "")


def _parameters(version: str) -> Iterator[tuple[Cmdlet, Parameter]]:
    for cmdlet in tables.cmdlets(version).values():
        for parameter in cmdlet.parameters.values():
            yield cmdlet, parameter
