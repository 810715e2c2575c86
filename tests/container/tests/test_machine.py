"""The image in a container, driven as QEMU is: its power, its monitor, its disk, and what is left of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from qemu.qmp.legacy import QEMUMonitorProtocol

from tests import hypervisors, names
from tests.container import cgroup
from tests.integration.world import SSH_OPTIONS
from tests.winhost.hyperv.qmp import MonitorError, ask
from vmproxy import image, seed
from vmproxy.errors import ToolFailed
from vmproxy.model.topology import compile_site
from vmproxy.seed import keys
from vmproxy.site.model import Site
from vmproxy.util import netns, wait
from vmproxy.util.run import run

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and mounts: needs root"),
    pytest.mark.xdist_group("container"),
]
ADDRESS, MAC, TAP = "192.168.100.5", "00:15:5d:01:02:03", "tap0"
SITE = {
    "name": "a",
    "hosts": [
        {
            "name": "win-01",
            "qemu": {},
            "switch": {"name": "br0"},
            "network": {"address": f"{ADDRESS}/24", "gateway": "192.168.100.1"},
        }
    ],
}


@dataclass
class Guest:
    """A machine as the embedded host starts it."""

    folder: Path
    namespace: str
    disk: Path
    format: str

    def start(self) -> None:
        """Its tap is made anew, as the embedded host does."""
        ip(self.namespace, "link", "del", TAP, ok=(0, 1))
        ip(self.namespace, "tuntap", "add", TAP, "mode", "tap")
        ip(self.namespace, "link", "set", TAP, "master", "br0", "up")
        folder = self.folder
        words = ["-name", "a", "-drive", f"if=virtio,format={self.format},file={self.disk}"]
        words += ["-drive", f"if=virtio,format=raw,readonly=on,file={folder / 'seed.iso'}"]
        words += ["-netdev", f"tap,id=net0,ifname={TAP}", "-device", f"virtio-net-pci,netdev=net0,mac={MAC}"]
        words += ["-chardev", f"file,id=com1,path={folder / 'console'}", "-serial", "chardev:com1"]
        words += ["-qmp", f"unix:{self.monitor},server=on,wait=off"]
        words += ["-pidfile", str(folder / "pid"), "-daemonize"]
        run(netns.run_in(self.namespace, [hypervisors.program("container"), *words]), timeout=60)

    @property
    def monitor(self) -> Path:
        return self.folder / "qmp"

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    def runs(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()

    def until_up(self) -> None:
        wait.until("the guest's SSH", self._banner, timeout=60)

    def until_off(self) -> None:
        wait.until("the end of the machine", lambda: not self.runs() or "it runs", timeout=60)
        wait.until("the end of what it was made of", lambda: not self.left() or str(self.left()), timeout=10)

    def ssh(self, command: str) -> str:
        words = ["ssh", "-i", self.folder / "key", *SSH_OPTIONS]
        return run(netns.run_in(self.namespace, [*words, f"root@{ADDRESS}", command]), timeout=60).stdout

    def left(self) -> list[str]:
        """What is on this machine because of it."""
        loops = run(["losetup", "-j", self.disk]).stdout.splitlines()
        listed = run(["ps", "-ww", "-eo", "args"]).stdout.splitlines()
        processes = [line for line in listed if str(self.folder) in line]
        groups = Path(mounted_cgroup()).glob(cgroup.name(self.monitor))
        links = ip(self.namespace, "-br", "link", "show", "type", "veth").splitlines()
        return [*loops, *processes, *map(str, groups), *links]

    def disk_servers(self) -> list[int]:
        """What serves the disk as a raw one; it stands in for no disk that is raw already."""
        listed = run(["ps", "-ww", "-eo", "pid,args"]).stdout.splitlines()
        return [
            int(line.split()[0])
            for line in listed
            if "qemu-storage-daemon" in line and f"filename={self.disk}" in line
        ]

    def _banner(self) -> bool | str:
        try:
            with netns.connect(self.namespace, (ADDRESS, 22), timeout=2.0) as channel:
                return channel.recv(4) == b"SSH-" or "no SSH"
        except OSError as exc:
            return str(exc)


def ip(namespace: str, *words: str, ok: tuple[int, ...] = (0,)) -> str:
    return run(["ip", "-n", namespace, *words], ok=ok).stdout


def command(monitor: Path, name: str) -> dict[str, object]:
    """By the product's own client, which ends its commands with no line."""
    client = QEMUMonitorProtocol(str(monitor))
    client.connect(negotiate=True)
    try:
        said: dict[str, object] = client.cmd(name)
    finally:
        client.close()
    return said


def mounted_cgroup() -> str:
    return run(["findmnt", "-n", "-o", "TARGET", "-t", "cgroup2"]).stdout.split()[0]


@pytest.fixture(scope="module")
def switch() -> Iterator[str]:
    name = names.namespace("container")
    with ExitStack() as stack:
        run(["ip", "netns", "add", name])
        stack.callback(run, ["ip", "netns", "del", name])
        ip(name, "link", "add", "br0", "type", "bridge")
        ip(name, "address", "add", "192.168.100.1/24", "dev", "br0")
        ip(name, "link", "set", "br0", "up")
        yield name


@pytest.fixture(params=["raw", "vhdx"])
def guest(request: pytest.FixtureRequest, switch: str, tmp_path: Path) -> Iterator[Guest]:
    disk = tmp_path / f"disk.{request.param}"
    base = image.build("trixie", report=print).raw
    run(["qemu-img", "convert", "-f", "raw", "-O", request.param, "-S", "4k", base, disk])
    user, host_key = keys.new_key_pair(), seed.new_host_key()
    with os.fdopen(os.open(tmp_path / "key", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(user.private)
    site = Site.model_validate(SITE)
    topology = compile_site(site)
    wanted = seed.spec(topology.members[0].vm, topology.cloud_init, user_key=user.public, mac=MAC)
    (tmp_path / "seed.iso").write_bytes(seed.build(wanted, host_key=host_key))
    made = Guest(tmp_path, switch, disk, request.param)
    made.start()
    try:
        made.until_up()
        yield made
    finally:
        if made.runs():
            os.kill(made.pid, signal.SIGKILL)
        made.until_off()
        disk.unlink()


def test_it_is_switched_off_by_its_button_and_keeps_its_disk(guest: Guest) -> None:
    assert command(guest.monitor, "query-status")["running"] is True
    with pytest.raises(MonitorError, match="device_add has not been found"):
        ask(guest.monitor, "device_add", {"driver": "scsi-hd"})
    assert guest.ssh("cat /etc/hostname").strip() == "vmproxy-a-win-01"
    assert guest.ssh("systemctl --failed --no-legend") == ""
    guest.ssh("echo kept > /root/kept && sync")
    ask(guest.monitor, "system_powerdown")
    guest.until_off()
    assert "Powering off" in (guest.folder / "console").read_text(errors="replace")
    guest.start()
    guest.until_up()
    assert guest.ssh("cat /root/kept").strip() == "kept"


def test_a_system_that_restarts_itself_and_the_reset_button_keep_the_machine_on(guest: Guest) -> None:
    pid, boots = guest.pid, [guest.ssh(BOOT_ID)]
    for restart in (lambda: guest.ssh("systemctl reboot"), lambda: ask(guest.monitor, "system_reset")):
        restart()
        wait.until("another boot", lambda: _booted(guest, boots), timeout=60)
    assert len(set(boots)) == 3
    assert guest.pid == pid
    assert guest.runs()


def test_what_serves_the_disk_is_not_the_one_to_unmount_it(guest: Guest) -> None:
    """As the last process of a namespace that has the disk mounted, it would wait for itself."""
    servers = guest.disk_servers()
    assert len(servers) == (1 if guest.format == "vhdx" else 0)
    for pid in servers:
        assert " /mnt/root ext4 " not in Path(f"/proc/{pid}/mounts").read_text()


def test_a_killed_one_leaves_nothing(guest: Guest) -> None:
    assert guest.left() != []
    os.kill(guest.pid, signal.SIGKILL)
    guest.until_off()
    guest.start()
    guest.until_up()


BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def _booted(guest: Guest, boots: list[str]) -> bool | str:
    try:
        boot = guest.ssh(BOOT_ID)
    except ToolFailed as exc:
        return exc.message
    if boot in boots:
        return "the boot of before"
    boots.append(boot)
    return True
