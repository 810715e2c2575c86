"""How Hyper-V's objects look in a console: the columns of their tables, as a .format.ps1xml."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

SPACE = "Microsoft.HyperV.PowerShell"
_MIB = "[int]($_.{} / 1MB)"
_ADAPTER = {
    "Name": "$_.Name",
    "IsManagementOs": "$_.IsManagementOs",
    "VMName": "$_.VMName",
    "SwitchName": "$_.SwitchName",
    "MacAddress": "$_.MacAddress",
    "Status": "$_.Status",
    "IPAddresses": "$_.IPAddresses",
}
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "VirtualMachine": {
        "Name": "$_.Name",
        "State": "$_.State",
        "CPUUsage(%)": "$_.CPUUsage",
        "MemoryAssigned(M)": _MIB.format("MemoryAssigned"),
        "Uptime": "$_.Uptime",
        "Status": "$_.Status",
        "Version": "$_.Version",
    },
    "VMHost": {
        "Name": "$_.Name",
        "LogicalProcessorCount": "$_.LogicalProcessorCount",
        "MemoryCapacity(M)": "$_.MemoryCapacity / 1MB",
        "VirtualMachineMigrationEnabled": "$_.VirtualMachineMigrationEnabled",
    },
    "VMSwitch": {
        "Name": "$_.Name",
        "SwitchType": "$_.SwitchType",
        "NetAdapterInterfaceDescription": "$_.NetAdapterInterfaceDescription",
    },
    "VMNetworkAdapter": _ADAPTER,
    "VMInternalNetworkAdapter": _ADAPTER,
    "VMNetworkAdapterVlanSetting": {
        "VMName": "$_.ParentAdapter.VMName",
        "VMNetworkAdapterName": "$_.ParentAdapter.Name",
        "Mode": "$_.OperationMode",
        "VlanList": "if ($_.AccessVlanId) { $_.AccessVlanId } else { $_.AllowedVlanIdListString }",
    },
    "HardDiskDrive": {
        "VMName": "$_.VMName",
        "ControllerType": "$_.ControllerType",
        "ControllerNumber": "$_.ControllerNumber",
        "ControllerLocation": "$_.ControllerLocation",
        "DiskNumber": "$_.DiskNumber",
        "Path": "$_.Path",
    },
    "DvdDrive": {
        "VMName": "$_.VMName",
        "ControllerType": "$_.ControllerType",
        "ControllerNumber": "$_.ControllerNumber",
        "ControllerLocation": "$_.ControllerLocation",
        "DvdMediaType": "$_.DvdMediaType",
        "Path": "$_.Path",
    },
    "VMIntegrationComponent": {
        "VMName": "$_.VMName",
        "Name": "$_.Name",
        "Enabled": "$_.Enabled",
        "PrimaryStatusDescription": "$_.PrimaryStatusDescription",
        "SecondaryStatusDescription": "$_.SecondaryStatusDescription",
    },
    "VMFirmware": {
        "VMName": "$_.VMName",
        "SecureBoot": "$_.SecureBoot",
        "SecureBootTemplate": "$_.SecureBootTemplate",
        "PreferredNetworkBootProtocol": "$_.PreferredNetworkBootProtocol",
        "BootOrder": "$_.BootOrder | ForEach-Object BootType",
    },
    "VMComPort": {"VMName": "$_.VMName", "Name": "$_.Name", "Path": "$_.Path"},
}


def hyperv() -> str:
    """Hyper-V.format.ps1xml."""
    views = "".join(_view(kind, columns) for kind, columns in _COLUMNS.items())
    return f"<Configuration><ViewDefinitions>{views}</ViewDefinitions></Configuration>\n"


def _view(kind: str, columns: Mapping[str, str]) -> str:
    heads = "".join(f"<TableColumnHeader><Label>{label}</Label></TableColumnHeader>" for label in columns)
    cells = "".join(
        f"<TableColumnItem><ScriptBlock>{escape(script)}</ScriptBlock></TableColumnItem>"
        for script in columns.values()
    )
    return (
        f"<View><Name>{kind}</Name><ViewSelectedBy><TypeName>{SPACE}.{kind}</TypeName></ViewSelectedBy>"
        f"<TableControl><TableHeaders>{heads}</TableHeaders><TableRowEntries><TableRowEntry>"
        f"<TableColumnItems>{cells}</TableColumnItems></TableRowEntry></TableRowEntries></TableControl></View>"
    )
