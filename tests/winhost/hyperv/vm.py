"""Get-, New-, Set-, Rename- and Remove-VM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.winhost.engine import Call, Item, emulates, not_emulated
from tests.winhost.hyperv import find, making, storage
from tests.winhost.hyperv.failures import invalid, running_device, wrong_state
from tests.winhost.hyperv.items import vm_item
from tests.winhost.hyperv.model import VM, hyperv
from tests.winhost.hyperv.parts import set_memory, set_processor_count
from tests.winhost.state import Host


@emulates("Get-VM")
def get_vm(host: Host, call: Call) -> Iterator[object]:
    if call.has("ClusterObject"):
        raise not_emulated("Get-VM -ClusterObject")
    if not call.has("Name") and not call.has("Id"):
        found = sorted(hyperv(host).vms.values(), key=lambda vm: vm.name.lower())
        yield from (vm_item(host, vm) for vm in found)
        return
    yield from find.each(find.vms(host, call), lambda vm: [vm_item(host, vm)])


@emulates("New-VM")
def new_vm(host: Host, call: Call) -> Iterator[Item]:
    yield vm_item(host, making.made(host, call))


@emulates("Remove-VM")
def remove_vm(host: Host, call: Call) -> Iterator[object]:
    def remove(vm: VM) -> Iterator[Item]:
        if vm.running:
            raise wrong_state(vm)
        del hyperv(host).vms[vm.id]
        storage.forget(host, vm.id)
        making.forget_files(host, vm)
        if call.switch("Passthru"):
            yield vm_item(host, vm)

    yield from find.each(list(find.vms(host, call)), remove)


@emulates("Rename-VM")
def rename_vm(host: Host, call: Call) -> Iterator[object]:
    def rename(vm: VM) -> Iterator[Item]:
        vm.name = making.checked_name(str(call.get("NewName")))
        if call.switch("Passthru"):
            yield vm_item(host, vm)

    yield from find.each(list(find.vms(host, call)), rename)


@emulates("Set-VM")
def set_vm(host: Host, call: Call) -> Iterator[object]:
    """Everything is checked before anything is changed."""
    unknown = (
        set(call.parameters) - _ABOUT - set(_PLAIN) - set(_MORE) - _MEMORY - {"NewVMName", "ProcessorCount"}
    )
    if unknown:
        raise not_emulated(f"Set-VM -{', -'.join(sorted(unknown))}")
    if call.switch("StaticMemory") and call.switch("DynamicMemory"):
        raise invalid("The parameters DynamicMemory and StaticMemory cannot be used together.")

    def change(vm: VM) -> Iterator[Item]:
        _check(host, call, vm)
        set_memory(host, vm, _memory(call))
        if call.has("ProcessorCount"):
            set_processor_count(host, vm, call.get("ProcessorCount"))
        for name, field in _PLAIN.items():
            if call.has(name):
                setattr(vm, field, call.get(name))
        vm.more.update({field: call.get(name) for name, field in _MORE.items() if call.has(name)})
        if call.has("NewVMName"):
            vm.name = making.checked_name(str(call.get("NewVMName")))
        if call.switch("Passthru"):
            yield vm_item(host, vm)

    yield from find.each(list(find.vms(host, call)), change)


_ABOUT = {"Name", "VM", "Passthru", "ComputerName", "CimSession", "Credential", "AllowUnverifiedPaths"}
_PLAIN = {
    "Notes": "notes",
    "AutomaticStartAction": "start_action",
    "AutomaticStartDelay": "start_delay",
    "AutomaticStopAction": "stop_action",
    "CheckpointType": "checkpoint_type",
    "AutomaticCheckpointsEnabled": "automatic_checkpoints",
    "SnapshotFileLocation": "checkpoint_folder",
    "SmartPagingFilePath": "paging_folder",
}
"""Parameter and field."""
_MORE = {
    name: name
    for name in (
        "AutomaticCriticalErrorAction",
        "AutomaticCriticalErrorActionTimeout",
        "LockOnDisconnect",
        "GuestControlledCacheTypes",
        "LowMemoryMappedIoSpace",
        "HighMemoryMappedIoSpace",
    )
}
_MEMORY = {"DynamicMemory", "StaticMemory", "MemoryStartupBytes", "MemoryMinimumBytes", "MemoryMaximumBytes"}
_COLD = {
    *("AutomaticStopAction", "SmartPagingFilePath", "GuestControlledCacheTypes"),
    *("LowMemoryMappedIoSpace", "HighMemoryMappedIoSpace"),
}


def _check(host: Host, call: Call, vm: VM) -> None:
    if vm.running and _COLD & set(call.parameters):
        raise wrong_state(vm, doing=f"'{vm.name}' failed to modify settings.")
    if call.has("ProcessorCount") and vm.running and call.get("ProcessorCount") != vm.processor.count:
        raise running_device(vm, "Processor")
    if not 0 <= call.get("AutomaticStartDelay", 0) <= 10**9:
        raise invalid("The value of AutomaticStartDelay is not valid.")
    for name in ("SnapshotFileLocation", "SmartPagingFilePath"):
        if call.has(name):
            making.require_drive(host, str(call.get(name)))
    set_memory(host, vm, _memory(call), only_check=True)
    if call.has("ProcessorCount"):
        set_processor_count(host, vm, call.get("ProcessorCount"), only_check=True)
    if call.has("NewVMName"):
        making.checked_name(str(call.get("NewVMName")))


def _memory(call: Call) -> dict[str, Any]:
    """The memory parameters under the names that Set-VMMemory has."""
    asked = {
        "StartupBytes": call.get("MemoryStartupBytes"),
        "MinimumBytes": call.get("MemoryMinimumBytes"),
        "MaximumBytes": call.get("MemoryMaximumBytes"),
        "DynamicMemoryEnabled": True if call.switch("DynamicMemory") else None,
    }
    if call.switch("StaticMemory"):
        asked["DynamicMemoryEnabled"] = False
    return {name: value for name, value in asked.items() if value is not None}
