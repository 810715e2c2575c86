"""Start-, Stop- and Restart-VM, and Wait-VM. They take long, and leave the host to others meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.winhost.engine import Call, Warn, emulates, not_emulated
from tests.winhost.hyperv import find
from tests.winhost.hyperv.failures import failed, wrong_state
from tests.winhost.hyperv.items import heartbeat, vm_item
from tests.winhost.hyperv.model import VM, power
from tests.winhost.state import Host

ALREADY = "The virtual machine is already in the specified state."


@emulates("Start-VM", alone=False)
def start_vm(host: Host, call: Call) -> Iterator[object]:
    def start(vm: VM) -> Iterator[object]:
        if vm.running:
            yield Warn(ALREADY)
        else:
            power(host).start(host, vm)
        yield from _passed(host, call, vm)

    yield from find.each(list(find.vms(host, call)), start)


@emulates("Stop-VM", alone=False)
def stop_vm(host: Host, call: Call) -> Iterator[object]:
    if call.switch("Save"):
        raise not_emulated("Stop-VM -Save")

    def stop(vm: VM) -> Iterator[object]:
        if vm.state == "Off":
            yield Warn(ALREADY)
        else:
            power(host).stop(host, vm, force=call.switch("Force"), turn_off=call.switch("TurnOff"))
        yield from _passed(host, call, vm)

    yield from find.each(list(find.vms(host, call)), stop)


@emulates("Remove-VMSavedState")
def remove_saved_state(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Remove-VMSavedState -VMSnapshot")

    def remove(vm: VM) -> Iterator[object]:
        if vm.state != "Saved":
            raise wrong_state(vm, doing=f"'{vm.name}' failed to delete saved state.")
        vm.state = "Off"
        yield from ()

    yield from find.each(list(find.vms(host, call)), remove)


@emulates("Restart-VM", alone=False)
def restart_vm(host: Host, call: Call) -> Iterator[object]:
    def restart(vm: VM) -> Iterator[object]:
        if vm.state != "Running":
            raise wrong_state(vm, doing=f"'{vm.name}' failed to restart.")
        if call.get("Type") == "Reboot":
            power(host).stop(host, vm, force=call.switch("Force"), turn_off=False)
            power(host).start(host, vm)
        else:
            power(host).reset(host, vm)
        if call.switch("Wait"):
            _wait(host, call, vm)
        yield from _passed(host, call, vm)

    yield from find.each(list(find.vms(host, call)), restart)


@emulates("Wait-VM", alone=False)
def wait_vm(host: Host, call: Call) -> Iterator[object]:
    def wait(vm: VM) -> Iterator[object]:
        _wait(host, call, vm)
        yield from _passed(host, call, vm)

    yield from find.each(list(find.vms(host, call)), wait)


def _wait(host: Host, call: Call, vm: VM) -> None:
    """Until what -For names is so; `-Timeout` is in seconds, without it there is no end."""
    time.sleep(float(call.get("Delay", 0)))
    reached = _reached(host, call.get("For", "Heartbeat"), vm)
    end = time.monotonic() + call.get("Timeout", float("inf"))
    while not reached():
        if vm.state == "Off":
            raise wrong_state(vm, doing=f"Cannot wait for '{vm.name}'.")
        if time.monotonic() > end:
            raise failed(
                f"The operation timed out while waiting for '{vm.name}'.",
                error_id="OperationTimeout",
                category="OperationTimeout",
            )
        time.sleep(0.2)


def _reached(host: Host, what: str, vm: VM) -> Callable[[], bool]:
    started = vm.started
    if what == "IPAddress":
        return lambda: any(power(host).addresses(host, vm, one) for one in vm.adapters)
    if what == "Reboot":
        return lambda: vm.started != started and heartbeat(host, vm).startswith("Ok")
    if what == "MemoryOperations":
        return lambda: vm.state == "Running"
    return lambda: heartbeat(host, vm).startswith("Ok")


def _passed(host: Host, call: Call, vm: VM) -> Iterator[object]:
    if call.switch("Passthru"):
        yield vm_item(host, vm)
