"""Every Hyper-V setting of a VM, declared once: its value, how observe.ps1 reports it, and when it changes.

configure.ps1 sets each of them, by the same name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, Literal

from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.model.drift import ABSENT
from vmproxy.model.names import SHUTDOWN, TIME_SYNC, UEFI_CA

Facts = Mapping[str, Any]
"""One VM as observe.ps1 reports it, its own adapter first, with `access`: who may access vmproxy's folder;
`disk` and `seed`: the paths of its own."""

ONLY_US = "Administrators, SYSTEM"
NONE = "none"


@dataclass(frozen=True)
class Setting:
    """`value` from the VM's name; None: it comes from the site file. `changes`: while the VM runs (`hot`),
    only while it is off (`off`; the stop action by dsccommunity's HyperVDsc, issue 216), or never."""

    name: str
    changes: Literal["hot", "off", "never"]
    read: Callable[[Facts], Any]
    value: Callable[[str], Any] | None = None


def _reported(name: str) -> Callable[[Facts], Any]:
    return lambda vm: vm[name]


def _always(value: object) -> Callable[[str], object]:
    return lambda _vm: value


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] if value else []


def _of_adapter(read: Callable[[Facts], Any]) -> Callable[[Facts], Any]:
    """From the VM's own network adapter."""

    def of_vm(vm: Facts) -> Any:
        adapters = _items(vm["adapters"])
        return read(adapters[0]) if adapters else ABSENT

    return of_vm


def _of_service(guid: str) -> Callable[[Facts], bool]:
    """Whether an integration service is on. Its id ends with the GUID; its name is localized."""
    return lambda vm: any(
        bool(item["enabled"]) for item in _items(vm["services"]) if str(item["id"]).upper().endswith(guid)
    )


def _secure_boot(vm: Facts) -> str:
    firmware = vm["firmware"]
    on = firmware and firmware["secureBoot"] == "On"
    return str(firmware["template"]).lower() if on else "Off"


def _mac(adapter: Facts) -> str:
    return "dynamic" if adapter["dynamicMac"] else ":".join(re.findall("..", str(adapter["mac"]).lower()))


def _vlan(adapter: Facts) -> Any:
    modes = {"Untagged": 0, "Access": adapter["vlan"]}
    return modes.get(adapter["vlanMode"], adapter["vlanMode"])


def _other_adapters(vm: Facts) -> str:
    """What it is connected to beside its own network: the guest forwards."""
    switches = [str(adapter["switch"] or "no switch") for adapter in _items(vm["adapters"])[1:]]
    return ", ".join(f"one on {switch}" for switch in switches) or NONE


def _others(drives: str, own: str) -> Callable[[Facts], str]:
    """The drives of that kind but the VM's own."""

    def of_vm(vm: Facts) -> str:
        own_path = PureWindowsPath(str(vm[own]))
        paths = (str(drive["path"]) for drive in _items(vm[drives]))
        others = [path or "an empty one" for path in paths if PureWindowsPath(path) != own_path]
        return ", ".join(others) or NONE

    return of_vm


def _first_boot(vm: Facts) -> str:
    """The first device of the firmware's order; entries for files are the guest's own, on its disk."""
    first = str((vm["firmware"] or {}).get("firstBoot") or NONE)
    return "disk" if PureWindowsPath(first) == PureWindowsPath(str(vm["disk"])) else first


SETTINGS = (
    Setting("generation", "never", _reported("generation"), _always(2)),
    Setting("cpus", "off", _reported("cpus")),
    Setting("memory", "off", _reported("memory")),
    Setting("dynamicMemory", "off", _reported("dynamicMemory"), _always(value=False)),
    Setting("secureBoot", "off", _secure_boot, _always(UEFI_CA)),
    Setting("firstBoot", "off", _first_boot, _always("disk")),
    Setting("com1", "off", _reported("com1"), lambda vm: rf"\\.\pipe\{Paths.pipe(vm)}"),
    Setting("stop", "off", _reported("stop"), _always("ShutDown")),
    Setting("mac", "off", _of_adapter(_mac)),
    Setting("otherAdapters", "hot", _other_adapters, _always(NONE)),
    Setting("otherDisks", "hot", _others("disks", "disk"), _always(NONE)),
    Setting("otherDvdDrives", "hot", _others("dvds", "seed"), _always(NONE)),
    Setting("switch", "hot", _of_adapter(lambda adapter: adapter["switch"] or "not connected")),
    Setting("vlan", "hot", _of_adapter(_vlan)),
    Setting(
        "macSpoofing",
        "hot",
        _of_adapter(lambda adapter: adapter["spoofing"] == "On"),
        _always(value=False),
    ),
    Setting("sriov", "hot", _of_adapter(lambda adapter: adapter["iovWeight"] > 0), _always(value=False)),
    Setting("start", "hot", _reported("start"), _always("Start")),
    Setting("startDelay", "hot", _reported("startDelay"), _always(0)),
    Setting("checkpoints", "hot", _reported("checkpoints"), _always("Disabled")),
    Setting("automaticCheckpoints", "hot", _reported("automaticCheckpoints"), _always(value=False)),
    Setting("timeSync", "hot", _of_service(TIME_SYNC), _always(value=True)),
    Setting("guestShutdown", "hot", _of_service(SHUTDOWN), _always(value=True)),
    Setting("folderAccess", "hot", _reported("access"), _always(ONLY_US)),
)

HOT = frozenset(setting.name for setting in SETTINGS if setting.changes == "hot")
FIXED = frozenset(setting.name for setting in SETTINGS if setting.changes == "never")


def own(vm: str) -> dict[str, object]:
    """The settings that do not come from the site file."""
    return {setting.name: setting.value(vm) for setting in SETTINGS if setting.value}


def seen(vm: Facts) -> dict[str, Any]:
    return {setting.name: setting.read(vm) for setting in SETTINGS}
