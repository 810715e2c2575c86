"""What is not ours is left alone, and two controllers do not meet: on both kinds of host."""

from __future__ import annotations

import pytest

from tests.integration.test_failures import says
from tests.integration.world import World

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")


def test_a_foreign_route_is_refused_named_and_left_alone(world: World) -> None:
    world.in_namespace("host", "ip", "route", "add", "10.96.128.0/17", "via", "192.168.100.20")
    try:
        says(world.vmproxy("apply"), 1, "10.96.128.0/17", "192.168.100.20")
        assert "10.96.128.0/17" in world.in_namespace("host", "ip", "route")
    finally:
        world.in_namespace("host", "ip", "route", "del", "10.96.128.0/17")
    assert world.drift() == []


def test_two_at_once_do_not_meet(world: World) -> None:
    """The second waits for the first and says so; both end well."""
    world.guest("systemctl stop vmproxy-kube-proxy.service")
    running = [world.start("apply") for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert sum("another vmproxy works on win-01" in err for _, err in ended) == 1
    assert world.drift() == []
