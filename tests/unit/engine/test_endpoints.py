"""What the VM does not reach, and when a route is to blame: the answers of the guest's agent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, cast

import pytest

from vmproxy.engine.endpoints import Target, broken, unreachable
from vmproxy.guest.connection import Guest
from vmproxy.guest.wire import Endpoint, Reach
from vmproxy.model.seen import ClusterSeen, EndpointSeen, NodeSeen, ServiceSeen
from vmproxy.util import assets

POD, NODE, ELSEWHERE = "10.244.1.10", "192.168.100.20", "192.168.100.1"
CLUSTER = ClusterSeen(
    version="v1.36.3",
    server="https://192.168.100.10:6443",
    ca="",
    service_cidrs=("10.96.0.0/16",),
    pod_cidrs=(),
    nodes=(NodeSeen("node-01", (NODE,), ("fd00::/64", "10.244.1.0/24")),),
    canary=("10.96.0.1", 443),
    account_uid=None,
    identity={},
)
REACHED = Reach(None, silent=False, refused=False, via=None)


def target(protocol: Literal["tcp", "udp"], *addresses: str) -> Target:
    endpoints = tuple(EndpointSeen(item, True, None, {(80, protocol): 8080}) for item in addresses)
    return Target(ServiceSeen("demo/web", "10.96.3.3", ((80, protocol),), endpoints), 80, protocol)


class Answers:
    """A guest whose connections end as told."""

    def __init__(self, **by_protocol: Reach) -> None:
        self._by_protocol = by_protocol
        self.asked: list[str] = []

    def reach(self, endpoints: Sequence[Endpoint]) -> list[Reach]:
        self.asked += [endpoint.address for endpoint in endpoints]
        return [self._by_protocol.get(endpoint.protocol, REACHED) for endpoint in endpoints]


def lost(target: Target, reach: Reach) -> str | None:
    guest = cast(Guest, Answers(**{target.protocol: reach}))
    return broken(guest, [target], CLUSTER)[0]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_silence_on_another_way_than_over_the_node_is_a_missing_route(
    protocol: Literal["tcp", "udp"],
) -> None:
    for via in (ELSEWHERE, None):
        why = lost(target(protocol, POD), Reach("no answer within 3 s", silent=True, refused=False, via=via))
        assert why == (
            "the VM does not reach 10.244.1.10:8080: no answer within 3 s; missing route: 10.244.1.0/24 via "
            "192.168.100.20 (Node node-01): set network.podRoutes: nodes, or network.routes"
        )


def test_with_the_route_there_a_silent_tcp_endpoint_is_lost_and_no_route_is_named() -> None:
    why = lost(target("tcp", POD), Reach("no answer within 3 s", silent=True, refused=False, via=NODE))
    assert why == "the VM does not reach 10.244.1.10:8080: no answer within 3 s"


@pytest.mark.parametrize(("address", "via"), [(POD, NODE), ("192.168.100.30", None)])
def test_silent_udp_proves_nothing_without_a_missing_route(address: str, via: str | None) -> None:
    assert (
        lost(target("udp", address), Reach("no answer within 3 s", silent=True, refused=False, via=via))
        is None
    )


@pytest.mark.parametrize("via", [NODE, ELSEWHERE])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_refusal_is_proof_but_of_no_missing_route(protocol: Literal["tcp", "udp"], via: str) -> None:
    """Something else may know the way to the pods, as a router that speaks BGP with the Nodes."""
    why = lost(target(protocol, POD), Reach("Connection refused", silent=False, refused=True, via=via))
    assert why == "the VM does not reach 10.244.1.10:8080: Connection refused"


def test_targets_that_share_an_endpoint_ask_for_it_once() -> None:
    guest = Answers()
    pair = [target("tcp", POD, "10.244.1.11"), target("tcp", POD)]
    assert broken(cast(Guest, guest), pair, CLUSTER) == [None, None]
    assert guest.asked == [POD, "10.244.1.11"]
    assert broken(cast(Guest, guest), [target("tcp")], CLUSTER) == [None]


def test_one_network_is_warned_of_once_and_named_by_its_service() -> None:
    guest = Answers(tcp=Reach("No route to host", silent=False, refused=False, via=ELSEWHERE))
    services = [target("tcp", POD, "10.244.1.11").service, target("udp", POD).service]
    (warning,) = unreachable(cast(Guest, guest), services, CLUSTER)
    assert warning.startswith(
        "Service demo/web:80: the VM does not reach 10.244.1.10:8080: No route to host; missing"
    )


def ask_agent(*endpoints: tuple[str, int]) -> list[dict[str, Any]]:
    """The agent itself, on this machine's loopback."""
    request = {
        "operation": "reach",
        "endpoints": [
            {"address": "127.0.0.1", "port": port, "protocol": protocol} for protocol, port in endpoints
        ],
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", assets.text("guest/agent.py")],
        input=json.dumps(request).encode() + b"\n",
        capture_output=True,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)["endpoints"]
    return answers


@pytest.fixture
def silent_udp() -> Iterator[int]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_the_agent_tells_silence_from_refusal(silent_udp: int) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        open_port = listening.getsockname()[1]
        with closing(socket.socket()) as unheard:
            unheard.bind(("127.0.0.1", 0))
            shut = unheard.getsockname()[1]
            found = ask_agent(("tcp", open_port), ("tcp", shut), ("udp", shut), ("udp", silent_udp))
    reached = {"why": None, "silent": False, "refused": False, "via": None}
    refused = {"why": "Connection refused", "silent": False, "refused": True, "via": None}
    assert found == [reached, refused, refused, reached], (
        "TCP is refused there: the silent machine is reached"
    )
