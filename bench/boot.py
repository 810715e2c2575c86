"""Raw boot to SSH, phase by phase: images by turns in one run, with the product's own QEMU and seed.

python -m bench.boot [--rounds N] [IMAGE…]   IMAGE is a raw disk; none: the default image. Two: the ratio, too
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from vmproxy import image, seed
from vmproxy.hosts.linux.vm import Definition, QemuVm
from vmproxy.model.seen import Marker
from vmproxy.model.topology import compile_site
from vmproxy.site.model import Site
from vmproxy.transport import ssh
from vmproxy.util import netns, wait
from vmproxy.util.run import run

NAMESPACE = "vmproxy-boot-switch"
BRIDGE = "br0"
GATEWAY = "192.168.100.1"
ADDRESS = "192.168.100.5"
MAC = "00:15:5d:00:00:05"
_FIRMWARE_ENDS = b"BdsDxe: starting"

# The units whose beginning or end is a mark: cloud-init's stages are named otherwise in Debian 12.
_UNITS = {
    "cloud-init local": ("cloud-init-local.service",),
    "cloud-init network": ("cloud-init-network.service", "cloud-init.service"),
    "sshd": ("ssh.service",),
    "cloud-init config": ("cloud-config.service",),
    "cloud-init final": ("cloud-final.service",),
}
_LOOK = r"""
import json, re, subprocess, sys
def tell(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout
def shown(*words):
    return dict(line.split("=", 1) for line in tell("systemctl", "show", *words).splitlines())
def unit(names):
    for name in names:
        seen = shown(name)
        if seen.get("LoadState") == "loaded":
            times = ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
            return [int(seen[key]) / 1e6 for key in times]
init = re.search(r"\[ *([\d.]+)\] Run \S+ as init process", tell("dmesg"))
used = next(line.split()[2] for line in tell("free", "-k").splitlines() if line.startswith("Mem:"))
print(json.dumps({
    "init": float(init[1]) if init else None,
    "systemd": int(shown()["UserspaceTimestampMonotonic"]) / 1e6,
    "units": {what: unit(names) for what, names in json.loads(sys.argv[1]).items()},
    "used": int(used) * 1024,
    "failed": tell("systemctl", "--failed", "--plain", "--no-legend").split("\n")[:-1],
}))
"""


@dataclass(frozen=True)
class Boot:
    """Seconds from QEMU's start to the SSH banner and the processor time that QEMU took for it, which
    other work on the machine changes less; the phases on the way; bytes in use afterwards."""

    seconds: float
    processor: float
    phases: Mapping[str, float]
    used: int
    failed: Sequence[str]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.boot")
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(words)
    report([path.resolve() for path in given.images] or [default()], given.rounds)


def run_alone() -> None:
    """As one of the benchmarks: the default image."""
    report([default()], 3)


def default() -> Path:
    return image.build("trixie", report=print).raw


def report(images: Sequence[Path], rounds: int) -> None:
    with TemporaryDirectory(prefix="boot-") as folder, _switch():
        boots = [[boot(disk, Path(folder)) for disk in images] for _ in range(rounds)]
    for number, disk in enumerate(images):
        _tell(disk, [turn[number] for turn in boots])
    if len(images) == 2:
        _tell_ratio("seconds", [turn[1].seconds / turn[0].seconds for turn in boots])
        _tell_ratio("processor time", [turn[1].processor / turn[0].processor for turn in boots])


def boot(disk: Path, folder: Path) -> Boot:
    """One VM, made, booted, looked into, and removed again."""
    user, host = seed.new_host_key(), seed.new_host_key()
    with ExitStack() as stack:
        vm = stack.enter_context(_vm(disk, folder / "vm", user, host))
        started = time.perf_counter()
        vm.start()
        firmware = stack.enter_context(_seen_on(vm.console_log, _FIRMWARE_ENDS))
        wait.until("SSH", _banner, timeout=600, every=0.1)
        seconds, processor = time.perf_counter() - started, _processor_time(vm.pid())
        guest = stack.enter_context(
            ssh.connect(_open, host_key=host.public, identity=Path("-"), key=user.private, what="the guest")
        )
        zero = time.perf_counter() - started - float(guest.run("cat /proc/uptime").split()[0])
        guest.run("cloud-init status --wait >/dev/null || true")
        seen = json.loads(guest.run(shlex.join(["python3", "-c", _LOOK, json.dumps(_UNITS)])))
        ended = (firmware[0] if firmware else started) - started
        phases = _phases(seconds, ended, zero, seen)
        print(f"    {disk.name}: {seconds:.1f} s, processor time {processor:.1f} s", flush=True)
        return Boot(seconds, processor, phases, seen["used"], seen["failed"])


@contextmanager
def _vm(disk: Path, folder: Path, user: seed.HostKey, host: seed.HostKey) -> Iterator[QemuVm]:
    """Made, not started."""
    vm = QemuVm("boot", folder=folder, switch_namespace=NAMESPACE)
    content = seed.build(_spec(user.public), host_key=host)
    marker = Marker("boot", "boot", f"{ADDRESS}/24", seed="0" * 64, image="0" * 64, host_key=host.public)
    settings = {"cpus": 2, "memory": 512 << 20, "mac": MAC, "switch": BRIDGE, "vlan": 0}
    try:
        vm.create(Definition(settings, marker), image=disk, seed=content)
        yield vm
    finally:
        vm.delete()


def _processor_time(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _phases(seconds: float, firmware: float, zero: float, seen: Mapping[str, object]) -> dict[str, float]:
    """Each mark in seconds since QEMU's start; `zero` is the kernel's own."""
    marks = {
        "firmware": firmware,
        "GRUB, kernel unpacked": zero,
        "kernel": zero + float(str(seen["init"])),
        "initramfs": zero + float(str(seen["systemd"])),
    }
    units = seen["units"]
    assert isinstance(units, dict)
    for what, times in units.items():
        if times:
            marks[f"{what} begins"], marks[f"{what} ended"] = (zero + moment for moment in times)
    return dict(sorted({**marks, "SSH banner": seconds}.items(), key=lambda item: item[1]))


def _tell(disk: Path, boots: Sequence[Boot]) -> None:
    each = ", ".join(f"{boot.seconds:.1f}" for boot in boots)
    used = statistics.median(boot.used for boot in boots) / (1 << 20)
    middle = statistics.median(boot.seconds for boot in boots)
    processor = ", ".join(f"{boot.processor:.1f}" for boot in boots)
    print(f"{disk.name}: {middle:.1f} s to SSH ({each}), processor time {processor} s, {used:.0f} MiB in use")
    for failed in sorted({unit for boot in boots for unit in boot.failed}):
        print(f"    failed: {failed}")
    marks = {
        what: statistics.median(boot.phases.get(what, 0.0) for boot in boots) for what in boots[0].phases
    }
    before = 0.0
    for what, at in sorted(marks.items(), key=lambda item: item[1]):
        print(f"    {at:6.1f}  +{at - before:5.1f}  {what}")
        before = at


def _tell_ratio(what: str, ratios: Sequence[float]) -> None:
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"second / first, {what}: {statistics.median(ratios):.2f} (by turns: {told})")


@contextmanager
def _switch() -> Iterator[None]:
    run(["ip", "netns", "add", NAMESPACE])
    try:
        run(["ip", "-n", NAMESPACE, "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "-n", NAMESPACE, "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE])
        run(["ip", "-n", NAMESPACE, "link", "set", BRIDGE, "up"])
        yield
    finally:
        run(["ip", "netns", "del", NAMESPACE])


@contextmanager
def _seen_on(console: Path, text: bytes) -> Iterator[list[float]]:
    """Filled with the moment at which the text first stood on the console."""
    moments: list[float] = []
    over = Event()

    def look() -> None:
        while not over.wait(0.05):
            if text in console.read_bytes():
                moments.append(time.perf_counter())
                return

    watcher = Thread(target=look)
    watcher.start()
    try:
        yield moments
    finally:
        over.set()
        watcher.join()


def _spec(user_key: str) -> seed.Seed:
    network = {"address": f"{ADDRESS}/24", "gateway": GATEWAY}
    site = Site.model_validate({"name": "boot", "hosts": [{"name": "boot", "qemu": {}, "network": network}]})
    topology = compile_site(site)
    return seed.spec(topology.members[0].vm, topology.cloud_init, user_key=user_key, mac=MAC)


def _open() -> socket.socket:
    return netns.connect(NAMESPACE, (ADDRESS, 22), timeout=10.0)


def _banner() -> bool | str:
    try:
        with _open() as channel:
            channel.settimeout(5.0)
            return channel.recv(4) == b"SSH-" or "something else answers"
    except OSError as exc:
        return str(exc)


if __name__ == "__main__":
    main()
