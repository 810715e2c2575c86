"""Makes virtual machines real: QEMU boots their disks, on the bridge of their switch.

A machine's QEMU is a child of this process and ends with it: see undertaker.py. What it opens is locked as on
Windows: see files.py. The guest has no integration services; that its console or the network shows it running
stands for their contact. A guest that restarts itself keeps that contact meanwhile.
Not emulated: saved state. A machine whose AutomaticStopAction is Save ends a reboot of the host loudly.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.undertaker import Undertaker
from tests.winhost.engine import not_emulated
from tests.winhost.files import Files, unpin_command
from tests.winhost.hyperv import qemu, starting, taps
from tests.winhost.hyperv.failures import failed
from tests.winhost.hyperv.model import VM, Adapter, assign_macs, hyperv
from tests.winhost.hyperv.qemu import Hardware
from tests.winhost.hyperv.qmp import MonitorError, ask
from tests.winhost.hyperv.vhd import prompted
from tests.winhost.state import Host
from vmproxy.util.run import run

SHUTDOWN = "9F8233AC-BE49-4C79-8EE3-E7E1985B2077"
HEARTBEAT = "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47"
_ANSWER_SECONDS = 60.0


@dataclass
class Running:
    """One QEMU; `ended` is set when all that it used is free again."""

    hardware: Hardware
    process: subprocess.Popen[bytes]
    used: ExitStack
    contact: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    watcher: threading.Thread | None = None


@dataclass
class Machines:
    """The part of `Host` about running machines."""

    running: dict[str, Running] = field(default_factory=dict)
    undertaker: Undertaker | None = None
    hypervisor: str = "qemu-system-x86_64"
    """The program that runs them: QEMU, or one that takes its command line (tests/container)."""
    shutdown_seconds: float = 300.0
    """How long Stop-VM waits for the guest."""
    up: re.Pattern[bytes] = re.compile(rb"login: |Reached target \S*multi-user|Cloud-init .* finished")
    """What a guest's console shows once its system is up."""


def start(host: Host, vm: VM) -> None:
    """Boot it. Raises CmdletError with Hyper-V's words."""
    part = host.part(Machines)
    if vm.id in part.running:
        return
    assign_macs(host, vm)
    starting.check_memory(host, vm, [one.hardware.vm for one in part.running.values()])
    vm.state = "Starting"
    try:
        one = part.running[vm.id] = _begin(host, vm, part)
    except BaseException:
        vm.state = "Off"
        raise
    vm.state, vm.started = "Running", time.monotonic()
    one.watcher = threading.Thread(target=_watch, args=(part, vm, one), name=f"VM {vm.name}", daemon=True)
    one.watcher.start()


def stop(host: Host, vm: VM, *, force: bool, turn_off: bool) -> None:
    """Returns when it is off. Without contact to the guest Hyper-V asks whether to turn it off."""
    part = host.part(Machines)
    one = part.running.get(vm.id)
    if one is None:
        return
    if not turn_off and not _shuts_down(host, vm):
        if not force:
            raise prompted()
        turn_off = True
    vm.state = "Stopping"
    if turn_off:
        one.process.kill()
        one.ended.wait()
        return
    ask(one.hardware.monitor, "system_powerdown")
    if not one.ended.wait(part.shutdown_seconds):
        vm.state = "Running"
        raise failed(
            f"'{vm.name}' failed to shut down.\r\n\r\n'{vm.name}' failed to shut down. (Virtual machine ID "
            f"{vm.id.upper()})\r\n\r\nThe guest operating system did not shut down within the time allotted."
        )


def reset(host: Host, vm: VM) -> None:
    """Restart-VM: the reset button."""
    one = host.part(Machines).running.get(vm.id)
    if one is not None:
        one.contact = False
        for port in one.hardware.pipes:
            one.hardware.console_log(port).write_bytes(b"")
        ask(one.hardware.monitor, "system_reset")
        vm.started = time.monotonic()


def connect(host: Host, vm: VM, adapter: Adapter) -> None:
    """A running machine's adapter has another switch or VLAN, or none."""
    undertaker = host.part(Machines).undertaker
    if vm.id in host.part(Machines).running and host.switch_namespace and undertaker:
        _connect(host, adapter, undertaker)


def plug(host: Host, vm: VM, adapter: Adapter) -> None:
    """Its PCI slots are taken when it starts."""
    raise not_emulated("Add-VMNetworkAdapter while the virtual machine really runs")


def unplug(host: Host, vm: VM, adapter: Adapter) -> None:
    raise not_emulated("Remove-VMNetworkAdapter while the virtual machine really runs")


def heartbeat(host: Host, vm: VM) -> str:
    if not _enabled(vm, HEARTBEAT):
        return "Disabled"
    return "OkApplicationsUnknown" if in_contact(host, vm) else "NoContact"


def addresses(host: Host, vm: VM, adapter: Adapter) -> Sequence[str]:
    """Without its daemons a guest tells nothing."""
    return []


def console(host: Host, vm: VM, port: int = 1) -> bytes:
    """All that the running machine wrote to a COM port that has a pipe."""
    one = host.part(Machines).running.get(vm.id)
    log = one.hardware.console_log(port) if one else None
    return log.read_bytes() if log and log.exists() else b""


def in_contact(host: Host, vm: VM) -> bool:
    """The guest's system is up: its console says so, or the host's neighbour table has its address."""
    part = host.part(Machines)
    one = part.running.get(vm.id)
    if one is None:
        return False
    if not one.contact:
        one.contact = bool(part.up.search(console(host, vm))) or _is_neighbour(host, vm)
    return one.contact


def reboot(host: Host) -> None:
    """The host restarts: machines stop as they are set to, and those that are set to start again do."""
    part, vms = host.part(Machines), list(hyperv(host).vms.values())
    ran = [vm for vm in vms if vm.id in part.running]
    for vm in ran:
        if vm.stop_action == "Save":
            raise not_emulated(f"AutomaticStopAction Save, of '{vm.name}'")
        guest_stops = vm.stop_action == "ShutDown" and in_contact(host, vm)
        stop(host, vm, force=True, turn_off=not guest_stops)
    for vm in vms:
        if vm.start_action == "Start" or (vm.start_action == "StartIfRunning" and vm in ran):
            start(host, vm)


def close(host: Host) -> None:
    """End every machine, at once; nothing of them is left."""
    part = host.part(Machines)
    for one in list(part.running.values()):
        one.process.kill()
        one.ended.wait()
        if one.watcher:
            one.watcher.join()
    if part.undertaker is not None:
        part.undertaker.close()
        part.undertaker = None


@contextmanager
def opened(host: Host) -> Iterator[Host]:
    """The host's machines end with the block."""
    try:
        yield host
    finally:
        close(host)


def _begin(host: Host, vm: VM, part: Machines) -> Running:
    undertaker = part.undertaker = part.undertaker or Undertaker()
    with ExitStack() as stack:
        hardware = starting.prepare(host, vm, stack)
        _make_taps(host, hardware, undertaker, stack)
        process = _launch(host, hardware)
        undertaker.kill(vm.id, process.pid, str(hardware.monitor))
        stack.callback(_reap, process, undertaker, vm.id)
        _wait_for_monitor(hardware, process)
        _pin_files(host, hardware, undertaker)
        return Running(hardware, process, stack.pop_all())


def _shuts_down(host: Host, vm: VM) -> bool:
    return _enabled(vm, SHUTDOWN) and in_contact(host, vm)


def _enabled(vm: VM, service: str) -> bool:
    return all(on for key, on in vm.services.items() if key.upper().endswith(service))


def _is_neighbour(host: Host, vm: VM) -> bool:
    """The guest has answered the host since it was started; older entries of its address do not count."""
    if host.namespace is None or vm.started is None:
        return False
    shown = run(["ip", "-n", host.namespace, "-s", "-j", "neigh", "show"]).stdout
    macs = {":".join(one.mac[at : at + 2] for at in range(0, 12, 2)).lower() for one in vm.adapters}
    known = [entry for entry in json.loads(shown or "[]") if entry.get("lladdr", "").lower() in macs]
    return any(entry["confirmed"] < time.monotonic() - vm.started for entry in known if "confirmed" in entry)


def _make_taps(host: Host, hardware: Hardware, undertaker: Undertaker, stack: ExitStack) -> None:
    if not hardware.networked:
        return
    for adapter in hardware.vm.adapters:
        command = taps.delete_command(host, adapter)
        undertaker.run(taps.name_of(adapter), command)
        taps.make(host, adapter)
        stack.callback(undertaker.forget, taps.name_of(adapter))
        stack.callback(run, command, ok=(0, 1, 2, 255))
        _connect(host, adapter, undertaker)


def _connect(host: Host, adapter: Adapter, undertaker: Undertaker) -> None:
    undo = taps.connect(host, adapter)
    if undo:
        undertaker.run(" ".join(undo), undo)


def _launch(host: Host, hardware: Hardware) -> subprocess.Popen[bytes]:
    """In this process's mount namespace: QEMU must see the files as they lie there, also later ones."""
    inside = ["nsenter", f"--net=/run/netns/{host.switch_namespace}"] if hardware.networked else []
    command = [host.part(Machines).hypervisor, *qemu.arguments(hardware)]
    with (hardware.folder / "qemu.log").open("wb") as log:
        return subprocess.Popen(
            [*inside, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_for_monitor(hardware: Hardware, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _ANSWER_SECONDS
    while process.poll() is None:
        try:
            ask(hardware.monitor, "query-status")
            return
        except MonitorError as exc:
            if time.monotonic() > end:
                raise failed(f"'{hardware.vm.name}' failed to start: QEMU does not answer: {exc}") from exc
            time.sleep(0.05)
    words = (hardware.folder / "qemu.log").read_text(errors="replace").strip()
    raise failed(f"'{hardware.vm.name}' failed to start: QEMU ended: {words}")


def _pin_files(host: Host, hardware: Hardware, undertaker: Undertaker) -> None:
    for path in starting.opened_files(hardware):
        pin(host.part(Files), path, undertaker)


def pin(part: Files, path: Path, undertaker: Undertaker) -> None:
    """Whoever holds the file unpins it when it closes it; the undertaker, when nobody can any more."""
    if part.pin(path):
        undertaker.run(f"pin {path}", unpin_command(path))


def _reap(process: subprocess.Popen[bytes], undertaker: Undertaker, key: str) -> None:
    process.kill()
    process.wait()
    undertaker.forget(key)


def _watch(part: Machines, vm: VM, one: Running) -> None:
    """A machine that ends, by itself or not, is off, and all that it used is free."""
    one.process.wait()
    try:
        one.used.close()
    finally:
        part.running.pop(vm.id, None)
        vm.state, vm.started = "Off", None
        one.ended.set()
