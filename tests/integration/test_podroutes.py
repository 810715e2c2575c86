"""podRoutes: endpoints: a route to each endpoint by way of its Node, kept in the VM without an apply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.world import World
from vmproxy.lab import objects
from vmproxy.lab.cluster import apply_node
from vmproxy.lab.network import ADDRESSES, POD_GATEWAY, STRAY_POD_GATEWAY, STRAY_PODS, Network
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

CONFIG = "/etc/vmproxy/podroutes.json: sha256"
UNIT_FILE = "/etc/systemd/system/vmproxy-routes.service: sha256"
ROUTES = "/etc/vmproxy/routes.json: sha256"
POD = STRAY_PODS["pod-3"]
SLICES = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices"
ADVICE = f"{POD} is on node-02, whose podCIDR 10.244.2.0/24 does not hold it: use podRoutes: endpoints"


@pytest.fixture
def stray(bare: World) -> Iterator[World]:
    """The lab with a Node whose pods ignore its podCIDR, and a Service on it; not in sync."""
    bare.reset()
    try:
        with bare.api() as api:
            apply_node(api, *objects.stray_node())
        bare.create(*objects.stray_service())
        yield bare
    finally:
        bare.delete_service(objects.STRAY_SERVICE)
        bare.delete("/api/v1/nodes/node-02")
        move(bare, "node-02", STRAY_POD_GATEWAY)
        bare.reset()


@pytest.fixture
def kept(stray: World) -> World:
    """With a route to each endpoint."""
    stray.change_network(podRoutes="endpoints")
    stray.settle()
    return stray


def move(world: World, node: str, gateway: str) -> None:
    """The pod to that node."""
    network = Network(world.name)
    network.connect_pod("pod-3", POD, network.namespace(node), gateway)


def answers(world: World) -> bool | str:
    try:
        return world.curl(objects.STRAY_SERVICE) == "pod-3"
    except Exception as exc:  # curl's own words are of no use
        return str(exc)


def pod_routes(world: World) -> dict[str, str]:
    """By destination, those that the VM keeps."""
    lines = world.look("ip -4 route show proto 251").splitlines()
    return {words[0]: words[2] for line in lines if (words := line.split())}


def status(world: World) -> dict[str, Any]:
    (found,) = world.vmproxy("status", "-o", "json").json["hosts"]
    host: dict[str, Any] = found
    return host


def test_pods_outside_their_nodes_pod_cidr_are_named_with_the_setting_that_helps(stray: World) -> None:
    stray.settle()
    (host,) = stray.vmproxy("plan", "-o", "json").json["hosts"]
    assert ADVICE in host["warnings"]
    ran = stray.vmproxy("doctor", "-o", "json")
    assert ran.code == 4
    (finding,) = [item for item in ran.json["hosts"][0]["findings"] if item["check"] == "pod routes"]
    assert f"{finding['detail']}: {finding['next']}" == ADVICE
    assert stray.vmproxy("verify", "--service", f"demo/{objects.STRAY_SERVICE}").code == 4


def test_every_service_answers_with_a_route_to_each_endpoint_and_no_more_rights(stray: World) -> None:
    stray.settle()
    stray.change_network(podRoutes="endpoints")
    assert set(stray.drift()) == {CONFIG, UNIT_FILE, ROUTES}
    stray.apply()
    assert stray.drift() == []
    ran = stray.vmproxy("verify", "-o", "json")
    assert ran.code == 0, ran.out
    tried = {check["service"]: check["ok"] for check in ran.json["hosts"][0]["checks"]}
    assert tried[f"demo/{objects.STRAY_SERVICE}:80"] is True
    assert tried["demo/web-pods:80"] is True
    assert pod_routes(stray) == {
        "10.244.1.10": ADDRESSES["node"],
        "10.244.1.11": ADDRESSES["node"],
        POD: ADDRESSES["node-02"],
    }
    (host,) = stray.vmproxy("plan", "-o", "json").json["hosts"]
    assert host["warnings"] == []
    assert stray.vmproxy("apply").code == 0
    found = status(stray)
    assert (found["podRoutes"]["state"], found["podRoutes"]["routes"]) == ("current", 3)
    assert found["warnings"] == []


def test_a_pod_that_moves_to_another_node_answers_again_without_apply(kept: World) -> None:
    assert answers(kept) is True
    move(kept, "node", POD_GATEWAY)
    assert answers(kept) is not True
    kept.create(objects.stray_service(objects.LINUX_NODE)[1])
    wait.until("the pod on its new node", lambda: answers(kept), timeout=30)
    assert pod_routes(kept)[POD] == ADDRESSES["node"]
    assert kept.drift() == []


def test_endpoints_that_come_and_go_are_followed(kept: World) -> None:
    def routes(*wanted: str) -> bool | str:
        found = pod_routes(kept)
        return set(found) == {"10.244.1.10", "10.244.1.11", *wanted} or str(found)

    kept.delete(f"{SLICES}/{objects.STRAY_SERVICE}-lab")
    wait.until("the route to go", routes, timeout=30)
    kept.create(objects.stray_service()[1])
    wait.until("the route to come", lambda: routes(POD), timeout=30)
    wait.until("the pod", lambda: answers(kept), timeout=30)


def test_an_endpoint_on_an_unknown_node_is_told_and_not_routed(kept: World) -> None:
    kept.create(objects.stray_service("node-09")[1])

    def told() -> bool | str:
        warnings = status(kept)["warnings"]
        wanted = f"no route to {POD} on Node node-09: the VM does not know that Node's address"
        return any(warning.startswith(wanted) for warning in warnings) or str(warnings)

    wait.until("the unknown Node", told, timeout=30)
    assert POD not in pod_routes(kept)
    assert f"no route to {POD} on Node node-09" in kept.look("journalctl -o cat -u vmproxy-routes.service")


def test_routes_outlast_an_api_outage_and_lateness_is_told(kept: World) -> None:
    kept.guest(f"ip route add unreachable {ADDRESSES['control']}/32")
    try:

        def late() -> bool | str:
            found = status(kept)
            told = any("not kept up to date" in warning for warning in found["warnings"])
            return (told and found["podRoutes"]["state"] == "late") or str(found)

        wait.until("the outage to be told", late, timeout=120)
        assert pod_routes(kept)[POD] == ADDRESSES["node-02"]
        kept.create(objects.stray_service(objects.LINUX_NODE)[1])
    finally:
        kept.guest(f"ip route del unreachable {ADDRESSES['control']}/32")
    wait.until(
        "what has changed meanwhile",
        lambda: pod_routes(kept).get(POD) == ADDRESSES["node"] or str(pod_routes(kept)),
        timeout=60,
    )


@pytest.mark.parametrize(
    "break_",
    [
        "ip route flush proto 251",
        "systemctl kill -s KILL vmproxy-routes.service",
        "systemctl restart vmproxy-routes.service",
        "systemd-run -q sh -c 'ip link set eth0 down; sleep 1; ip link set eth0 up'",
        "systemctl restart systemd-networkd",
    ],
)
def test_routes_come_back_by_themselves(kept: World, break_: str) -> None:
    before = pod_routes(kept)
    kept.guest(break_)

    def back() -> bool | str:
        try:
            found = pod_routes(kept)
        except AssertionError as exc:  # the link is down
            return str(exc)
        return found == before or str(found)

    wait.until("the routes", back, timeout=60)
    wait.until("the pod", lambda: answers(kept), timeout=60)
    wait.until("the unit to run again", lambda: (found := kept.drift()) == [] or str(found), timeout=60)


def test_a_watch_that_was_stopped_is_drift(kept: World) -> None:
    kept.guest("systemctl stop vmproxy-routes.service")
    assert kept.drift() == ["vmproxy-routes.service: active"]
    kept.apply()
    assert kept.drift() == []
    assert answers(kept) is True


def test_another_setting_takes_the_routes_away(kept: World) -> None:
    kept.change_network(podRoutes="nodes")
    kept.apply()
    assert kept.drift() == []
    assert pod_routes(kept) == {}
    assert status(kept)["podRoutes"] is None
    assert kept.look("systemctl show -P SubState vmproxy-routes.service").strip() == "exited"
