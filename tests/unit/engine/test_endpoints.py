"""What the VM does not reach, and when a route is to blame: the answers of the guest's agent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Literal, cast

import pytest

from tests.values import node
from vmproxy.engine.endpoints import Target, Ways, broken, of_nodes, unreachable
from vmproxy.guest.connection import Guest
from vmproxy.model.net import Address
from vmproxy.model.seen import ClusterSeen, Endpoint, EndpointSeen, Reach, ServiceSeen
from vmproxy.util import assets

POD, NODE, ELSEWHERE = "10.244.1.10", "192.168.100.20", "192.168.100.1"
CLUSTER = ClusterSeen(
    version="v1.36.3",
    server="https://192.168.100.10:6443",
    ca="",
    service_cidrs=(ip_network("10.96.0.0/16"),),
    pod_cidrs=(),
    nodes=(node("node-01", NODE, "fd00::/64", "10.244.1.0/24"),),
    canary=(ip_address("10.96.0.1"), 443),
    identity={},
)
REACHED = Reach(None, silent=False, refused=False, via=None)


def target(protocol: Literal["tcp", "udp"], *addresses: str) -> Target:
    endpoints = tuple(EndpointSeen(ip_address(item), True, {(80, protocol): 8080}) for item in addresses)
    return Target(
        ServiceSeen("demo/web", ip_address("10.96.3.3"), ((80, protocol),), endpoints), 80, protocol
    )


def hop(address: str | None) -> Address | None:
    return ip_address(address) if address else None


class Answers:
    """A guest whose connections end as told."""

    def __init__(self, **by_protocol: Reach) -> None:
        self._by_protocol = by_protocol
        self.asked: list[str] = []

    def reach(self, endpoints: Sequence[Endpoint]) -> list[Reach]:
        self.asked += [str(endpoint.address) for endpoint in endpoints]
        return [self._by_protocol.get(endpoint.protocol, REACHED) for endpoint in endpoints]


def lost(target: Target, reach: Reach) -> str | None:
    guest = cast(Guest, Answers(**{target.protocol: reach}))
    return broken(guest, [target], Ways(CLUSTER))[0]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_silence_on_another_way_than_over_the_node_is_a_missing_route(
    protocol: Literal["tcp", "udp"],
) -> None:
    for via in (ELSEWHERE, None):
        why = lost(
            target(protocol, POD), Reach("no answer within 3 s", silent=True, refused=False, via=hop(via))
        )
        assert why == (
            "the VM does not reach 10.244.1.10:8080: no answer within 3 s; missing route: 10.244.1.0/24 via "
            "192.168.100.20 (Node node-01): set network.podRoutes: nodes, or network.routes"
        )


def test_a_route_that_vmproxy_sets_and_is_missing_names_apply_and_no_setting() -> None:
    silent = Reach("no answer within 3 s", silent=True, refused=False, via=None)
    known = Ways(CLUSTER, routed=frozenset({ip_network("10.244.1.0/24")}))
    (why,) = broken(cast(Guest, Answers(tcp=silent)), [target("tcp", POD)], known)
    assert why is not None
    assert why.endswith("10.244.1.0/24 via 192.168.100.20 (Node node-01): vmproxy sets it: run vmproxy apply")


def test_with_the_route_there_a_silent_tcp_endpoint_is_lost_and_no_route_is_named() -> None:
    why = lost(target("tcp", POD), Reach("no answer within 3 s", silent=True, refused=False, via=hop(NODE)))
    assert why == "the VM does not reach 10.244.1.10:8080: no answer within 3 s"


@pytest.mark.parametrize(("address", "via"), [(POD, NODE), ("192.168.100.30", None)])
def test_silent_udp_proves_nothing_without_a_missing_route(address: str, via: str | None) -> None:
    assert (
        lost(target("udp", address), Reach("no answer within 3 s", silent=True, refused=False, via=hop(via)))
        is None
    )


@pytest.mark.parametrize("via", [NODE, ELSEWHERE])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_refusal_is_proof_but_of_no_missing_route(protocol: Literal["tcp", "udp"], via: str) -> None:
    """Something else may know the way to the pods, as a router that speaks BGP with the Nodes."""
    why = lost(target(protocol, POD), Reach("Connection refused", silent=False, refused=True, via=hop(via)))
    assert why == "the VM does not reach 10.244.1.10:8080: Connection refused"


def test_targets_that_share_an_endpoint_ask_for_it_once() -> None:
    guest = Answers()
    pair = [target("tcp", POD, "10.244.1.11"), target("tcp", POD)]
    assert broken(cast(Guest, guest), pair, Ways(CLUSTER)) == [None, None]
    assert guest.asked == [POD, "10.244.1.11"]
    assert broken(cast(Guest, guest), [target("tcp")], Ways(CLUSTER)) == [None]


def test_one_network_is_warned_of_once_and_named_by_its_service() -> None:
    guest = Answers(tcp=Reach("No route to host", silent=False, refused=False, via=hop(ELSEWHERE)))
    services = [target("tcp", POD, "10.244.1.11").service, target("udp", POD).service]
    (warning,) = unreachable(cast(Guest, guest), services, Ways(CLUSTER))
    assert warning.startswith(
        "Service demo/web:80: the VM does not reach 10.244.1.10:8080: No route to host; missing"
    )


def silent(via: str | None = ELSEWHERE) -> Reach:
    return Reach("no answer within 3 s", silent=True, refused=False, via=hop(via))


def service(name: str, *endpoints: EndpointSeen, local: bool = False) -> ServiceSeen:
    return ServiceSeen(name, ip_address("10.96.3.3"), ((80, "tcp"),), endpoints, local)


def pods(count: int) -> list[EndpointSeen]:
    """10.0.0.0 and on, most of them in networks of their own."""
    first = ip_address("10.0.0.1")
    return [EndpointSeen(first + 64 * number, True, {(80, "tcp"): 8080}) for number in range(count)]


def test_a_plan_opens_at_most_60_connections_whatever_the_number_of_endpoints() -> None:
    guest = Answers(tcp=silent())
    services = [service(f"demo/{number}", *pods(5000)) for number in range(3)]
    warnings = unreachable(cast(Guest, guest), services, Ways(CLUSTER))
    assert warnings[10:] == ("the VM does not reach endpoints in 50 more networks",)
    assert 0 < len(guest.asked) <= 60
    assert len({address.rpartition(".")[0] for address in guest.asked}) == 60, "each in another network"


def test_a_service_with_thousands_of_silent_endpoints_is_tried_by_a_sample() -> None:
    guest = Answers(tcp=silent())
    target = Target(service("demo/web", *pods(5000)), 80, "tcp")
    (why,) = broken(cast(Guest, guest), [target], Ways(CLUSTER))
    assert why is not None
    assert len(guest.asked) <= 60


def test_what_takes_too_long_is_left_untried_and_not_said_to_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmproxy.engine.endpoints._SECONDS", -1.0)
    guest = Answers(tcp=silent())
    assert unreachable(cast(Guest, guest), [service("demo/web", *pods(5000))], Ways(CLUSTER)) == ()
    assert guest.asked == []


def test_the_slice_names_the_node_where_no_podcidr_holds_the_pods_address() -> None:
    """As with Calico's own address management."""
    here = EndpointSeen(ip_address("10.77.0.9"), True, {(80, "tcp"): 8080}, "node-01")
    guest = Answers(tcp=silent())
    (warning,) = unreachable(cast(Guest, guest), [service("demo/web", here)], Ways(CLUSTER))
    assert f"via {NODE} (Node node-01, whose podCIDR does not hold it)" in warning
    host_network = EndpointSeen(ip_address(NODE), True, {(80, "tcp"): 8080}, "node-01")
    (warning,) = unreachable(cast(Guest, guest), [service("demo/web", host_network)], Ways(CLUSTER))
    assert "missing route" not in warning


def test_of_a_service_with_a_local_policy_only_the_own_nodes_endpoints_are_tried() -> None:
    guest = Answers(tcp=silent())
    there = EndpointSeen(ip_address(POD), True, {(80, "tcp"): 8080}, "node-01")
    local = service("demo/web", there, local=True)
    for other in (None, "win-01"):
        assert unreachable(cast(Guest, guest), [local], Ways(CLUSTER, other)) == ()
    assert len(unreachable(cast(Guest, guest), [local], Ways(CLUSTER, "node-01"))) == 1


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


def on_node(name: str, address: str, node: str | None) -> ServiceSeen:
    return service(name, EndpointSeen(ip_address(address), True, {(80, "tcp"): 8080}, node))


def test_of_each_node_a_pod_is_tried_before_the_node_itself_and_its_neighbours() -> None:
    guest = Answers()
    services = [
        on_node("a/near", "192.168.100.31", "node-01"),
        on_node("a/own", NODE, "node-01"),
        on_node("a/pod", POD, "node-01"),
        on_node("a/second", "10.244.1.11", "node-01"),
        on_node("a/nobody", "10.244.7.7", None),
        on_node("a/elsewhere", "10.244.2.1", "node-02"),
    ]
    ways = Ways(CLUSTER, near=ip_network("192.168.100.0/24"))
    assert of_nodes(cast(Guest, guest), services, ways) == []
    assert guest.asked == [POD, "10.244.2.1"]


def test_a_node_whose_pod_is_not_reached_is_named_with_it() -> None:
    guest = cast(Guest, Answers(tcp=silent(via=NODE)))
    ((target, why),) = of_nodes(guest, [on_node("a/pod", POD, "node-01")], Ways(CLUSTER))
    assert str(target) == "a/pod:80"
    assert why == f"Node node-01: the VM does not reach {POD}:8080: no answer within 3 s"


def test_a_route_that_the_vm_keeps_itself_and_is_missing_names_status() -> None:
    guest = cast(Guest, Answers(tcp=silent()))
    stray = on_node("a/stray", "172.16.192.7", "node-01")
    ((_, why),) = of_nodes(guest, [stray], Ways(CLUSTER, mode="endpoints"))
    assert why.endswith("172.16.192.7 via 192.168.100.20 (Node node-01): the VM keeps it: see vmproxy status")
    ((_, why),) = of_nodes(guest, [stray], Ways(CLUSTER))
    assert why.endswith("does not hold it): set network.podRoutes: endpoints, or network.routes")


def test_over_vxlan_the_route_is_missing_or_the_node_drops_what_comes() -> None:
    pod, ways = on_node("a/pod", POD, "node-01"), Ways(replace(CLUSTER, flannel_port=4789), mode="flannel")
    ((_, why),) = of_nodes(cast(Guest, Answers(tcp=silent())), [pod], ways)
    assert why.endswith("10.244.1.0/24 over VXLAN (Node node-01): the VM keeps it: see vmproxy status")
    ((_, why),) = of_nodes(cast(Guest, Answers(tcp=silent(via="10.244.1.0"))), [pod], ways)
    assert why.endswith(
        "; the VM sends it over VXLAN to UDP port 4789 of Node node-01, which drops it if "
        "net.ipv4.conf.*.rp_filter is 1 there, or flannel uses another port"
    )
    stray = on_node("a/stray", "172.16.192.7", "node-01")
    ((_, why),) = of_nodes(cast(Guest, Answers(tcp=silent())), [stray], ways)
    assert why.endswith("no answer within 3 s")
