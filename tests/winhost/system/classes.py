"""The instances of WMI's classes in root/cimv2: each a list of rows, the key first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from tests.winhost.engine import DateTime, UInt16, UInt32, UInt64, not_emulated
from tests.winhost.state import Host
from tests.winhost.system import defaults
from tests.winhost.system.state import Process, System
from tests.winhost.system.stores import Services

Row = Mapping[str, Any]
_START = {"Automatic": "Auto", "Manual": "Manual", "Disabled": "Disabled"}
GROUPS = {
    "Administrators": "S-1-5-32-544",
    "Users": "S-1-5-32-545",
    "Guests": "S-1-5-32-546",
    "Remote Desktop Users": "S-1-5-32-555",
    "Hyper-V Administrators": "S-1-5-32-578",
    "Remote Management Users": "S-1-5-32-580",
}
_GERMAN_GROUPS = {
    "Administrators": "Administratoren",
    "Users": "Benutzer",
    "Guests": "Gäste",
    "Remote Desktop Users": "Remotedesktopbenutzer",
    "Hyper-V Administrators": "Hyper-V-Administratoren",
    "Remote Management Users": "Remoteverwaltungsbenutzer",
}


def group_name(host: Host, name: str) -> str:
    """As the host's language shows it."""
    return _GERMAN_GROUPS.get(name, name) if host.language == "de-DE" else name


def operating_system(host: Host) -> list[Row]:
    build = str(defaults.BUILDS[host.version])
    product = f"Microsoft Windows Server {host.version} Standard"
    return [
        {
            "Name": rf"{product}|C:\Windows|\Device\Harddisk0\Partition3",
            "Caption": product,
            "Version": f"10.0.{build}",
            "BuildNumber": build,
            "BuildType": "Multiprocessor Free",
            "CSName": host.name,
            "OSArchitecture": "64-Bit" if host.language == "de-DE" else "64-bit",
            "OSLanguage": UInt32(1031 if host.language == "de-DE" else 1033),
            "MUILanguages": [host.language],
            "Locale": "0407" if host.language == "de-DE" else "0409",
            "ProductType": UInt32(3),
            "OperatingSystemSKU": UInt32(7),
            "TotalVisibleMemorySize": UInt64(host.memory // 1024),
            "FreePhysicalMemory": UInt64(host.memory // 1024 // 2),
            "LastBootUpTime": DateTime(host.part(System).boot_time),
            "SystemDirectory": r"C:\Windows\system32",
            "WindowsDirectory": r"C:\Windows",
            "SystemDrive": "C:",
            "Status": "OK",
        }
    ]


def computer_system(host: Host) -> list[Row]:
    system = host.part(System)
    return [
        {
            "Name": host.name,
            "Caption": host.name,
            "DNSHostName": host.name.lower(),
            "Domain": system.domain or "WORKGROUP",
            "Workgroup": None if system.domain else "WORKGROUP",
            "DomainRole": UInt16(3 if system.domain else 2),
            "PartOfDomain": system.domain is not None,
            "HypervisorPresent": "Hyper-V" in host.features,
            "Manufacturer": system.manufacturer,
            "Model": system.model,
            "NumberOfLogicalProcessors": UInt32(host.processors),
            "NumberOfProcessors": UInt32(1),
            "SystemType": "x64-based PC",
            "TotalPhysicalMemory": UInt64(host.memory),
            "Status": "OK",
        }
    ]


def processes(host: Host) -> list[Row]:
    return [
        {
            "Handle": str(one.id),
            "Name": one.name,
            "Caption": one.name,
            "ProcessId": UInt32(one.id),
            "ParentProcessId": UInt32(one.parent),
            "CommandLine": one.command,
            "ExecutablePath": (one.command or "").partition(" ")[0] or None,
            "SessionId": UInt32(0),
            "CreationDate": DateTime(host.part(System).boot_time),
        }
        for one in [*host.part(System).processes, *_serving(host)]
    ]


def logical_disks(host: Host) -> list[Row]:
    return [_disk(host, letter) for letter in sorted(host.drives)]


def services(host: Host) -> list[Row]:
    told = host.services
    if not isinstance(told, Services):
        raise not_emulated("Win32_Service without the host's file of services")
    return [_service(name, one) for name, one in told.all().items()]


def accounts(host: Host) -> list[Row]:
    return [
        {
            "Domain": host.name,
            "Name": one.name,
            "Caption": f"{host.name}\\{one.name}",
            "SID": one.sid,
            "Disabled": not one.enabled,
            "LocalAccount": True,
            "Lockout": False,
            "Status": "OK" if one.enabled else "Degraded",
        }
        for one in host.part(System).accounts
    ]


def groups(host: Host) -> list[Row]:
    return [
        {
            "Domain": host.name,
            "Name": group_name(host, name),
            "Caption": f"{host.name}\\{group_name(host, name)}",
            "SID": sid,
            "LocalAccount": True,
            "Status": "OK",
        }
        for name, sid in GROUPS.items()
    ]


def optional_features(host: Host) -> list[Row]:
    on = "Hyper-V" in host.features
    return [
        {"Name": name, "Caption": "Hyper-V", "InstallState": UInt32(1 if on else 2)}
        for name in ("Microsoft-Hyper-V", "Microsoft-Hyper-V-Offline", "Microsoft-Hyper-V-Online")
    ]


def processors(host: Host) -> list[Row]:
    return [
        {
            "DeviceID": "CPU0",
            "Name": "Intel(R) Xeon(R) Silver 4314 CPU @ 2.40GHz",
            "Manufacturer": "GenuineIntel",
            "NumberOfCores": UInt32(max(host.processors // 2, 1)),
            "NumberOfLogicalProcessors": UInt32(host.processors),
            "AddressWidth": UInt16(64),
            "VirtualizationFirmwareEnabled": True,
            "SecondLevelAddressTranslationExtensions": True,
        }
    ]


CLASSES: Mapping[str, Callable[[Host], list[Row]]] = {
    "Win32_OperatingSystem": operating_system,
    "Win32_ComputerSystem": computer_system,
    "Win32_Process": processes,
    "Win32_LogicalDisk": logical_disks,
    "Win32_Service": services,
    "Win32_UserAccount": accounts,
    "Win32_Group": groups,
    "Win32_OptionalFeature": optional_features,
    "Win32_Processor": processors,
}
_NAMES = """
    Win32_BIOS Win32_BootConfiguration Win32_CacheMemory Win32_ComputerSystemProduct Win32_Desktop
    Win32_DesktopMonitor Win32_DiskDrive Win32_DiskPartition Win32_Environment Win32_GroupUser
    Win32_IP4PersistedRouteTable Win32_IP4RouteTable Win32_LocalTime Win32_LoggedOnUser
    Win32_LogicalDiskToPartition Win32_MappedLogicalDisk Win32_MemoryDevice Win32_NetworkAdapter
    Win32_NetworkAdapterConfiguration Win32_NTEventlogFile Win32_NTLogEvent
    Win32_OSRecoveryConfiguration Win32_PageFileUsage Win32_PerfFormattedData_PerfOS_Memory
    Win32_PerfFormattedData_PerfOS_Processor Win32_PhysicalMemory Win32_PnPEntity Win32_Product
    Win32_QuickFixEngineering Win32_ServerFeature Win32_Share Win32_StartupCommand
    Win32_SystemAccount Win32_TimeZone Win32_UserProfile Win32_Volume CIM_DataFile CIM_LogicalDisk
    CIM_OperatingSystem CIM_Process StdRegProv
"""
ELSEWHERE = frozenset(_NAMES.split())
"""Classes that a real host has and this one does not: asked for, they are no "Invalid class"."""


def _serving(host: Host) -> list[Process]:
    """The processes of services that have one of their own."""
    own = {"vmms": 2204, "vmcompute": 2260}
    return [
        Process(f"{name}.exe", number, rf"C:\Windows\system32\{name}.exe", 668)
        for name, number in own.items()
        if host.services.get(name) == "Running"
    ]


def _disk(host: Host, letter: str) -> Row:
    system = host.part(System)
    free = system.free_space
    if free is None:
        free = min(shutil.disk_usage(os.fspath(host.drives[letter])).free, system.disk_size)
    return {
        "DeviceID": f"{letter}:",
        "Name": f"{letter}:",
        "Caption": f"{letter}:",
        "DriveType": UInt32(3),
        "FileSystem": "NTFS",
        "Size": UInt64(system.disk_size),
        "FreeSpace": UInt64(free),
        "VolumeName": "",
        "VolumeSerialNumber": "5A3C1D2E",
    }


def _service(name: str, one: Mapping[str, Any]) -> Row:
    running = one["status"] == "Running"
    return {
        "Name": name,
        "DisplayName": one["displayName"],
        "Caption": one["displayName"],
        "State": one["status"],
        "Status": "OK",
        "Started": running,
        "StartMode": _START[one["startType"]],
        "PathName": one.get("binaryPathName", rf"C:\Windows\system32\{name}.exe"),
        "StartName": "LocalSystem",
        "ProcessId": UInt32(2204 if running else 0),
    }
