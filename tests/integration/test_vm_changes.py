"""A change of the site file that needs the VM off, or another VM: said to be cold, done with --yes."""

from __future__ import annotations

import pytest

from tests.integration.test_site_changes import answered
from tests.integration.world import World

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")


@pytest.mark.vm("power off through the guest, and another number of processors when it starts again")
def test_another_size_is_cold_says_why_and_needs_yes(settled: World) -> None:
    world, before = settled, settled.started()
    world.change_host(vm={"cpus": 1, "memory": "640MiB"})
    ran = world.vmproxy("plan", "-o", "json")
    actions = ran.json["hosts"][0]["actions"]
    reconfigure = next(action for action in actions if action["verb"] == "reconfigure")
    assert reconfigure["cold"]
    assert [drift["field"] for drift in reconfigure["drift"]] == ["cpus", "memory"]
    assert "off" in reconfigure["why"]
    without = world.vmproxy("apply")
    assert without.code == 3
    assert "--yes" in without.out
    assert world.started() == before
    assert world.curl("web") in {"web-1", "web-2"}, "a change that waits for --yes does not touch traffic"
    world.apply("--yes")
    assert world.look("nproc").strip() == "1"
    assert world.drift() == []
    assert answered(world)


def test_another_address_makes_the_vm_anew_and_moves_the_route(settled: World) -> None:
    world, before, after = settled, *addresses(settled)
    world.change_network(address=f"{after}/24")
    without = world.vmproxy("apply")
    assert without.code == 3
    assert "recreate" in without.out
    assert f"via {before}" in world.look_in("host", "ip", "route")
    world.apply("--yes")
    assert f"10.96.0.0/16 via {after}" in world.look_in("host", "ip", "route")
    assert world.drift() == []
    assert answered(world)


def test_another_address_while_the_vm_is_off_moves_the_route_too(settled: World) -> None:
    world, before, after = settled, *addresses(settled)
    world.kill_vm()
    world.change_network(address=f"{after}/24")
    world.apply()
    routes = world.look_in("host", "ip", "route")
    assert f"10.96.0.0/16 via {after}" in routes
    assert before not in routes
    assert world.drift() == []
    assert answered(world)


@pytest.mark.vm("a VM that runs is switched off and removed with its disks")
def test_destroying_a_vm_that_runs_leaves_nothing(settled: World) -> None:
    world = settled
    assert world.has_vm()
    assert world.vmproxy("destroy", "--yes").code == 0
    assert not world.has_vm()
    assert "10.96" not in world.look_in("host", "ip", "route")
    ports = world.look_in("switch", "ip", "-br", "link", "show", "master", "br0")
    assert all(line.startswith("to-") for line in ports.splitlines()), "none is a VM's"
    assert world.vmproxy("destroy", "--yes").code == 0


def addresses(world: World) -> tuple[str, str]:
    """The VM's, and another one that is free."""
    now = world.site()["hosts"][0]["network"]["address"].partition("/")[0]
    return now, "192.168.100.6" if now.endswith(".5") else "192.168.100.5"
