"""What PowerShell's binder is told of a cmdlet: its class, and its parameters' attributes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tests.winhost.clrtypes import Namespace, parameter_type, wanted
from tests.winhost.tables import Cmdlet, Parameter

_COMMON = {"WhatIf", "Confirm"}
_ASKS_FIRST = {
    "Disable-NetAdapter",
    "Remove-DnsClientNrptRule",
    "Remove-NetIPAddress",
    "Remove-NetNat",
    "Remove-NetNeighbor",
    "Remove-NetRoute",
    "Remove-VM",
    "Remove-VMSwitch",
    "Restart-NetAdapter",
    "Restart-VM",
    "Restore-VMSnapshot",
}
"""Their ConfirmImpact is High: without -Force or -Confirm:$false they ask."""
COMPILED = {
    "Hyper-V": "Microsoft.HyperV.PowerShell.Commands.{verb}{noun}",
    "CimCmdlets": "Microsoft.Management.Infrastructure.CimCmdlets.{verb}{noun}Command",
    "ServerManager": "Microsoft.Windows.ServerManager.Commands.{verb}{noun}Command",
    "BitsTransfer": "Microsoft.BackgroundIntelligentTransfer.Management.{verb}{noun}Command",
    "DISM": "Microsoft.Dism.Commands.{verb}{noun}Command",
}
"""Modules of compiled cmdlets, and their classes: these end their error ids."""
_VHD_CLASS = "Microsoft.Vhd.PowerShell.Cmdlets.{verb}{noun}"
"""Of the cmdlets for a disk's file; seen in their error ids, with GetVHD as the one in capitals."""
_BY_VALUE = {"ValueFromPipeline": True}
_BY_NAME = {"ValueFromPipelineByPropertyName": True}
_NEVER_PIPED = {"ParentOf", "ChildOf"}
_OTHERWISE: Mapping[tuple[str, str], Mapping[str, bool]] = {
    ("New-VM", "Name"): {**_BY_VALUE, **_BY_NAME},
    ("New-VHD", "Path"): {**_BY_VALUE, **_BY_NAME},
    ("New-VHD", "SourceDisk"): _BY_NAME,
    ("Mount-VHD", "SnapshotId"): _BY_NAME,
    ("Dismount-VHD", "SnapshotId"): _BY_NAME,
    ("Set-VMHardDiskDrive", "CimSession"): _BY_NAME,
    ("Get-VMHost", "CimSession"): _BY_NAME,
    ("Get-VMHost", "ComputerName"): _BY_VALUE,
    ("Get-VMHost", "Credential"): _BY_VALUE,
    ("Enable-VMIntegrationService", "Name"): {},
    ("Enable-VMIntegrationService", "VMName"): _BY_VALUE,
    ("Disable-VMIntegrationService", "Name"): {},
    ("Disable-VMIntegrationService", "VMName"): _BY_VALUE,
    ("New-VMSwitch", "CimSession"): _BY_NAME,
    ("New-VMSwitch", "ComputerName"): _BY_NAME,
    ("New-VMSwitch", "Credential"): _BY_NAME,
    ("New-VMSwitch", "NetAdapterInterfaceDescription"): _BY_NAME,
    ("New-VMSwitch", "NetAdapterName"): _BY_NAME,
    ("Set-VMSwitch", "CimSession"): _BY_NAME,
    ("Set-VMSwitch", "Name"): {},
    ("Set-VMSwitch", "NetAdapterName"): _BY_NAME,
    ("Set-VMNetworkAdapter", "VMName"): _BY_VALUE,
    ("Rename-VMNetworkAdapter", "VMName"): {},
    ("Connect-VMNetworkAdapter", "VMName"): {},
    ("Disconnect-VMNetworkAdapter", "VMName"): {},
    ("Find-NetRoute", "InterfaceIndex"): {},
    ("Get-NetNeighbor", "IPAddress"): {},
    ("Get-NetIPConfiguration", "CimSession"): _BY_NAME,
    ("Get-NetIPConfiguration", "CompartmentId"): _BY_NAME,
}
"""What the documents say against the rule of `_pipeline`."""
_POSITIONS = {
    ("New-VHD", "SizeBytes", "Differencing"): 2,
    ("Connect-VMNetworkAdapter", "SwitchName", "Name_SwitchName"): 2,
}
"""Of a parameter in one set, where it is not that in the others: the tables have one for all."""
_BY_PROPERTY = {"InterfaceAlias", "InterfaceIndex", "IPAddress", "InterfaceDescription"}


def asks(cmdlet: Cmdlet) -> bool:
    """It has -WhatIf and -Confirm."""
    return "WhatIf" in cmdlet.parameters


def impact(cmdlet: Cmdlet) -> str:
    return "High" if cmdlet.name in _ASKS_FIRST else "Medium"


def parameters(cmdlet: Cmdlet) -> list[Parameter]:
    """Its own, without those that PowerShell adds."""
    return [one for name, one in cmdlet.parameters.items() if name not in _COMMON]


def described(cmdlet: Cmdlet, space: Namespace) -> dict[str, Any]:
    """A compiled cmdlet, for bridge/emit.psm1."""
    verb, _, noun = cmdlet.name.partition("-")
    return {
        "class": _class(cmdlet.module, verb, noun),
        "verb": verb,
        "noun": noun,
        "default": cmdlet.sets[0] if cmdlet.sets else "",
        "asks": asks(cmdlet),
        "impact": impact(cmdlet),
        "parameters": [_described(cmdlet, one, space) for one in parameters(cmdlet)],
    }


def _class(module: str, verb: str, noun: str) -> str:
    if noun == "VHD":
        return _VHD_CLASS.format(verb=verb, noun=noun if verb == "Get" else "Vhd")
    return COMPILED[module].format(verb=verb, noun=noun)


def _described(cmdlet: Cmdlet, parameter: Parameter, space: Namespace) -> dict[str, Any]:
    kind = parameter_type(space, cmdlet, parameter)
    return {
        "name": parameter.name,
        "type": kind.name,
        "sets": attributes(cmdlet, parameter),
        "aliases": parameter.aliases,
        "values": kind.values,
        "object": kind.object,
    }


def attributes(cmdlet: Cmdlet, parameter: Parameter) -> list[dict[str, Any]]:
    """Of the parameter, one for each set that it is in."""
    return [_attribute(cmdlet, parameter, name, mandatory) for name, mandatory in parameter.sets.items()]


def position_in(cmdlet: Cmdlet, parameter: Parameter, name: str) -> int | None:
    """Its position in the set of that name; None: it has to be named."""
    return _POSITIONS.get((cmdlet.name, parameter.name, name), parameter.position)


def _attribute(cmdlet: Cmdlet, parameter: Parameter, name: str, mandatory: bool) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if name:
        said["ParameterSetName"] = name
    if mandatory:
        said["Mandatory"] = True
    position = position_in(cmdlet, parameter, name)
    if position is not None:
        said["Position"] = position
    said.update(_pipeline(cmdlet, parameter, mandatory))
    return said


def _pipeline(cmdlet: Cmdlet, parameter: Parameter, mandatory: bool) -> Mapping[str, bool]:
    """Whether it is taken from the pipeline, which the tables do not say: seen in the documents.

    What a cmdlet works on is taken by value, as object or, in Hyper-V, by names in the first position: a
    cmdlet that takes one name only does not take it from the pipeline. Files of disks and ids are taken
    from properties too. The network cmdlets take the interface and the address from properties.
    """
    if (cmdlet.name, parameter.name) in _OTHERWISE:
        return _OTHERWISE[cmdlet.name, parameter.name]
    base = parameter.type.removesuffix("[]")
    if cmdlet.module == "Hyper-V":
        return _hyperv_pipeline(cmdlet, parameter, base, mandatory)
    if base.startswith("CimInstance"):
        return _BY_VALUE
    if cmdlet.module.startswith("Net") and parameter.name in _BY_PROPERTY:
        return _BY_NAME
    return {}


def _hyperv_pipeline(cmdlet: Cmdlet, parameter: Parameter, base: str, mandatory: bool) -> Mapping[str, bool]:
    if base in _objects():
        return _BY_VALUE if mandatory and parameter.name not in _NEVER_PIPED else {}
    if parameter.name == "DiskNumber":
        return _BY_NAME
    if parameter.position != 0:
        return {}
    if parameter.name == "Id":
        return {**_BY_VALUE, **_BY_NAME}
    if cmdlet.name.endswith("-VHD") and parameter.name in ("Path", "VMId"):
        return {**_BY_VALUE, **_BY_NAME}
    if parameter.name in ("Name", "VMName", "Path") and parameter.type == "String[]":
        return {} if cmdlet.name.startswith("New-") else _BY_VALUE
    return {}


@cache
def _objects() -> frozenset[str]:
    """Short names of Hyper-V's classes."""
    names = (str(one["name"]) for one in wanted("2022")["classes"])
    return frozenset(name.rpartition(".")[2] for name in names)
