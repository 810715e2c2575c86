"""Get-WindowsFeature and Get-WindowsOptionalFeature."""

from __future__ import annotations

from collections.abc import Iterator

from tests.winhost.engine import Call, CimEnum, CmdletError, Item, UInt32, emulates
from tests.winhost.net.cim import refuse
from tests.winhost.state import Host
from tests.winhost.wildcards import matches

_FEATURES = {
    "AD-Domain-Services": ("Active Directory Domain Services", "Role"),
    "DHCP": ("DHCP Server", "Role"),
    "DNS": ("DNS Server", "Role"),
    "FileAndStorage-Services": ("File and Storage Services", "Role"),
    "Hyper-V": ("Hyper-V", "Role"),
    "RemoteAccess": ("Remote Access", "Role"),
    "DirectAccess-VPN": ("DirectAccess and VPN (RAS)", "Role Service"),
    "Routing": ("Routing", "Role Service"),
    "Web-Server": ("Web Server (IIS)", "Role"),
    "NET-Framework-45-Core": (".NET Framework 4.8", "Feature"),
    "Containers": ("Containers", "Feature"),
    "Failover-Clustering": ("Failover Clustering", "Feature"),
    "NLB": ("Network Load Balancing", "Feature"),
    "RSAT": ("Remote Server Administration Tools", "Feature"),
    "RSAT-Hyper-V-Tools": ("Hyper-V Management Tools", "Feature"),
    "Hyper-V-Tools": ("Hyper-V GUI Management Tools", "Feature"),
    "Hyper-V-PowerShell": ("Hyper-V Module for Windows PowerShell", "Feature"),
    "Windows-Defender": ("Microsoft Defender Antivirus", "Feature"),
    "PowerShell": ("Windows PowerShell 5.1", "Feature"),
}
_ALWAYS = {"FileAndStorage-Services", "NET-Framework-45-Core", "Windows-Defender", "PowerShell"}
_PARENTS = {
    "DirectAccess-VPN": "RemoteAccess",
    "Routing": "RemoteAccess",
    "RSAT-Hyper-V-Tools": "RSAT",
    "Hyper-V-Tools": "RSAT-Hyper-V-Tools",
    "Hyper-V-PowerShell": "RSAT-Hyper-V-Tools",
}
_OPTIONAL = {
    "Microsoft-Hyper-V": ("Hyper-V", "Hyper-V"),
    "Microsoft-Hyper-V-Management-PowerShell": (
        "Hyper-V Module for Windows PowerShell",
        "Hyper-V-PowerShell",
    ),
    "Containers": ("Containers", "Containers"),
    "RemoteAccessServer": ("Remote Access", "RemoteAccess"),
    "IIS-WebServerRole": ("Web Server (IIS)", "Web-Server"),
}


@emulates("Get-WindowsFeature")
def get_windows_feature(host: Host, call: Call) -> Iterator[Item]:
    """Names that it does not know give nothing."""
    refuse(call, "ComputerName", "Credential", "LogPath", "Vhd")
    patterns = [str(one) for one in call.list("Name")] or ["*"]
    for name in _FEATURES:
        if any(matches(pattern, name) for pattern in patterns):
            yield _feature(host, name)


@emulates("Get-WindowsOptionalFeature")
def get_windows_optional_feature(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, "Path", "PackageName", "PackagePath", "ScratchDirectory", "SystemDrive", "WindowsDirectory")
    asked = call.get("FeatureName")
    if asked is None:
        for name in _OPTIONAL:
            yield _optional(host, name)
        return
    found = next((one for one in _OPTIONAL if one.lower() == str(asked).lower()), None)
    if found is None:
        raise CmdletError(
            f"Feature name {asked} is unknown.",
            exception="System.Runtime.InteropServices.COMException",
            error_id="Microsoft.Dism.Commands.GetWindowsOptionalFeatureCommand",
            category="NotSpecified",
            terminating=False,
        )
    yield _optional(host, found)


def _installed(host: Host, name: str) -> bool:
    below = [one for one, parent in _PARENTS.items() if parent == name]
    return name in host.features or name in _ALWAYS or any(_installed(host, one) for one in below)


def _feature(host: Host, name: str) -> Item:
    shown, kind = _FEATURES[name]
    on = _installed(host, name)
    depth = 1
    parent = _PARENTS.get(name)
    while parent:
        depth, parent = depth + 1, _PARENTS.get(parent)
    properties = {
        "Name": name,
        "DisplayName": shown,
        "Description": shown,
        "Installed": on,
        "InstallState": CimEnum(1, "Installed") if on else CimEnum(0, "Available"),
        "FeatureType": kind,
        "Path": shown,
        "Depth": depth,
        "DependsOn": [],
        "Parent": _PARENTS.get(name),
        "SubFeatures": [one for one, above in _PARENTS.items() if above == name],
        "SystemService": ["vmms"] if name == "Hyper-V" else [],
        "PostConfigurationNeeded": False,
    }
    return Item("Microsoft.Windows.ServerManager.Commands.Feature", name, properties)


def _optional(host: Host, name: str) -> Item:
    shown, feature = _OPTIONAL[name]
    on = _installed(host, feature)
    properties = {
        "FeatureName": name,
        "DisplayName": shown,
        "Description": shown,
        "RestartRequired": CimEnum(1, "Possible"),
        "State": CimEnum(2, "Enabled") if on else CimEnum(0, "Disabled"),
        "RestartNeeded": False,
        "Online": True,
        "LogPath": r"C:\Windows\Logs\DISM\dism.log",
        "LogLevel": UInt32(3),
    }
    return Item("Microsoft.Dism.Commands.AdvancedFeatureObject", name, properties)
