"""What keeps routes over flannel's VXLAN in the VM: how soon they follow a Node, and what they cost.

python -m bench flannel. In a network namespace of its own: podroutes.py as in the guest, with the real ip,
bridge and kernel, against an API server on loopback with 500 Nodes of 8 KB.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import podroutes
from tests.unit.guest.machine import Machine
from tests.unit.guest.watched import WatchedApi, watched
from vmproxy.lab.pki import Pki

NODES, ROUNDS = 500, 20
MOST_SECONDS, MOST_MEGABYTES = 5.0, 64.0
_FILLING = "x" * 8000


def node(number: int, moved: int = 0) -> dict[str, Any]:
    """`moved`: it has got another address."""
    notes = {
        "backend-type": "vxlan",
        "backend-data": json.dumps(
            {"VNI": 1, "VtepMAC": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"}
        ),
        "public-ip": f"172.{16 + moved}.{number >> 8}.{number & 255}",
    }
    annotations = {f"flannel.alpha.coreos.com/{name}": value for name, value in notes.items()}
    return {
        "metadata": {"name": f"node-{number:03}", "annotations": {**annotations, "filling": _FILLING}},
        "spec": {"podCIDRs": [_cidr(number)]},
    }


def _cidr(number: int) -> str:
    return f"10.{244 + (number >> 8)}.{number & 255}.0/24"


def inside(folder: Path) -> None:
    """Run in the namespace."""
    pki, machine = Pki(folder / "pki"), Machine(folder)
    pki.make(server_names=("127.0.0.1",))
    machine.write("/sys/class/net/eth0/mtu", "1500\n")
    with watched(pki) as api:
        api.objects = {item["metadata"]["name"]: item for item in map(node, range(NODES))}
        for item in api.objects.values():
            item["metadata"]["resourceVersion"] = "1"
        config = {
            "mode": "flannel",
            "server": f"https://127.0.0.1:{api.port}",
            "ca": str(pki.certificate_file("ca")),
            "node": "win-01",
            "local": "192.168.100.5",
            "port": 8472,
            "aside": [],
            "refused": ["192.168.100.0/24", "10.96.0.0/16", "127.0.0.0/8"],
        }
        begun = time.perf_counter()
        with podroutes.running(machine, config) as process:
            _measure(api, process, begun)


def _measure(api: WatchedApi, process: subprocess.Popen[bytes], begun: float) -> None:
    podroutes.until("all routes", lambda: podroutes.routes() == NODES)
    seconds, cpu = time.perf_counter() - begun, podroutes.cpu(process)
    print(f"{NODES} Nodes: all routes after {seconds:.1f} s, {cpu:.1f} s of CPU")
    podroutes.until("the watch", lambda: api.watches == 1)
    slowest = max(
        _reactions("Node deleted -> its route gone", lambda number: _delete(api, number)),
        _reactions("Node added -> its route set", lambda number: _add(api, number)),
        _reactions("Node's address changed -> sent there", lambda number: _move(api, number)),
    )
    peak, now = podroutes.megabytes(process, "VmHWM"), podroutes.megabytes(process, "VmRSS")
    print(f"memory: {now:.0f} MB, {peak:.0f} MB at its peak")
    if slowest > MOST_SECONDS or peak > MOST_MEGABYTES:
        sys.exit("too slow, or too large")


def _reactions(what: str, change: Callable[[int], Callable[[], bool]]) -> float:
    """From each change at the API to the kernel. Returns the slowest, in seconds."""
    times = []
    for number in range(ROUNDS):
        begun = time.perf_counter()
        podroutes.until("the kernel", change(number))
        times.append(time.perf_counter() - begun)
    median, worst = statistics.median(times) * 1e3, max(times) * 1e3
    print(f"{what}: {median:.0f} ms (worst {worst:.0f} ms), of {ROUNDS}")
    return max(times)


def _delete(api: WatchedApi, number: int) -> Callable[[], bool]:
    api.delete(f"node-{number:03}")
    return lambda: not _shown("ip", "-4", "route", "show", _cidr(number))


def _add(api: WatchedApi, number: int) -> Callable[[], bool]:
    api.put(node(number))
    return lambda: "dev vmproxy.1" in _shown("ip", "-4", "route", "show", _cidr(number))


def _move(api: WatchedApi, number: int) -> Callable[[], bool]:
    api.put(node(number, moved=1))
    entry = f"dst 172.17.{number >> 8}.{number & 255} "
    return lambda: entry in _shown("bridge", "fdb", "show", "dev", "vmproxy.1")


def _shown(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def run() -> None:
    podroutes.run("bench.flannel")


if __name__ == "__main__":
    inside(Path(sys.argv[1]))
