"""Interrupted, killed or out of reach: nothing is lost, the next apply converges, on both kinds of host."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.integration.test_failures import PROGRAM, says
from tests.integration.world import World
from vmproxy import lab

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")


def test_the_api_server_is_down_and_what_runs_goes_on(world: World) -> None:
    control = world.control()
    url = f"http://{world.cluster_ip('web')}/hostname"
    control.process("kube-apiserver").stop()
    try:
        says(world.vmproxy("plan"), 1, "cannot reach the API server")
        assert world.look_in("host", "curl", "-sS", "-m", "10", url).strip() in {"web-1", "web-2"}
        ran = world.vmproxy("verify", "-o", "json")
        assert ran.code == 4
        assert ran.json["hosts"][0]["checks"][0]["hop"] == "api"
        seen = world.vmproxy("status", "-o", "json")
        assert seen.code == 0
        assert seen.json["hosts"][0]["vm"]["state"] == "running"
    finally:
        lab.up(name=world.name, report=print)
    world.apply()


def test_a_full_disk_in_the_guest(world: World) -> None:
    world.guest(f"rm {PROGRAM}; fallocate -l $(df --output=avail -B1 / | tail -1) /filled || true")
    says(world.vmproxy("apply"), 1, "No space left")
    assert "absent" in world.look(f"ls {PROGRAM} 2>/dev/null || echo absent")
    world.guest("rm /filled")
    world.apply()
    assert world.drift() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_to_go_on(world: World, number: signal.Signals) -> None:
    world.guest("rm /usr/local/lib/vmproxy/kube-proxy")
    process = world.start_until("pushing", "apply")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "run the same command again to continue" in err
    assert "Traceback" not in err
    world.apply()
    assert world.drift() == []


def test_killed_at_any_moment_of_a_create_the_next_apply_converges(bare: World) -> None:
    """kill -9 again and again, each time a little later, until an apply gets to its end."""
    world, seconds = bare, 0.5
    world.reset()
    world.vmproxy("destroy", "--yes")
    while not _ends_within(world.start("apply"), seconds):
        world.end_lost_sessions()
        seconds *= 1.4
    world.apply("--yes")
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    """By itself; else it is killed."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    return True


def test_a_lost_ssh_key_is_replaced_by_a_cold_change(world: World) -> None:
    key = world.ssh_key
    key.unlink()
    assert world.drift()[:2] == ["route 10.96.0.0/16", "seed"]
    without = world.vmproxy("apply")
    assert without.code == 3
    assert "--yes" in without.out
    world.apply("--yes")
    assert key.stat().st_mode & 0o077 == 0
    assert world.drift() == []
