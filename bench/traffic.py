"""Throughput and latency through kube-proxy in the VM, against the same VM as a bare router."""

from __future__ import annotations

import statistics

from bench.measure import medians, tell
from tests.integration.world import World
from vmproxy.lab import objects
from vmproxy.lab.network import PODS

SIZE = 200_000_000
REQUESTS = 200
ROUNDS = 11
POD = PODS["pod-1"]
CLIENT = """
import socket, sys, time
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
times = []
for _ in range(count):
    started = time.perf_counter()
    with socket.create_connection((host, port)) as channel:
        channel.sendall(b"GET /hostname HTTP/1.0\\r\\n\\r\\n")
        while channel.recv(4096):
            pass
    times.append(time.perf_counter() - started)
print(sorted(times)[len(times) // 2])
"""


def run(world: World) -> None:
    world.change_network(clients="any")  # a router to pods, too
    world.apply("--yes")
    _as_router(world)
    _compare(world, "1 Service more than the lab's own")
    _many_services(world, 1000)
    world.apply()
    _compare(world, "1,000 Services")


def _as_router(world: World) -> None:
    """The pod by way of the VM, and back by way of the VM: no translation in between."""
    world.create(*objects.service_with_slice("one", [("http", 80, objects.HTTP_PORT, "TCP")], {POD: "pod-1"}))
    world.in_namespace("host", "ip", "route", "replace", f"{POD}/32", "via", "192.168.100.5")
    world.in_namespace("node", "ip", "route", "replace", "192.168.100.10/32", "via", "192.168.100.5")
    url = f"http://{world.cluster_ip('one')}/hostname"
    world.in_namespace("host", "curl", "-sS", "-o", "/dev/null", "--retry", "20", "--retry-all-errors", url)


def _compare(world: World, which: str) -> None:
    service = world.cluster_ip("one")
    through, bare = medians(
        lambda: _seconds(world, service, 80), lambda: _seconds(world, POD, objects.HTTP_PORT), rounds=ROUNDS
    )
    tell(
        f"throughput through the VM / bare router ({which})",
        bare / through,
        f"{SIZE * 8 / through / 1e9:.2f} against {SIZE * 8 / bare / 1e9:.2f} Gbit/s, "
        f"{SIZE >> 20} MiB by HTTP, medians of {ROUNDS} by turns",
    )
    slow, quick = medians(
        lambda: _latency(world, service, 80), lambda: _latency(world, POD, objects.HTTP_PORT), rounds=ROUNDS
    )
    tell(
        f"latency through the VM / bare router ({which})",
        slow / quick,
        f"{slow * 1e3:.2f} against {quick * 1e3:.2f} ms for a connection with one request, "
        f"medians of {ROUNDS} times {REQUESTS}",
    )


def _seconds(world: World, address: str, port: int) -> float:
    url = f"http://{address}:{port}/bytes/{SIZE}"
    told = world.in_namespace("host", "curl", "-sS", "-o", "/dev/null", "-w", "%{time_total}", url)
    return float(told)


def _latency(world: World, address: str, port: int) -> float:
    words = ("python3", "-c", CLIENT, address, str(port), str(REQUESTS))
    return statistics.median([float(world.in_namespace("host", *words))])


def _many_services(world: World, count: int) -> None:
    for number in range(count):
        world.create(
            *objects.service_with_slice(
                f"many-{number}", [("http", 80, objects.HTTP_PORT, "TCP")], {POD: "pod-1"}
            )
        )
