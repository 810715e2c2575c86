"""A cluster of 5,000 Nodes and 10,000 Services, looked at through a real HTTPS server on loopback.

python -m bench bigcluster. The server is a process of its own, and so is each look: its memory is measured.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from multiprocessing import Queue, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.cluster.served import Answer, serving
from vmproxy.cluster.api import Cluster
from vmproxy.cluster.client import Client
from vmproxy.cluster.credentials import Fixed
from vmproxy.cluster.login import Session
from vmproxy.lab.pki import Pki
from vmproxy.site import model

NODES, SERVICES, ENDPOINTS = 5000, 10_000, 10
MOST_SECONDS, MOST_MEGABYTES = 20.0, 200.0
_IMAGES = [
    {"names": [f"registry.corp.example/image-{number}@sha256:{'a' * 64}"], "sizeBytes": number}
    for number in range(50)
]
"""What a Node reports: most of its some 10 KB."""


def node(number: int) -> dict[str, Any]:
    high, low = divmod(number, 250)
    cidr = f"10.{128 + high}.{low}.0/24"
    address = {"type": "InternalIP", "address": f"10.20.{high}.{low + 1}"}
    fields = [{"manager": "kubelet", "fieldsV1": {f"f:{item}": {} for item in range(100)}}]
    return {
        "metadata": {"name": f"node-{number:05}", "managedFields": fields},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [address], "images": _IMAGES},
    }


def service(number: int) -> dict[str, Any]:
    address = f"10.96.{number // 250}.{number % 250 + 1}"
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    return {
        "metadata": {"namespace": "n", "name": f"service-{number}"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports},
    }


def endpoint_slice(number: int) -> dict[str, Any]:
    def endpoint(place: int) -> dict[str, Any]:
        high, low = divmod((number * ENDPOINTS + place) % NODES, 250)
        return {
            "addresses": [f"10.{128 + high}.{low}.{place + 2}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{high * 250 + low:05}",
            "targetRef": {"kind": "Pod", "namespace": "n", "name": f"pod-{number}-{place}", "uid": "0" * 36},
        }

    labels = {"kubernetes.io/service-name": f"service-{number}"}
    return {
        "metadata": {"namespace": "n", "name": f"service-{number}-x", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353}],
        "endpoints": [endpoint(place) for place in range(ENDPOINTS)],
    }


_LISTS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "/api/v1/nodes": (node, NODES),
    "/api/v1/services": (service, SERVICES),
    "/apis/discovery.k8s.io/v1/endpointslices": (endpoint_slice, SERVICES),
    "/api/v1/namespaces/vmproxy/serviceaccounts": (service, 0),
}


def answer(_method: str, target: str) -> Answer:
    parts = urlsplit(target)
    if parts.path == "/version":
        return Answer(body={"gitVersion": "v1.36.3"})
    if parts.path == "/api/v1/namespaces/default/services/kubernetes":
        return Answer(body=service(0))
    if parts.path not in _LISTS:
        return Answer(404, {})
    make, total = _LISTS[parts.path]
    query = parse_qs(parts.query)
    start, limit = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
    end = min(start + limit, total)
    items = [make(number) for number in range(start, end)]
    return Answer(body={"metadata": {"continue": str(end) if end < total else ""}, "items": items})


def look(url: str, ca: str, found: Queue[tuple[float, float]]) -> None:
    """As `plan` does: seconds and the process' own megabytes at most."""
    client = Client(Session(server=url, ca=ca, credentials=Fixed(token="t"), origin="the benchmark"))
    wanted = model.Cluster.model_validate({"serviceCIDRs": ["10.96.0.0/16"]})
    started = time.monotonic()
    cluster = Cluster(client, wanted=wanted, server=url, ca=ca)
    seen, services = cluster.observe(), cluster.services()
    seconds = time.monotonic() - started
    assert (len(seen.nodes), len(services)) == (NODES, SERVICES)
    assert sum(len(item.endpoints) for item in services) == SERVICES * ENDPOINTS
    found.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def serve(folder: str, found: Queue[str]) -> None:
    with serving(Pki(Path(folder)), answer) as api:
        found.put(api.url)
        time.sleep(600)


def measured() -> tuple[float, float]:
    """Seconds and megabytes of one look."""
    processes = get_context("spawn")
    with TemporaryDirectory() as folder:
        pki = Pki(Path(folder))
        pki.make(server_names=("127.0.0.1",))
        urls, found = processes.Queue(), processes.Queue()
        server = processes.Process(target=serve, args=(folder, urls), daemon=True)
        server.start()
        try:
            ca = pki.certificate_file("ca").read_text()
            looking = processes.Process(target=look, args=(urls.get(timeout=60), ca, found))
            looking.start()
            result: tuple[float, float] = found.get(timeout=300)
            looking.join()
            return result
        finally:
            server.terminate()
            server.join()


def run() -> None:
    seconds, megabytes = measured()
    size = f"{NODES} Nodes, {SERVICES} Services, {SERVICES * ENDPOINTS} endpoints"
    print(
        f"{size}: {seconds:.1f} s, {megabytes:.0f} MB; at most {MOST_SECONDS:.0f} s, {MOST_MEGABYTES:.0f} MB"
    )
    if seconds > MOST_SECONDS or megabytes > MOST_MEGABYTES:
        sys.exit("too slow, or too large")
