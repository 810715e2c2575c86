"""What keeps routes to endpoints in the VM: how soon a route follows, and what it costs.

python -m bench podroutes. In a network namespace of its own: podroutes.py as in the guest, with the real ip
and kernel, against an API server on loopback with 5,000 endpoints of 1,000 Services on 200 Nodes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.unit.guest.machine import PYTHON, Machine
from tests.unit.guest.watched import WatchedApi, watched
from vmproxy.lab.pki import Pki
from vmproxy.util import netns, wait
from vmproxy.util.run import run as run_tool

NODES, SERVICES, ENDPOINTS = 200, 1000, 5
ROUNDS, CHURN, PER_SECOND = 50, 20.0, 20
MOST_SECONDS, MOST_MEGABYTES = 5.0, 64.0
_NAMESPACE = f"vmproxy-bench-{os.getpid()}"
_HERTZ = os.sysconf("SC_CLK_TCK")


def endpoint_slice(number: int, moved: int = 0) -> dict[str, Any]:
    def endpoint(place: int) -> dict[str, Any]:
        high, low = divmod(number * ENDPOINTS + place, 250)
        return {
            "addresses": [f"172.16.{high}.{low + 1}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{(number * ENDPOINTS + place + moved) % NODES:03}",
            "targetRef": {"kind": "Pod", "namespace": "n", "name": f"pod-{number}-{place}", "uid": "0" * 36},
        }

    labels = {"kubernetes.io/service-name": f"service-{number}"}
    return {
        "metadata": {"namespace": "n", "name": f"service-{number}-x", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint(place) for place in range(ENDPOINTS)],
    }


def _via(number: int) -> str:
    return f"192.168.100.{number % NODES + 20}"


def _config(port: int, ca: str) -> dict[str, Any]:
    return {
        "mode": "endpoints",
        "server": f"https://127.0.0.1:{port}",
        "ca": ca,
        "nodes": {f"node-{number:03}": _via(number) for number in range(NODES)},
        "own": [_via(number) for number in range(NODES)],
        "aside": ["192.168.100.0/24"],
        "refused": ["10.96.0.0/16", "127.0.0.0/8"],
    }


def until(what: str, probe: Callable[[], bool]) -> None:
    wait.until(what, lambda: probe() or "not yet", timeout=120, every=0.005)


def routes() -> int:
    shown = subprocess.run(["ip", "-4", "route", "show", "proto", "251"], capture_output=True, check=True)
    return shown.stdout.count(b"\n")


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds, with those of the programs that it has started."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / _HERTZ


def megabytes(process: subprocess.Popen[bytes], name: str) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {name} of process {process.pid}")


def inside(folder: Path) -> None:
    """Run in the namespace."""
    pki, machine = Pki(folder / "pki"), Machine(folder)
    pki.make(server_names=("127.0.0.1",))
    with watched(pki) as api:
        for number in range(SERVICES):
            item = endpoint_slice(number)
            item["metadata"]["resourceVersion"] = "1"
            api.objects[item["metadata"]["name"]] = item
        begun = time.perf_counter()
        with running(machine, _config(api.port, str(pki.certificate_file("ca")))) as process:
            _measure(api, process, begun)


@contextmanager
def running(machine: Machine, config: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """podroutes.py, in that folder."""
    machine.write("/etc/vmproxy/token", "t")
    machine.write("/usr/local/lib/vmproxy/flannel.py", machine.text("flannel.py"))
    machine.write("/etc/vmproxy/podroutes.json", json.dumps(config))
    words = [PYTHON, "-I", "-S", "-c", machine.text("podroutes.py")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def _measure(api: WatchedApi, process: subprocess.Popen[bytes], begun: float) -> None:
    total = SERVICES * ENDPOINTS
    until("all routes", lambda: routes() == total)
    seconds = time.perf_counter() - begun
    size = f"{total} endpoints, {SERVICES} Services, {NODES} Nodes"
    print(f"{size}: all routes after {seconds:.1f} s, {cpu(process):.1f} s of CPU")
    until("the watch", lambda: api.watches == 1)
    reactions = sorted(_reaction(api, number) for number in range(ROUNDS))
    median, worst = statistics.median(reactions) * 1e3, reactions[-1] * 1e3
    print(f"EndpointSlice changed -> route changed: {median:.0f} ms (worst {worst:.0f} ms), of {ROUNDS}")
    idle = _spent(process, lambda: time.sleep(CHURN))
    busy = _spent(process, lambda: _churn(api))
    peak, now = megabytes(process, "VmHWM"), megabytes(process, "VmRSS")
    print(f"CPU: {idle:.1%} of one when idle, {busy:.1%} with {PER_SECOND} changed slices a second")
    print(f"memory: {now:.0f} MB, {peak:.0f} MB at its peak")
    if reactions[-1] > MOST_SECONDS or peak > MOST_MEGABYTES:
        sys.exit("too slow, or too large")


def _reaction(api: WatchedApi, number: int) -> float:
    """From the change at the API to the route in the kernel."""
    last = number * ENDPOINTS + ENDPOINTS - 1
    high, low = divmod(last, 250)
    begun = time.perf_counter()
    api.put(endpoint_slice(number, moved=1))

    def there() -> bool:
        words = ["ip", "-4", "route", "show", f"172.16.{high}.{low + 1}"]
        shown = subprocess.run(words, capture_output=True, check=True, text=True).stdout
        return f"via {_via(last + 1)} " in shown

    until("the route", there)
    return time.perf_counter() - begun


def _churn(api: WatchedApi) -> None:
    for number in range(int(CHURN * PER_SECOND)):
        api.put(endpoint_slice(number % SERVICES, moved=2 + number // SERVICES))
        time.sleep(1 / PER_SECOND)


def _spent(process: subprocess.Popen[bytes], meanwhile: Callable[[], None]) -> float:
    """The part of one CPU that it uses."""
    before, begun = cpu(process), time.perf_counter()
    meanwhile()
    return (cpu(process) - before) / (time.perf_counter() - begun)


def run(module: str = "bench.podroutes") -> None:
    """`inside` of that module, in a namespace of its own."""
    run_tool(["ip", "netns", "add", _NAMESPACE])
    try:
        for words in (
            ["link", "set", "lo", "up"],
            ["link", "add", "eth0", "type", "veth", "peer", "name", "far"],
            ["addr", "add", "192.168.100.5/24", "dev", "eth0"],
            ["link", "set", "far", "up"],
            ["link", "set", "eth0", "up"],
        ):
            run_tool(["ip", "-n", _NAMESPACE, *words])
        with TemporaryDirectory() as folder:
            command = netns.run_in(_NAMESPACE, [sys.executable, "-m", module, folder])
            done = subprocess.run(command, check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
    finally:
        run_tool(["ip", "netns", "del", _NAMESPACE])


if __name__ == "__main__":
    inside(Path(sys.argv[1]))
