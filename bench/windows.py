"""The emulated Windows host: what a run costs on the wire, and how fast an image goes up.

The host's PowerShell is a stand-in and its VM is emulated in software: the ratios say what vmproxy
adds, not how fast a real host is.
"""

from __future__ import annotations

import base64
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.measure import medians, tell, timed
from tests.integration import hyperv_world
from tests.integration.hyperv_world import HypervWorld
from tests.winhost.host import WinHost
from vmproxy import image, lab
from vmproxy.hosts.hyperv.image import Bringer
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.hosts.protocols import Delivery
from vmproxy.transport.winrm import Login, WinRM

LAB = "benchwin"
ROUNDS = 5
NULL = "[Console]::OpenStandardInput().CopyTo([IO.Stream]::Null)"


@dataclass(frozen=True)
class Cost:
    """What one command took of the host."""

    messages: int
    processes: int
    seconds: float
    peak: int


def run() -> None:
    _runs()
    _push()


def _runs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with hyperv_world.bring_up(LAB, Path(folder)) as world:
                _create(world)
                _no_change(world)
        finally:
            lab.down(name=LAB, report=lambda text: None)


def _create(world: HypervWorld) -> None:
    made = _cost(world, "apply", "--yes")
    print(
        f"create: {made.messages} messages, {made.processes} PowerShell process, {made.seconds:.1f} s, image "
        f"sent; the controller's memory {made.peak >> 20} MiB",
        flush=True,
    )


def _no_change(world: HypervWorld) -> None:
    costs: list[Cost] = []

    def apply() -> float:
        costs.append(_cost(world, "apply"))
        return costs[-1].seconds

    run_, bare = medians(apply, lambda: _bare(world), rounds=ROUNDS)
    last = costs[-1]
    tell(
        "no-change run / one PowerShell that looks at the VM, and `vmproxy ssh win-01 true`",
        run_ / bare,
        f"{run_:.2f} s of `vmproxy apply` against {bare:.2f} s, medians of {ROUNDS} by turns; "
        f"{last.messages} messages, {last.processes} PowerShell process; the controller's memory "
        f"{max(cost.peak for cost in costs) >> 20} MiB",
    )


def _cost(world: HypervWorld, *words: str) -> Cost:
    messages, processes = len(world.windows.messages), world.windows.processes
    ended = timed(world.command(*words))
    return Cost(
        len(world.windows.messages) - messages,
        world.windows.processes - processes,
        ended.seconds,
        ended.peak,
    )


def _bare(world: HypervWorld) -> float:
    """By hand: Get-VM and Get-NetRoute in one process, then a log-in by `vmproxy ssh`, which looks at the
    host itself first."""
    code = (
        "import sys, winrm; from winrm.protocol import Protocol\n"
        "w = Protocol(sys.argv[1], transport='ntlm', username=sys.argv[2], password=open(sys.argv[3]).read(),"
        " ca_trust_path=sys.argv[4]); s = w.open_shell()\n"
        "c = w.run_command(s, 'powershell', ['-NoProfile', '-Command', 'Get-VM; Get-NetRoute'])\n"
        "print(w.get_command_output(s, c)); w.cleanup_command(s, c); w.close_shell(s)"
    )
    about = world.windows
    words = [f"{about.endpoint}/wsman", about.administrator.name, str(world.folder / "password")]
    python = world.command("ssh")[: -len(["-m", "vmproxy", "ssh", "-f", "x"])]
    looked = timed([*python, "-c", code, *words, str(about.ca)]).seconds
    return looked + timed(world.command("ssh", "win-01", "true")).seconds


def _push() -> None:
    """The same file by the product's way, and into nothing at pywinrm's own speed."""
    base = image.build("trixie", report=lambda text: None)
    file = image.vhdx(base, compressed=True, report=lambda text: None)
    size = file.stat().st_size
    with WinHost() as host:
        ours, ceiling = medians(
            lambda: _brought(host, base.sha256, file), lambda: _sent(host, file), rounds=3
        )
    tell(
        "image push / pywinrm's bare ceiling (time)",
        ours / ceiling,
        f"{size / ours / 1e6:.1f} against {size / ceiling / 1e6:.1f} MB/s for {size >> 20} MiB, medians of 3 "
        "by turns; ours is base64 twice, written, hashed and unpacked there, the other raw bytes to nowhere",
    )


def _connected(host: WinHost) -> WinRM:
    return WinRM(host.endpoint, Login("ntlm", host.administrator.name, host.password), ca=str(host.ca))


def _brought(host: WinHost, sha256: str, file: Path) -> float:
    paths = Paths(rf"C:\push-{time.monotonic_ns()}", "vm")
    with _connected(host) as winrm, winrm.powershell() as shell:
        shell.call("lib.ps1")
        started = time.perf_counter()
        delivery = Delivery(lambda: file, b"", "", None)
        Bringer(shell, paths, "the host", lambda text: None).bring(sha256, delivery, there=False)
        return time.perf_counter() - started


def _sent(host: WinHost, file: Path) -> float:
    script = base64.b64encode(NULL.encode("utf-16-le")).decode()
    with _connected(host) as winrm:
        process = winrm.start("powershell.exe", ["-NoProfile", "-EncodedCommand", script])
        started = time.perf_counter()
        process.send(file.read_bytes())
        seconds = time.perf_counter() - started
        process.end()
    return seconds
