"""verify names the hop at which a connection breaks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.world import World
from vmproxy.lab.network import ADDRESSES
from vmproxy.lab.objects import service_with_slice
from vmproxy.util import netns, wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

UNIT = "vmproxy-kube-proxy.service"
SILENT_PORT = 9999
SILENT = "import socket; s = socket.socket(type=2); s.bind(('0.0.0.0', %d)); print(1, flush=True); input()"


def checks(world: World, *services: str) -> list[dict[str, Any]]:
    words = [word for service in services for word in ("--service", service)]
    ran = world.vmproxy("verify", "-o", "json", *words)
    found: list[dict[str, Any]] = ran.json["hosts"][0]["checks"]
    expected = 0 if all(check["ok"] is not False for check in found) else 4
    assert ran.code == expected, ran.err
    return found


def hop(world: World, service: str) -> tuple[object, str, str]:
    (check,) = checks(world, service)
    return check["ok"], check["hop"], check["detail"]


def test_found_services_are_all_tried_and_answer(world: World) -> None:
    names = {(check["service"], check["protocol"]) for check in checks(world)}
    assert {("demo/web:80", "tcp"), ("demo/echo:7", "udp"), ("demo/web-pods:80", "tcp")} <= names
    assert ("demo/empty:80", "tcp") not in names
    assert all(check["ok"] is True and check["hop"] is None for check in checks(world))


def test_no_route_on_the_host(world: World) -> None:
    world.in_namespace("host", "ip", "route", "del", "10.96.0.0/16")
    ok, where, detail = hop(world, "demo/web")
    assert (ok, where) == (False, "route")
    assert "192.168.100.5" in detail


def test_a_vm_that_does_not_run(world: World) -> None:
    world.kill_vm()
    ok, where, detail = hop(world, "demo/web")
    assert (ok, where, detail) == (False, "vm", "the VM is stopped")


def test_a_kube_proxy_without_rules(world: World) -> None:
    world.guest(f"systemctl stop vmproxy-keeper.service {UNIT} && nft delete table ip kube-proxy")
    assert hop(world, "demo/web")[:2] == (False, "proxy")


def test_a_service_without_endpoints(world: World) -> None:
    ok, where, detail = hop(world, "demo/empty")
    assert (ok, where) == (False, "endpoints")
    assert "no ready endpoints" in detail


def test_an_endpoint_that_does_not_answer_the_vm(world: World) -> None:
    world.in_namespace("node", "ip", "link", "set", "to-pod-1", "down")
    world.in_namespace("node", "ip", "link", "set", "to-pod-2", "down")
    try:
        ok, where, detail = hop(world, "demo/web-pods")
        assert (ok, where) == (False, "endpoint")
        assert "10.244.1.1" in detail
    finally:
        for role, address in (("pod-1", "10.244.1.10"), ("pod-2", "10.244.1.11")):
            world.in_namespace("node", "ip", "link", "set", f"to-{role}", "up")
            world.in_namespace("node", "ip", "route", "replace", f"{address}/32", "dev", f"to-{role}")


@pytest.fixture
def silent(world: World) -> Iterator[str]:
    """A UDP Service whose backend takes every datagram and never answers."""
    words = netns.run_in(world.status.namespaces["web-1"], ["python3", "-c", SILENT % SILENT_PORT])
    backend = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert backend.stdout is not None
    backend.stdout.readline()
    ports = [("log", 514, SILENT_PORT, "UDP")]
    world.create(*service_with_slice("silent", ports, {ADDRESSES["web-1"]: "web-1"}))
    try:
        yield "demo/silent"
    finally:
        world.delete_service("silent")
        backend.communicate(b"\n")


def test_udp_without_an_answer_proves_nothing(world: World, silent: str) -> None:
    def known() -> tuple[object, str, str] | str:
        seen = hop(world, silent)
        return seen[1] or seen if seen[1] == "proxy" else seen

    ok, where, _ = wait.until("the rule of the new Service", known, timeout=30)
    assert (ok, where) == ("unknown", None)


def test_a_service_that_is_not_there(world: World) -> None:
    ran = world.vmproxy("verify", "--service", "demo/none")
    assert ran.code == 2
    assert "demo/none" in ran.err
