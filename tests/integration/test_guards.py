"""What is not ours is left alone, and two controllers do not meet: on both kinds of host."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.test_failures import says
from tests.integration.world import World

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")


def test_a_foreign_route_is_refused_named_and_left_alone(world: World) -> None:
    world.in_namespace("host", "ip", "route", "add", "10.96.128.0/17", "via", "192.168.100.20")
    try:
        says(world.vmproxy("apply"), 1, "10.96.128.0/17", "192.168.100.20")
        assert "10.96.128.0/17" in world.look_in("host", "ip", "route")
    finally:
        world.in_namespace("host", "ip", "route", "del", "10.96.128.0/17")
    assert world.drift() == []


def test_two_at_once_do_not_meet(world: World) -> None:
    """The second waits for the first and says so; both end well."""
    world.guest("systemctl stop vmproxy-keeper.service vmproxy-kube-proxy.service")
    running = [world.start("apply") for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert sum("another vmproxy works on win-01" in err for _, err in ended) == 1
    assert world.drift() == []


def test_only_clients_use_the_gateway_and_what_is_dropped_is_counted(world: World) -> None:
    """Another machine of the network that routes through the VM gets neither a Service nor a pod."""
    ranges = ("10.96.0.0/16", "10.244.1.0/24")
    for prefix in ranges:
        world.in_namespace("client", "ip", "route", "replace", prefix, "via", "192.168.100.5")
    try:
        before = _dropped(world)
        for address in (world.cluster_ip("web"), "10.244.1.10:8080"):
            with pytest.raises(subprocess.CalledProcessError):
                _ask(world, address)
        assert _dropped(world) > before
        assert "from machines that are not in network.clients" in world.vmproxy("status").out
        world.change_network(clients=["192.168.100.40"])
        world.apply()
        assert "web" in _ask(world, world.cluster_ip("web"))
        with pytest.raises(subprocess.CalledProcessError):
            _ask(world, "10.244.1.10:8080")  # clients get Services, and no router to everywhere
        assert world.curl("web") in {"web-1", "web-2"}, "the host itself is always one"
        world.change_network(clients="any")
        world.apply()
        assert "pod-1" in _ask(world, "10.244.1.10:8080")
    finally:
        for prefix in ranges:
            world.in_namespace("client", "ip", "route", "del", prefix)
        world.reset()
    world.apply()
    assert world.drift() == []


def _ask(world: World, address: str) -> str:
    return world.look_in("client", "curl", "-sS", "-m", "3", f"http://{address}/hostname")


def _dropped(world: World) -> int:
    (host,) = world.vmproxy("status", "-o", "json").json["hosts"]
    return sum(host["drops"].values())
