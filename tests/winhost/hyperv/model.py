"""Virtual machines and switches as the host's Virtual Machine Management service knows them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast
from uuid import uuid4

if TYPE_CHECKING:
    from tests.winhost.state import Host

State = Literal["Off", "Starting", "Running", "Stopping", "Paused", "Saved"]
OnOff = Literal["On", "Off"]
SwitchKind = Literal["External", "Internal", "Private"]
VlanMode = Literal["Untagged", "Access", "Trunk", "Private"]
GiB = 1 << 30
MiB = 1 << 20
NO_MAC = "000000000000"
WINDOWS = "1734c6e8-3154-4dda-ba5f-a874cc483422"
UEFI_CA = "272e7447-90a4-4563-a4b9-8e4ab00526ce"
UPLINK = "Intel(R) Ethernet Connection"
SHIELDED = "4292ae2b-ee2c-42b5-a969-dd8f8689f6f3"


def new_id() -> str:
    return str(uuid4())


@dataclass
class Vlan:
    """A port's VLAN; `access` counts in Access, `native` and `allowed` in Trunk mode."""

    mode: VlanMode = "Untagged"
    access: int = 0
    native: int = 0
    allowed: list[int] = field(default_factory=list)
    primary: int = 0
    secondary: list[int] = field(default_factory=list)
    private_mode: str | None = None


@dataclass
class Adapter:
    """A network adapter; `vm` None: the management system's own. `switch` is a switch's id."""

    vm: str | None
    name: str
    switch: str | None = None
    id: str = field(default_factory=new_id)
    mac: str = NO_MAC
    dynamic_mac: bool = True
    legacy: bool = False
    vlan: Vlan = field(default_factory=Vlan)
    spoofing: OnOff = "Off"
    dhcp_guard: OnOff = "Off"
    router_guard: OnOff = "Off"
    teaming: OnOff = "Off"
    device_naming: OnOff = "Off"
    mirroring: str = "None"
    more: dict[str, object] = field(default_factory=dict)
    """Settings without an effect here, by property name."""


@dataclass
class Firmware:
    """Of a generation 2 machine. `boot_order` are ids of adapters and drives; new devices come last."""

    secure_boot: OnOff = "On"
    template: str = WINDOWS
    boot_order: list[str] = field(default_factory=list)
    loaders: list[str] = field(default_factory=list)
    """Files that the guest's boot loader has put before them all."""
    console: str = "Default"
    pause_after_failure: OnOff = "Off"
    network_protocol: str = "IPv4"


@dataclass
class Memory:
    startup: int
    minimum: int = 512 * MiB
    maximum: int = 1 << 40
    dynamic: bool = False
    buffer: int = 20
    priority: int = 50


@dataclass
class Processor:
    count: int = 1
    reserve: int = 0
    maximum: int = 100
    weight: int = 100
    more: dict[str, object] = field(default_factory=dict)


@dataclass
class VM:
    """`folder` is the machine's own; `started` on the monotonic clock, None while it is off."""

    name: str
    generation: int
    folder: str
    memory: Memory
    id: str = field(default_factory=new_id)
    state: State = "Off"
    started: float | None = None
    created: float = field(default_factory=time.time)
    version: str = "10.0"
    notes: str = ""
    processor: Processor = field(default_factory=Processor)
    firmware: Firmware = field(default_factory=Firmware)
    adapters: list[Adapter] = field(default_factory=list)
    com_ports: dict[int, str] = field(default_factory=lambda: {1: "", 2: ""})
    r"""Number and path, `\\.\pipe\NAME`."""
    services: dict[str, bool] = field(default_factory=dict)
    """Integration services that are enabled, by their id."""
    start_action: str = "StartIfRunning"
    start_delay: int = 0
    stop_action: str = "Save"
    checkpoint_type: str = "Production"
    automatic_checkpoints: bool = False
    checkpoint_folder: str = ""
    paging_folder: str = ""
    tpm: bool = False
    snapshots: list[str] = field(default_factory=list)
    more: dict[str, object] = field(default_factory=dict)
    """Settings without an effect here, by property name."""

    @property
    def running(self) -> bool:
        """It holds its devices: anything but off or saved."""
        return self.state not in ("Off", "Saved")


@dataclass
class Switch:
    """`bridge` is the Linux bridge in the host's `switch_namespace`, None before it is made."""

    name: str
    kind: SwitchKind
    bridge: str | None = None
    id: str = field(default_factory=new_id)
    notes: str = ""
    management: bool = False
    uplink: str = ""
    """Description of the physical adapter of an External one."""
    more: dict[str, object] = field(default_factory=dict)


class Power(Protocol):
    """What makes machines real; the module `machine` does."""

    def start(self, host: Host, vm: VM) -> None:
        """Returns when it runs; sets `state` and `started`."""

    def stop(self, host: Host, vm: VM, *, force: bool, turn_off: bool) -> None:
        """Returns when it is off."""

    def reset(self, host: Host, vm: VM) -> None:
        """The reset button of a running machine."""

    def connect(self, host: Host, vm: VM, adapter: Adapter) -> None:
        """A running machine's adapter has another switch or VLAN, or none."""

    def plug(self, host: Host, vm: VM, adapter: Adapter) -> None:
        """A running machine gets that adapter."""

    def unplug(self, host: Host, vm: VM, adapter: Adapter) -> None:
        """A running machine loses that adapter."""

    def heartbeat(self, host: Host, vm: VM) -> str:
        """A member of VMHeartbeatStatus."""

    def addresses(self, host: Host, vm: VM, adapter: Adapter) -> Sequence[str]:
        """What the guest says of itself; empty without its daemons."""


@dataclass
class HyperV:
    """The part of `Host` about machines. `power` None: the real one."""

    vms: dict[str, VM] = field(default_factory=dict)
    switches: dict[str, Switch] = field(default_factory=dict)
    management: list[Adapter] = field(default_factory=list)
    ports: set[str] = field(default_factory=set)
    """Ids of those that cmdlets made; the others were there from the start."""
    free_cards: dict[str, str] = field(default_factory=dict)
    """Network cards that no switch has: description, and the bridge that is behind their cable."""
    disks_folder: str = r"C:\Users\Public\Documents\Hyper-V\Virtual Hard Disks"
    machines_folder: str = r"C:\ProgramData\Microsoft\Windows\Hyper-V"
    mac_minimum: str = "00155D010A00"
    mac_maximum: str = "00155D010AFF"
    power: Power | None = None
    external_known: bool = False


def hyperv(host: Host) -> HyperV:
    """The host's machines and switches; those of `host.bridges` exist from the start."""
    part = host.part(HyperV)
    with host.lock:
        if not part.external_known:
            part.external_known = True
            for name, bridge in host.bridges.items():
                switch = Switch(name, "External", bridge, uplink=UPLINK, management=True)
                part.switches[switch.id] = switch
                part.management.append(Adapter(None, name, switch.id))
    return part


def power(host: Host) -> Power:
    return hyperv(host).power or cast(Power, import_module("tests.winhost.hyperv.machine"))


def adapters(host: Host) -> list[Adapter]:
    """Every one on the host."""
    part = hyperv(host)
    return [*part.management, *(one for vm in part.vms.values() for one in vm.adapters)]


def assign_macs(host: Host, vm: VM, *more: Adapter) -> None:
    """A dynamic address is taken from the host's pool at the first start."""
    part = hyperv(host)
    taken = {one.mac for one in adapters(host)}
    pool = range(int(part.mac_minimum, 16), int(part.mac_maximum, 16) + 1)
    for adapter in (*vm.adapters, *more):
        if adapter.dynamic_mac and adapter.mac == NO_MAC:
            adapter.mac = next(f"{number:012X}" for number in pool if f"{number:012X}" not in taken)
            taken.add(adapter.mac)
