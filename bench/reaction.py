"""From a Service made at the API to an answer at the host."""

from __future__ import annotations

import statistics
import time

from bench.measure import tell
from tests.integration.world import World
from vmproxy.lab import objects
from vmproxy.lab.cluster import apply_objects
from vmproxy.lab.network import PODS
from vmproxy.util import netns, wait

ROUNDS = 10


def run(world: World) -> None:
    world.apply("--yes")
    writes, answers = [], []
    for number in range(ROUNDS):
        write, answer = _once(world, f"new-{number}")
        writes.append(write)
        answers.append(answer)
    seconds, write = statistics.median(answers), statistics.median(writes)
    tell(
        "Service made → answered / one write to the API",
        seconds / write,
        f"{seconds * 1e3:.0f} ms (worst {max(answers) * 1e3:.0f} ms) against {write * 1e3:.0f} ms, "
        f"medians of {ROUNDS}",
    )


def _once(world: World, name: str) -> tuple[float, float]:
    service = objects.service_with_slice(
        name, [("http", 80, objects.HTTP_PORT, "TCP")], {PODS["pod-1"]: "pod-1"}
    )
    with world.api() as api:
        started = time.perf_counter()
        apply_objects(api, service[:1])
        write = time.perf_counter() - started
        path = f"/api/v1/namespaces/demo/services/{name}"
        address = api.get(path).raise_for_status().json()["spec"]["clusterIP"]
        apply_objects(api, service[1:])
        started = time.perf_counter()

    def probe() -> bool | str:
        try:
            netns.connect(world.status.namespaces["host"], (address, 80), timeout=0.5).close()
        except OSError as exc:
            return str(exc)
        return True

    wait.until("an answer", probe, timeout=60, every=0.01)
    return write, time.perf_counter() - started
