"""What a fresh Windows Server with Hyper-V has in its registry, services and access rules."""

from __future__ import annotations

from typing import Any

BUILDS = {"2016": 14393, "2019": 17763, "2022": 20348, "2025": 26100}
REVISIONS = {"2016": 7159, "2019": 6054, "2022": 2527, "2025": 1742}
_FRAMEWORKS = {
    "2016": ("4.6.01586", 394802),
    "2019": ("4.7.03190", 461814),
    "2022": ("4.8.04161", 528449),
    "2025": ("4.8.09032", 533325),
}
_RELEASES = {"2016": "1607", "2019": "1809", "2022": "2009", "2025": "2009"}
_NT = r"HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_SERVICES = {
    "BFE": ("Base Filtering Engine", "Running", "Automatic", ["RpcSs"]),
    "BITS": ("Background Intelligent Transfer Service", "Stopped", "Manual", ["RpcSs"]),
    "Dhcp": ("DHCP Client", "Running", "Automatic", []),
    "Dnscache": ("DNS Client", "Running", "Automatic", []),
    "EventLog": ("Windows Event Log", "Running", "Automatic", []),
    "hns": ("Host Network Service", "Running", "Manual", ["RpcSs", "mpssvc"]),
    "KeyIso": ("CNG Key Isolation", "Running", "Manual", ["RpcSs"]),
    "LanmanServer": ("Server", "Running", "Automatic", []),
    "LanmanWorkstation": ("Workstation", "Running", "Automatic", []),
    "mpssvc": ("Windows Defender Firewall", "Running", "Automatic", ["BFE"]),
    "RemoteAccess": ("Routing and Remote Access", "Stopped", "Disabled", ["RpcSs"]),
    "RpcSs": ("Remote Procedure Call (RPC)", "Running", "Automatic", []),
    "SharedAccess": ("Internet Connection Sharing (ICS)", "Stopped", "Disabled", ["BFE"]),
    "TermService": ("Remote Desktop Services", "Running", "Manual", ["RpcSs"]),
    "vmcompute": ("Hyper-V Host Compute Service", "Running", "Manual", ["RpcSs"]),
    "vmms": ("Hyper-V Virtual Machine Management", "Running", "Automatic", ["RpcSs", "Winmgmt"]),
    "W32Time": ("Windows Time", "Running", "Automatic", []),
    "Winmgmt": ("Windows Management Instrumentation", "Running", "Automatic", ["RpcSs"]),
    "WinRM": ("Windows Remote Management (WS-Management)", "Running", "Automatic", ["RpcSs"]),
    "wuauserv": ("Windows Update", "Stopped", "Manual", ["RpcSs"]),
}
_GERMAN = {
    "BFE": "Basisfiltermodul",
    "EventLog": "Windows-Ereignisprotokoll",
    "hns": "Hostnetzwerkdienst",
    "RemoteAccess": "Routing und RAS",
    "RpcSs": "Remoteprozeduraufruf (RPC)",
    "vmcompute": "Hyper-V-Hostserverdienst",
    "vmms": "Hyper-V-Verwaltung virtueller Computer",
    "W32Time": "Windows-Zeitgeber",
    "Winmgmt": "Windows-Verwaltungsinstrumentation",
    "WinRM": "Windows-Remoteverwaltung (WS-Verwaltung)",
}
_UNSTOPPABLE = {"RpcSs", "BFE", "mpssvc", "Dnscache"}


def services(language: str) -> dict[str, Any]:
    return {
        name: {
            "displayName": _GERMAN.get(name, shown) if language == "de-DE" else shown,
            "status": status,
            "startType": start,
            "dependsOn": needs,
            "canStop": name not in _UNSTOPPABLE,
        }
        for name, (shown, status, start, needs) in _SERVICES.items()
    }


def registry(version: str, name: str) -> dict[str, Any]:
    framework, release = _FRAMEWORKS[version]
    build = str(BUILDS[version])
    current = {
        "ProductName": f"Windows Server {version} Standard",
        "CurrentVersion": "6.3",
        "CurrentMajorVersionNumber": 10,
        "CurrentMinorVersionNumber": 0,
        "CurrentBuild": build,
        "CurrentBuildNumber": build,
        "UBR": REVISIONS[version],
        "EditionID": "ServerStandard",
        "InstallationType": "Server Core",
        "ReleaseId": _RELEASES[version],
    }
    if version in ("2022", "2025"):
        current["DisplayVersion"] = {"2022": "21H2", "2025": "24H2"}[version]
    return {
        _NT: current,
        rf"{_NT}\Virtualization": {"MinVmVersionForCpuBasedMitigations": "1.0"},
        r"HKLM:\SOFTWARE\Microsoft\NET Framework Setup\NDP\v4\Full": {
            "Version": framework,
            "Release": release,
        },
        r"HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System": {"EnableLUA": 1},
        r"HKLM:\SYSTEM\CurrentControlSet\Control\ComputerName\ComputerName": {"ComputerName": name},
        r"HKLM:\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters": {"Hostname": name, "IPEnableRouter": 0},
        r"HKLM:\SYSTEM\CurrentControlSet\Services\vmms": {"Start": 2, "ObjectName": "LocalSystem"},
        r"HKCU:\SOFTWARE": {},
    }


def acls() -> dict[str, Any]:
    r"""C:\ProgramData lets every user read and make files; the drive's root is the stand-in's own."""
    everything = "ContainerInherit, ObjectInherit"
    rules = [
        ("NT AUTHORITY\\SYSTEM", "FullControl", everything, "None"),
        ("BUILTIN\\Administrators", "FullControl", everything, "None"),
        ("CREATOR OWNER", "FullControl", everything, "InheritOnly"),
        ("BUILTIN\\Users", "ReadAndExecute, Synchronize", everything, "None"),
        ("BUILTIN\\Users", "Write", "ContainerInherit", "None"),
    ]
    return {
        r"C:\ProgramData": {
            "owner": "NT AUTHORITY\\SYSTEM",
            "group": "NT AUTHORITY\\SYSTEM",
            "protected": True,
            "rules": [
                {
                    "identity": who,
                    "rights": what,
                    "type": "Allow",
                    "inheritance": flags,
                    "propagation": spread,
                }
                for who, what, flags, spread in rules
            ],
        }
    }
