"""Everything from nothing to a routed Service, against the raw boot of the same image.

On an emulated CPU kube-proxy's own start is a good part of it, so that is taken too, alone.
"""

from __future__ import annotations

import time

from bench.measure import tell, timed
from tests.integration.world import World
from vmproxy import sitefile, wait
from vmproxy.machine import Machine
from vmproxy.resources import vm


def run(world: World) -> None:
    boot = _raw_boot(world)
    made = timed(world.command("apply", "--yes")).seconds
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
        "create / raw boot to SSH and kube-proxy's own start",
        made / (bare + start),
        f"the same, against {bare:.1f} s and {start:.1f} s from `systemctl restart` to its first rules",
    )


def _proxy_start(world: World) -> float:
    """kube-proxy alone, started again in a guest that does nothing else."""
    site = sitefile.load(world.site_file)
    with Machine(site, site.hosts[0], lambda text: None) as machine:
        machine.note_host(machine.place.observe())
        cluster, guest = machine.observe_cluster(), machine.guest()
        started = time.perf_counter()
        guest.run("systemctl restart vmproxy-kube-proxy.service")
        machine.wait_converged(cluster)
        return time.perf_counter() - started


def _raw_boot(world: World) -> float:
    """Make the VM by hand through the same place, and wait for SSH only."""
    world.vmproxy("destroy", "--yes")
    site = sitefile.load(world.site_file)
    with Machine(site, site.hosts[0], lambda text: None) as machine:
        steps = vm.plan(machine.wanted_vm(), machine.place.observe())
        for _ in machine.apply_host(steps[:1]):
            started = time.perf_counter()
        for _ in machine.apply_host(steps[1:]):
            pass
        machine.note_host(machine.place.observe())
        wait.until("SSH", machine.banner, timeout=600, every=0.2)
        seconds = time.perf_counter() - started
    world.vmproxy("destroy", "--yes")
    return seconds
