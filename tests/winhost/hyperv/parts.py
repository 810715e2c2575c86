"""A machine's processor, memory, firmware, COM ports and security."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.winhost.engine import Call, CmdletError, Enum, Item, Ref, emulates, not_emulated
from tests.winhost.hyperv import find
from tests.winhost.hyperv.failures import cannot_modify, failed, gone, invalid, running_device
from tests.winhost.hyperv.items import (
    TEMPLATES,
    boot_devices,
    com_port_item,
    firmware_item,
    part_item,
)
from tests.winhost.hyperv.model import VM, MiB, hyperv
from tests.winhost.state import Host

_ABOUT = {"VM", "VMName", "Passthru", "ComputerName", "CimSession", "Credential"}
_MOST = 1 << 40


def _vms(host: Host, call: Call, part: str) -> list[VM | CmdletError]:
    """Of -VM and -VMName, and of the parts given themselves: those have their machine's id."""
    if not call.has(part):
        return list(find.vms(host, call))
    known = hyperv(host).vms
    refs = [one for one in call.list(part) if isinstance(one, Ref)]
    return [known.get(one.id.partition("/")[0]) or gone("virtual machine") for one in refs]


def _refuse_unknown(call: Call, known: set[str]) -> None:
    unknown = set(call.parameters) - known - _ABOUT
    if unknown:
        raise not_emulated(f"{call.cmdlet} -{', -'.join(sorted(unknown))}")


def _each(
    host: Host, call: Call, part: str, change: Callable[[VM], None], item: Callable[[Host, VM], Item]
) -> Iterator[object]:
    def do(vm: VM) -> Iterator[Item]:
        change(vm)
        if call.switch("Passthru"):
            yield item(host, vm)

    yield from find.each(_vms(host, call, part), do)


# --- processor


@emulates("Get-VMProcessor")
def get_processor(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMProcessor -VMSnapshot")
    yield from find.each(_vms(host, call, "-"), lambda vm: [processor_item(host, vm)])


@emulates("Set-VMProcessor")
def set_processor(host: Host, call: Call) -> Iterator[object]:
    _refuse_unknown(
        call, {"VMProcessor", "Count", "Reserve", "Maximum", "RelativeWeight", *_PROCESSOR_SWITCHES}
    )

    def change(vm: VM) -> None:
        if vm.running and _PROCESSOR_SWITCHES & set(call.parameters):
            raise running_device(vm, "Processor")
        if call.has("Count"):
            set_processor_count(host, vm, call.get("Count"))
        for name, field, most in (("Reserve", "reserve", 100), ("Maximum", "maximum", 100)):
            if call.has(name):
                setattr(vm.processor, field, _within(vm, "Processor", call.get(name), 0, most))
        if call.has("RelativeWeight"):
            vm.processor.weight = _within(vm, "Processor", call.get("RelativeWeight"), 1, 10000)
        vm.processor.more.update({one: call.get(one) for one in _PROCESSOR_SWITCHES if call.has(one)})

    yield from _each(host, call, "VMProcessor", change, processor_item)


_PROCESSOR_SWITCHES = {
    "CompatibilityForMigrationEnabled",
    "CompatibilityForOlderOperatingSystemsEnabled",
    "ExposeVirtualizationExtensions",
    "EnableHostResourceProtection",
    "HwThreadCountPerCore",
    "MaximumCountPerNumaNode",
    "MaximumCountPerNumaSocket",
}


def _within(vm: VM, device: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise cannot_modify(vm, device, f"The value {value} is not between {least} and {most}.")
    return value


def set_processor_count(host: Host, vm: VM, count: int, *, only_check: bool = False) -> None:
    """No more than the host has."""
    if count == vm.processor.count:
        return
    if vm.running:
        raise running_device(vm, "Processor")
    if not 1 <= count <= host.processors:
        because = (
            f"Cannot assign {count} virtual processors: the physical computer has {host.processors} logical "
            "processors."
        )
        raise cannot_modify(vm, "Processor", because)
    if not only_check:
        vm.processor.count = count


def processor_item(host: Host, vm: VM) -> Item:
    one = vm.processor
    properties = {
        "Count": one.count,
        "Reserve": one.reserve,
        "Maximum": one.maximum,
        "RelativeWeight": one.weight,
        "MaximumCountPerNumaNode": host.processors,
        "MaximumCountPerNumaSocket": 1,
        "HwThreadCountPerCore": 0,
        "ResourcePoolName": "Primordial",
        "OperationalStatus": [Enum("VMProcessorOperationalStatus", "Ok")],
        **one.more,
    }
    return part_item(host, vm, "VMProcessor", "Processor", properties)


# --- memory


@emulates("Get-VMMemory")
def get_memory(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMMemory -VMSnapshot")
    yield from find.each(_vms(host, call, "-"), lambda vm: [memory_item(host, vm)])


@emulates("Set-VMMemory")
def set_vm_memory(host: Host, call: Call) -> Iterator[object]:
    names = {"StartupBytes", "MinimumBytes", "MaximumBytes", "DynamicMemoryEnabled", "Buffer", "Priority"}
    _refuse_unknown(call, {"VMMemory", *names})
    asked = {name: call.get(name) for name in names if call.has(name)}

    def change(vm: VM) -> None:
        set_memory(host, vm, asked, only_check=True)
        set_memory(host, vm, asked)

    yield from _each(host, call, "VMMemory", change, memory_item)


def set_memory(host: Host, vm: VM, asked: Mapping[str, Any], *, only_check: bool = False) -> None:
    """What Set-VM and Set-VMMemory do: the names are those of Set-VMMemory.

    A static machine's memory may change while it runs; a dynamic one's minimum may sink and its
    maximum grow; the kind may not change.
    """
    if not asked:
        return
    now = vm.memory
    new = replace(
        now,
        startup=asked.get("StartupBytes", now.startup),
        minimum=asked.get("MinimumBytes", now.minimum),
        maximum=asked.get("MaximumBytes", now.maximum),
        dynamic=asked.get("DynamicMemoryEnabled", now.dynamic),
        buffer=asked.get("Buffer", now.buffer),
        priority=asked.get("Priority", now.priority),
    )
    for name, value in asked.items():
        if name.endswith("Bytes"):
            _check_size(vm, name, value)
    if new.dynamic and not new.minimum <= new.startup <= new.maximum:
        because = "The startup memory must lie between the minimum and the maximum memory."
        raise cannot_modify(vm, "Memory", because)
    if vm.running:
        _check_running(host, vm, new)
    if not only_check:
        vm.memory = new


def _check_size(vm: VM, name: str, value: int) -> None:
    if not 32 * MiB <= value <= _MOST:
        raise cannot_modify(
            vm, "Memory", f"Invalid memory amount of {value >> 20} MB assigned for '{vm.name}'."
        )
    if value % (2 * MiB):
        raise cannot_modify(vm, "Memory", f"The {name} of {value} bytes is not a multiple of 2 MB.")


def _check_running(host: Host, vm: VM, new: Any) -> None:
    now = vm.memory
    if new.dynamic != now.dynamic or (now.dynamic and new.startup != now.startup):
        raise running_device(vm, "Memory")
    if now.dynamic and (new.minimum > now.minimum or new.maximum < now.maximum):
        raise running_device(vm, "Memory")
    others = (one for one in hyperv(host).vms.values() if one.running and one is not vm)
    if sum(one.memory.startup for one in others) + new.startup > host.memory:
        error = cannot_modify(vm, "Memory", "Not enough memory in the system to resize the virtual machine.")
        error.error_id, error.category = "OutOfMemory", "NotSpecified"
        raise error


def memory_item(host: Host, vm: VM) -> Item:
    one = vm.memory
    properties = {
        "Startup": one.startup,
        "Minimum": one.minimum,
        "Maximum": one.maximum,
        "DynamicMemoryEnabled": one.dynamic,
        "Buffer": one.buffer,
        "Priority": one.priority,
        "MaximumPerNumaNode": host.memory >> 20,
        "ResourcePoolName": "Primordial",
    }
    return part_item(host, vm, "VMMemory", "Memory", properties)


# --- firmware


@emulates("Get-VMFirmware")
def get_firmware(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMFirmware -VMSnapshot")

    def shown(vm: VM) -> list[Item]:
        _require_generation_2(vm, call)
        return [firmware_item(host, vm)]

    yield from find.each(_vms(host, call, "-"), shown)


@emulates("Set-VMFirmware")
def set_firmware(host: Host, call: Call) -> Iterator[object]:
    known = {
        "VMFirmware",
        "FirstBootDevice",
        "BootOrder",
        "SecureBootTemplate",
        "SecureBootTemplateId",
        *_FIRMWARE,
    }
    _refuse_unknown(call, known)

    def change(vm: VM) -> None:
        _require_generation_2(vm, call)
        order, template = _boot_order(host, call, vm), _template(call, vm)
        if vm.running and (
            template or set(call.parameters) - {"VMFirmware", "FirstBootDevice", "BootOrder"} - _ABOUT
        ):
            raise running_device(vm, "Firmware")
        if template:
            vm.firmware.template = template
        vm.firmware.boot_order = order
        for name, field in _FIRMWARE.items():
            if call.has(name):
                setattr(vm.firmware, field, call.get(name))

    yield from _each(host, call, "VMFirmware", change, firmware_item)


_BOOT = {"FirstBootDevice", "BootOrder"}
_FIRMWARE = {
    "EnableSecureBoot": "secure_boot",
    "ConsoleMode": "console",
    "PauseAfterBootFailure": "pause_after_failure",
    "PreferredNetworkBootProtocol": "network_protocol",
}


def _require_generation_2(vm: VM, call: Call) -> None:
    if vm.generation != 2:
        raise failed(
            f"The operation cannot be performed: '{vm.name}' is a Generation 1 virtual machine. "
            f"{call.cmdlet} is for Generation 2; use Get-VMBios and Set-VMBios.",
            error_id="InvalidOperation",
            category="InvalidOperation",
        )


def _boot_order(host: Host, call: Call, vm: VM) -> list[str]:
    devices = [one.id for one in boot_devices(host, vm)]
    if call.has("FirstBootDevice"):
        first = _device(call.get("FirstBootDevice"), devices)
        return [first, *(one for one in devices if one != first)]
    if call.has("BootOrder"):
        return [_device(one, devices) for one in call.list("BootOrder")]
    return vm.firmware.boot_order


def _device(ref: object, devices: list[str]) -> str:
    if not isinstance(ref, Ref) or ref.id not in devices:
        raise invalid("The boot device is not one of the virtual machine's.")
    return ref.id


def _template(call: Call, vm: VM) -> str | None:
    """The id of the Secure Boot template that is asked for, None without."""
    if not (call.has("SecureBootTemplate") or call.has("SecureBootTemplateId")):
        return None
    by_name = {name.lower(): key for key, (name, _) in TEMPLATES.items()}
    asked = str(call.get("SecureBootTemplateId") or call.get("SecureBootTemplate")).lower()
    found = asked if asked in TEMPLATES else by_name.get(asked)
    if found is None:
        raise invalid(f"'{asked}' matches none of the secure boot templates.", asked)
    if vm.tpm and found != vm.firmware.template:
        raise failed(
            f"'{vm.name}' failed to modify settings.\r\n\r\nCannot modify the secure boot template ID "
            "property after the virtual TPM is initialized."
        )
    return found


# --- COM ports


@emulates("Get-VMComPort")
def get_com_port(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMComPort -VMSnapshot")
    numbers = [call.get("Number")] if call.get("Number") else [1, 2]
    _check_port(numbers[0])
    yield from find.each(
        _vms(host, call, "-"), lambda vm: [com_port_item(host, vm, number) for number in numbers]
    )


@emulates("Set-VMComPort")
def set_com_port(host: Host, call: Call) -> Iterator[object]:
    _refuse_unknown(call, {"VMComPort", "Number", "Path", "DebuggerMode"})
    if call.get("DebuggerMode") == "On":
        raise not_emulated("Set-VMComPort -DebuggerMode On")
    refs = [one for one in call.list("VMComPort") if isinstance(one, Ref)]
    numbers = {one.id.partition("/")[0]: int(one.id.partition("/")[2]) for one in refs}

    def change(vm: VM) -> None:
        number, path = _check_port(numbers.get(vm.id, call.get("Number"))), str(call.get("Path") or "")
        if vm.running:
            raise running_device(vm, f"COM {number}")
        if path and not path.lower().startswith("\\\\"):
            raise cannot_modify(vm, f"COM {number}", f"The path '{path}' is not a named pipe.")
        if call.has("Path"):
            vm.com_ports[number] = path

    def item(host: Host, vm: VM) -> Item:
        return com_port_item(host, vm, numbers.get(vm.id, call.get("Number")))

    yield from _each(host, call, "VMComPort", change, item)


def _check_port(number: int) -> int:
    if number not in (1, 2):
        raise invalid("The COM port number is not valid: it is 1 or 2.", number)
    return number


# --- security


@emulates("Get-VMSecurity")
def get_security(host: Host, call: Call) -> Iterator[object]:
    def shown(vm: VM) -> list[Item]:
        _require_generation_2(vm, call)
        flags = ("Shielded", "EncryptStateAndVmMigrationTraffic", "BindToHostTpm", "KsdEnabled")
        properties = {
            "TpmEnabled": vm.tpm,
            "VirtualizationBasedSecurityOptOut": False,
            **dict.fromkeys(flags, False),
        }
        return [part_item(host, vm, "VMSecurity", "", properties)]

    yield from find.each(_vms(host, call, "-"), shown)
