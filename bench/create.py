"""Everything from nothing to a routed Service, against the raw boot of the same image.

On an emulated CPU kube-proxy's own start is a good part of it, so that is taken too: its first one, in the
new VM (modules are loaded, programs come from the disk, there are no rules yet), and one started again.
"""

from __future__ import annotations

import subprocess
import time

from bench.measure import tell
from bench.opened import opened
from tests.integration.world import World
from vmproxy.resources import vm
from vmproxy.util import wait


def run(world: World) -> None:
    boot = _raw_boot(world)
    first, made = _apply(world)
    start = _proxy_start(world)
    again = _raw_boot(world)
    bare = (boot + again) / 2
    tell(
        "create / raw boot to SSH",
        made / bare,
        f"{made:.1f} s of `vmproxy apply` from nothing (identity, VM, guest, converged, route) against "
        f"{boot:.1f} s and {again:.1f} s from QEMU's start to an SSH banner with the same image and seed",
    )
    tell(
        "create / raw boot to SSH and kube-proxy's first start",
        made / (bare + first),
        f"the same, against {bare:.1f} s and {first:.1f} s that this apply waited for kube-proxy",
    )
    tell(
        "create / raw boot to SSH and kube-proxy's start",
        made / (bare + start),
        f"the same, against {bare:.1f} s and {start:.1f} s from `systemctl restart` to its rules",
    )


def _apply(world: World) -> tuple[float, float]:
    """The seconds from kube-proxy's start until it has converged, and those of the whole."""
    started, at = time.perf_counter(), {}
    with subprocess.Popen(
        world.command("apply", "--yes", "-v"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            at[line.split(" s  ", 1)[-1].strip()] = time.perf_counter()
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"apply ended with exit code {process.returncode}")
    return at["kube-proxy has converged"] - at["waiting for kube-proxy to converge"], seconds


def _proxy_start(world: World) -> float:
    """kube-proxy alone, started again in a guest that does nothing else."""
    with opened(world) as scope:
        seen = scope.look()
        started = time.perf_counter()
        scope.guest().run("systemctl restart vmproxy-kube-proxy.service")
        scope.wait_converged(seen.cluster)
        return time.perf_counter() - started


def _raw_boot(world: World) -> float:
    """Make the VM by hand through the same carrier, and wait for SSH only."""
    world.vmproxy("destroy", "--yes")
    with opened(world) as scope:
        carrier = scope.look_at_carrier()
        create, start = vm.plan(scope.wanted_vm(carrier), carrier)
        list(scope.change_host((create,)))
        started = time.perf_counter()
        scope.look_at_carrier()
        list(scope.change_host((start,)))
        wait.until("SSH", scope.banner, timeout=600, every=0.2).close()
        seconds = time.perf_counter() - started
    world.vmproxy("destroy", "--yes")
    return seconds
