"""Machines that really boot: a tiny guest in QEMU, on a bridge in a namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import names
from tests.winhost.engine import CmdletError
from tests.winhost.files import Files
from tests.winhost.hyperv import disks, machine, storage, taps
from tests.winhost.hyperv.machine import Machines
from tests.winhost.hyperv.model import VM, Adapter, Vlan
from tests.winhost.hyperv.qmp import ask
from tests.winhost.hyperv.storage import Dvd, Place, Storage
from tests.winhost.state import Host
from tests.winhost.tests.guests import GREETING, machine_with

pytestmark = [
    pytest.mark.winhost,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and mounts: needs root"),
]
MIB = 1 << 20
NAMESPACE, BRIDGE = names.namespace("d-switch"), "br0"
PATIENCE = 90.0
ROOT = Path(__file__).resolve().parents[3]


def ip(*words: str, tool: str = "ip") -> str:
    return subprocess.run([tool, "-n", NAMESPACE, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def switches() -> Iterator[None]:
    subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        yield
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.fixture
def host(switches: None) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="winhost-") as folder:
        drive = Path(folder, "C")
        drive.mkdir()
        made = Host(
            drives={"C": drive},
            folder=Path(folder),
            switch_namespace=NAMESPACE,
            bridges={"External": BRIDGE},
        )
        with machine.opened(made):
            yield made
        assert mounts(drive) == []


@pytest.fixture
def vm(host: Host, tmp_path: Path) -> VM:
    return machine_with(host, tmp_path)


def state(vm: VM) -> str:
    return vm.state


def mounts(drive: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{drive}/")]


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def tap_ports() -> dict[str, str]:
    """The bridge of each tap in the switches' namespace."""
    links = json.loads(ip("-j", "link", "show"))
    return {one["ifname"]: one.get("master", "") for one in links if one["ifname"].startswith("wh")}


def test_a_machine_boots_shows_its_console_and_shuts_down(host: Host, vm: VM) -> None:
    machine.start(host, vm)
    assert (state(vm), vm.started is not None) == ("Running", True)
    assert machine.heartbeat(host, vm) == "NoContact"
    assert eventually(lambda: machine.heartbeat(host, vm) == "OkApplicationsUnknown")
    assert GREETING.encode() in machine.console(host, vm)
    machine.stop(host, vm, force=False, turn_off=False)
    assert (state(vm), vm.started) == ("Off", None)
    assert tap_ports() == {}


def test_a_machine_starts_again(host: Host, vm: VM) -> None:
    for _ in range(2):
        machine.start(host, vm)
        assert state(vm) == "Running"
        machine.stop(host, vm, force=True, turn_off=True)
        assert state(vm) == "Off"


def test_its_files_are_locked_while_it_runs(host: Host, vm: VM) -> None:
    disk = host.local(r"C:\tiny.vhdx")
    machine.start(host, vm)
    with pytest.raises(OSError, match="busy"):
        disk.unlink()
    with pytest.raises(OSError, match="Read-only"):
        disk.open("r+b")
    assert host.part(Files).users(disk) == [vm.id]
    machine.stop(host, vm, force=True, turn_off=True)
    assert mounts(host.drives["C"]) == []
    disk.unlink()


def test_the_console_is_the_named_pipe(host: Host, vm: VM) -> None:
    machine.start(host, vm)
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.settimeout(PATIENCE)
        pipe.connect(str(host.folder / "t" / "CoreFxPipe_tiny-com1"))
        seen = b""
        while GREETING.encode() not in seen:
            more = pipe.recv(4096)
            assert more, seen
            seen += more


def test_a_pipe_belongs_to_one_machine(host: Host, vm: VM, tmp_path: Path) -> None:
    other = machine_with(host, tmp_path, name="other")
    other.com_ports[1] = vm.com_ports[1]
    machine.start(host, vm)
    with pytest.raises(CmdletError, match="0x800700E7"):
        machine.start(host, other)
    machine.stop(host, vm, force=True, turn_off=True)
    machine.start(host, other)
    assert state(other) == "Running"


def test_without_contact_the_guest_is_asked_nothing(host: Host, vm: VM) -> None:
    machine.start(host, vm)
    with pytest.raises(CmdletError, match="NonInteractive") as failed:
        machine.stop(host, vm, force=False, turn_off=False)
    assert failed.value.error_id == "InvalidOperation"
    assert state(vm) == "Running"
    machine.stop(host, vm, force=True, turn_off=False)
    assert state(vm) == "Off"


def test_a_guest_that_does_not_react_stays_on(host: Host, tmp_path: Path) -> None:
    vm = machine_with(host, tmp_path, obeys=False)
    host.part(Machines).shutdown_seconds = 1.0
    machine.start(host, vm)
    assert eventually(lambda: machine.in_contact(host, vm))
    with pytest.raises(CmdletError, match="failed to shut down"):
        machine.stop(host, vm, force=True, turn_off=False)
    assert state(vm) == "Running"


def test_a_guest_that_powers_itself_off_leaves_the_machine_off(host: Host, vm: VM) -> None:
    machine.start(host, vm)
    assert eventually(lambda: machine.in_contact(host, vm))
    ask(host.part(Machines).running[vm.id].hardware.monitor, "system_powerdown")
    assert eventually(lambda: vm.state == "Off")
    assert eventually(lambda: mounts(host.drives["C"]) == [])


def test_a_disabled_shutdown_service_means_no_contact(host: Host, vm: VM) -> None:
    vm.services[f"Microsoft:{vm.id}\\{machine.SHUTDOWN}"] = False
    machine.start(host, vm)
    assert eventually(lambda: machine.in_contact(host, vm))
    with pytest.raises(CmdletError, match="NonInteractive"):
        machine.stop(host, vm, force=False, turn_off=False)


def test_the_adapter_is_on_the_bridge_of_its_switch(host: Host, vm: VM) -> None:
    machine.start(host, vm)
    (adapter,) = vm.adapters
    assert tap_ports() == {taps.name_of(adapter): BRIDGE}
    adapter.switch = None
    machine.connect(host, vm, adapter)
    assert tap_ports() == {taps.name_of(adapter): ""}


_LISTEN = """
import socket, sys
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
heard.bind((sys.argv[1], 0))
heard.settimeout(float(sys.argv[3]))
while heard.recv(2048)[6:12].hex() != sys.argv[2]:
    pass
"""


def hears(port: str, mac: str) -> bool:
    """A frame from that address comes along."""
    inside = ["nsenter", f"--net=/run/netns/{NAMESPACE}", sys.executable, "-c", _LISTEN]
    heard = subprocess.run([*inside, port, mac, str(PATIENCE)], check=False, capture_output=True)
    return heard.returncode == 0


def test_frames_of_the_guest_come_to_the_bridge_from_its_address(host: Host, vm: VM) -> None:
    (adapter,) = vm.adapters
    adapter.mac, adapter.dynamic_mac = "00155D0A0B0C", False
    storage.forget(host, vm.id)  # without a disk the firmware asks the network
    machine.start(host, vm)
    assert hears(BRIDGE, "00155d0a0b0c")


def test_a_dynamic_address_comes_from_the_hosts_pool(host: Host, vm: VM) -> None:
    machine.start(host, vm)
    assert vm.adapters[0].mac == "00155D010A00"
    pid = host.part(Machines).running[vm.id].process.pid
    assert b"mac=00:15:5D:01:0A:00" in Path(f"/proc/{pid}/cmdline").read_bytes()


def port_vlans(adapter: Adapter) -> list[tuple[int, list[str]]]:
    shown = json.loads(ip("-j", "vlan", "show", "dev", taps.name_of(adapter), tool="bridge"))
    return [(one["vlan"], one.get("flags", [])) for port in shown for one in port.get("vlans", [])]


def knows_vlans() -> bool:
    ip("link", "add", "try0", "type", "bridge")
    try:
        ip("link", "set", "try0", "type", "bridge", "vlan_filtering", "1")
    except subprocess.CalledProcessError:
        return False
    finally:
        ip("link", "del", "try0")
    return True


def test_a_vlan_is_set_and_changed_on_the_running_machines_port(host: Host, vm: VM) -> None:
    if not knows_vlans():
        pytest.skip("this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)")
    (adapter,) = vm.adapters
    adapter.vlan = Vlan("Access", access=42)
    machine.start(host, vm)
    assert port_vlans(adapter) == [(42, ["PVID", "Egress Untagged"])]
    adapter.vlan = Vlan("Trunk", native=5, allowed=[5, 6, 7])
    machine.connect(host, vm, adapter)
    assert port_vlans(adapter) == [(5, ["PVID", "Egress Untagged"]), (6, []), (7, [])]
    adapter.vlan = Vlan()
    machine.connect(host, vm, adapter)
    assert port_vlans(adapter) == [(1, ["PVID", "Egress Untagged"])]


def test_where_bridges_know_no_vlans_a_vlan_is_a_bridge_apart(host: Host, vm: VM) -> None:
    if knows_vlans():
        pytest.skip("this kernel's bridges know VLANs")
    (adapter,) = vm.adapters
    adapter.vlan = Vlan("Access", access=42)
    machine.start(host, vm)
    assert tap_ports() == {taps.name_of(adapter): f"{BRIDGE}.42"}
    adapter.vlan = Vlan()
    machine.connect(host, vm, adapter)
    assert tap_ports() == {taps.name_of(adapter): BRIDGE}
    adapter.vlan = Vlan("Trunk", allowed=[5])
    with pytest.raises(CmdletError, match="not emulated: a trunk on this kernel"):
        machine.connect(host, vm, adapter)
    machine.close(host)
    assert f"{BRIDGE}.42" not in ip("link", "show")


def test_a_disk_of_another_machine_is_in_use(host: Host, vm: VM, tmp_path: Path) -> None:
    other = machine_with(host, tmp_path, name="other")
    host.part(Storage).hard_disks[-1].path = r"C:\tiny.vhdx"
    machine.start(host, vm)
    with pytest.raises(CmdletError, match="0x80070020") as failed:
        machine.start(host, other)
    assert "Synthetic SCSI Controller" in failed.value.message
    assert other.state == "Off"
    assert len(tap_ports()) == 1


def test_a_disk_that_a_process_has_open_is_in_use(host: Host, vm: VM) -> None:
    holder = subprocess.Popen(["flock", host.local(r"C:\tiny.vhdx"), "sleep", "60"])
    try:
        time.sleep(0.5)
        with pytest.raises(CmdletError, match="being used by another process"):
            machine.start(host, vm)
    finally:
        subprocess.run(["pkill", "-P", str(holder.pid)], check=False)
        holder.kill()
        holder.wait()


def test_a_missing_or_unfit_disk_keeps_the_machine_off(host: Host, vm: VM) -> None:
    disk = host.local(r"C:\tiny.vhdx")
    host.part(Files).attributes[disk] = {"SparseFile"}
    with pytest.raises(CmdletError, match="0xC03A001A"):
        machine.start(host, vm)
    disk.unlink()
    with pytest.raises(CmdletError, match="0x80070002"):
        machine.start(host, vm)
    assert state(vm) == "Off"


def test_a_replaced_image_lost_the_access_that_hyper_v_gave(host: Host, vm: VM) -> None:
    host.part(Files).acls = host.folder / "acls.json"
    with pytest.raises(CmdletError, match="does not have permission required to open attachment") as failed:
        machine.start(host, vm)
    assert (failed.value.error_id, failed.value.category) == ("AccessDenied", "PermissionDenied")


def test_a_child_disk_boots(host: Host, vm: VM) -> None:
    disks.create(host, r"C:\kid.vhdx", disks.Spec(kind="Differencing", parent=r"C:\tiny.vhdx"))
    storage.hard_disks(host, vm.id)[0].path = r"C:\kid.vhdx"
    machine.start(host, vm)
    assert eventually(lambda: machine.in_contact(host, vm))
    with pytest.raises(OSError, match="busy"):
        host.local(r"C:\tiny.vhdx").unlink()


def test_a_dvd_may_be_in_two_machines(host: Host, vm: VM, tmp_path: Path) -> None:
    host.local(r"C:\seed.iso").write_bytes(bytes(1 << 20))
    other = machine_with(host, tmp_path, name="other")
    for one in (vm, other):
        host.part(Storage).dvds.append(Dvd(one.id, Place("SCSI", 0, 1), r"C:\seed.iso"))
        machine.start(host, one)
    assert host.local(r"C:\seed.iso").read_bytes()[:1] == b"\0"
    machine.stop(host, vm, force=True, turn_off=True)
    with pytest.raises(OSError, match="busy"):
        host.local(r"C:\seed.iso").unlink()
    machine.stop(host, other, force=True, turn_off=True)
    host.local(r"C:\seed.iso").unlink()


def test_too_little_memory_is_said_as_hyper_v_says_it(host: Host, vm: VM) -> None:
    vm.memory.startup = 1 << 50
    with pytest.raises(CmdletError, match="Not enough memory in the system") as failed:
        machine.start(host, vm)
    assert failed.value.error_id == "OutOfMemory"


def test_after_a_reboot_machines_run_as_they_are_set_to(host: Host, vm: VM, tmp_path: Path) -> None:
    asleep = machine_with(host, tmp_path, name="asleep")
    vm.stop_action, vm.start_action = "TurnOff", "StartIfRunning"
    asleep.start_action = "Start"
    machine.start(host, vm)
    before = host.part(Machines).running[vm.id].process.pid
    machine.reboot(host)
    assert (state(vm), state(asleep)) == ("Running", "Running")
    assert host.part(Machines).running[vm.id].process.pid != before
    vm.start_action = asleep.start_action = "Nothing"
    asleep.stop_action = "TurnOff"
    machine.reboot(host)
    assert (state(vm), state(asleep)) == ("Off", "Off")


_BEHIND = """
import sys, time
from pathlib import Path
from tests.winhost.hyperv import machine
from tests.winhost.state import Host
from tests.winhost.tests.guests import machine_with
from tests.winhost.tests.test_machine import NAMESPACE, BRIDGE
folder = Path(sys.argv[1])
host = Host(drives={"C": folder / "C"}, folder=folder, switch_namespace=NAMESPACE,
            bridges={"External": BRIDGE})
vm = machine_with(host, folder)
machine.start(host, vm)
running = host.part(machine.Machines)
print(running.running[vm.id].process.pid, running.undertaker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("switches")
def test_nothing_is_left_of_a_host_that_was_killed() -> None:
    with tempfile.TemporaryDirectory(prefix="winhost-") as folder:
        drive = Path(folder, "C")
        drive.mkdir()
        command = [sys.executable, "-c", _BEHIND, folder]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as behind:
            assert behind.stdout is not None
            machine_pid, undertaker = map(int, behind.stdout.readline().split())
            assert mounts(drive) == [str(drive / "tiny.vhdx")]
            behind.send_signal(signal.SIGKILL)
        assert eventually(lambda: not Path(f"/proc/{undertaker}").exists())
        assert not Path(f"/proc/{machine_pid}").exists()
        assert mounts(drive) == []
        assert tap_ports() == {}
