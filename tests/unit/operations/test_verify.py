"""Which Services are tried, and at which hop a connection broke."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.engine.test_endpoints import CLUSTER
from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look
from vmproxy.engine.scope import Scope
from vmproxy.hosts.protocols import Answer
from vmproxy.model.seen import EndpointSeen, Reach, ServiceSeen
from vmproxy.operations.verify import _check, _connection, _targets

VM = ip_address("192.168.100.5")


def service(name: str, *nodes: str, local: bool = False, ready: bool = True) -> ServiceSeen:
    endpoints = tuple(
        EndpointSeen(ip_address("10.244.1.9"), ready, {(80, "tcp"): 8080}, node) for node in nodes
    )
    return ServiceSeen(name, ip_address("10.96.3.3"), ((80, "tcp"),), endpoints, local)


class Guest:
    """All is well in it."""

    def rule_present(self, *_asked: object) -> bool:
        return True

    def reach(self, endpoints: list[Any]) -> list[Reach]:
        return [Reach(None, silent=False, refused=False, via=None) for _ in endpoints]


def broken(seen: ServiceSeen, node: str | None) -> tuple[str | None, str]:
    vm = SimpleNamespace(
        acts_for=node,
        containers=None,
        inside=None,
        address=ip_interface(f"{VM}/24"),
        network=SimpleNamespace(routes=(), pod_routes="none"),
        carrier=SimpleNamespace(own=None),
    )
    scope = SimpleNamespace(
        member=SimpleNamespace(vm=vm, carrier=vm.carrier),
        address=lambda _marker: SimpleNamespace(ip=VM),
        guest=Guest,
        site=SimpleNamespace(cluster_seen=lambda: CLUSTER),
        cluster_seen=lambda: CLUSTER,
        look_at_carrier=lambda: SimpleNamespace(marker=None, vm=SimpleNamespace(running=True, marker="ours")),
    )
    look = Look(cast(Scope, scope))
    check = _check(look, Target(seen, 80, "tcp"), Answer(ok=False, detail="no answer", via=VM))
    return check.hop, check.detail


@pytest.mark.parametrize(
    ("node", "why"),
    [("win-01", "none is on Node win-01"), (None, "a plain gateway (no actsFor) is on no Node")],
)
def test_a_local_policy_with_endpoints_elsewhere_is_named(node: str | None, why: str) -> None:
    hop, detail = broken(service("a/b", "node-01", local=True), node)
    assert hop == "endpoints"
    assert "internalTrafficPolicy: Local" in detail
    assert why in detail


def test_without_ready_endpoints_no_policy_is_to_blame() -> None:
    for local in (True, False):
        hop, detail = broken(service("a/b", "win-01", local=local, ready=False), "win-01")
        assert (hop, detail) == ("endpoints", "the Service has no ready endpoints")


def test_with_an_endpoint_on_its_node_a_local_policy_is_not_to_blame() -> None:
    assert broken(service("a/b", "win-01", local=True), "win-01")[0] == "proxy"


def test_a_plain_verify_tries_only_what_kube_proxy_of_that_node_can_answer() -> None:
    services = [
        service("a/any", "node-01"),
        service("a/here", "win-01", local=True),
        service("a/elsewhere", "node-01", local=True),
        service("a/none"),
    ]
    said: list[str] = []

    def tried(node: str | None, *chosen: str) -> list[str]:
        return [target.service.name for target in _targets(services, chosen, said.append, node=node)]

    assert tried("win-01") == ["a/any", "a/here"]
    assert tried(None) == ["a/any"]
    assert tried(None, "a/elsewhere") == ["a/elsewhere"]
    assert said[0] == "2 Services left out: the VM has no ready endpoints for them"


def test_a_dns_server_gets_a_query_and_others_get_any_bytes() -> None:
    dns = ServiceSeen("kube-system/kube-dns", ip_address("10.96.0.10"), ((53, "udp"),), ())
    assert _connection(Target(dns, 53, "udp")).payload[12:] == b"\x09localhost\x00\x00\x01\x00\x01"
    assert _connection(Target(dns, 54, "udp")).payload == b"vmproxy\n"
