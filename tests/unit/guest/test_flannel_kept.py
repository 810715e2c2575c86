"""podroutes.py with flannel: device, peers and routes follow the Nodes of a real HTTPS server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.guest.machine import Machine
from tests.unit.guest.test_flannel import CONFIG, node
from tests.unit.guest.test_podroutes import Guest
from tests.unit.guest.vxlan import Kernel
from tests.unit.guest.watched import WatchedApi, watched
from vmproxy.lab.pki import Pki

A, B = "02:00:00:00:00:61", "02:00:00:00:00:62"
ROUTES = {"10.244.2.0/24": ["10.244.2.0", "251"], "10.244.3.0/24": ["10.244.3.0", "251"]}


class FlannelGuest(Guest):
    """`peers` are two Nodes, a and b."""

    def __init__(self, machine: Machine, api: WatchedApi, pki: Pki) -> None:
        super().__init__(machine, api, pki)
        self.config = {**CONFIG, "mode": "flannel", **{key: self.config[key] for key in ("server", "ca")}}
        self.vxlan = Kernel(machine)
        api.put(node("a"))
        api.put(node("b", "10.244.3.0/24", public_ip="172.31.0.22"))

    def kernel(self, *refused: str) -> None:
        """The one of `vxlan`."""

    def is_whole(self) -> bool:
        state = self.vxlan.state
        return (
            state["device"] is not None
            and state["near"] == {"10.244.2.0": A, "10.244.3.0": B}
            and state["far"] == {A: "172.31.0.21", B: "172.31.0.22"}
            and state["routes"] == ROUTES
        )

    def change(self, **parts: Any) -> None:
        self.vxlan.write({**self.vxlan.state, **parts})


@pytest.fixture
def api(pki: Pki) -> Iterator[WatchedApi]:
    with watched(pki) as server:
        yield server


@pytest.fixture
def guest(machine: Machine, api: WatchedApi, pki: Pki) -> FlannelGuest:
    return FlannelGuest(machine, api, pki)


def test_device_peers_and_routes_follow_from_the_nodes(guest: FlannelGuest, api: WatchedApi) -> None:
    with guest.running():
        guest.until(guest.is_whole)
        guest.until(lambda: guest.seen().get("routes") == 2)
        assert (guest.seen()["mode"], guest.seen()["failed"], guest.seen()["left"]) == ("flannel", 0, [])
    path, query, token = api.asked[0]
    assert (path, query, token) == ("/prefix/api/v1/nodes", {"limit": "50"}, "Bearer first")
    assert guest.vxlan.state["made"] == 1


def test_nodes_that_come_move_and_go_are_followed_without_another_list(
    guest: FlannelGuest, api: WatchedApi
) -> None:
    with guest.running():
        guest.until(lambda: guest.is_whole() and api.watches == 1)
        api.delete("b")
        guest.until(lambda: list(guest.vxlan.state["routes"]) == ["10.244.2.0/24"])
        guest.until(lambda: (guest.vxlan.state["near"], guest.vxlan.state["far"]) == (NEAR_A, FAR_A))
        api.put(node("b", "10.244.3.0/24", public_ip="172.31.0.99"))
        guest.until(lambda: guest.vxlan.state["far"].get(B) == "172.31.0.99")
        api.put(node("b", "10.244.3.0/24", public_ip="172.31.0.22"))
        guest.until(guest.is_whole)
        api.delete("a")
        api.delete("b")
        guest.until(lambda: guest.vxlan.state["device"] is None and guest.seen()["routes"] == 0)
    assert len(api.lists()) == 1
    assert "RTNETLINK" not in guest.journal()


NEAR_A, FAR_A = {"10.244.2.0": A}, {A: "172.31.0.21"}


def test_a_heartbeat_of_a_node_changes_and_wakes_nothing(guest: FlannelGuest, api: WatchedApi) -> None:
    with guest.running():
        guest.until(lambda: guest.is_whole() and api.watches == 1)
        for _ in range(20):
            api.put({**node("a"), "status": {"conditions": [{"type": "Ready"}]}})
        api.put(node("c", "10.244.4.0/24"))
        guest.until(lambda: "3 routes, 1 changes" in guest.journal())
    assert guest.journal().count("changes") == 2
    assert guest.vxlan.state["made"] == 1


DRIFT: dict[str, dict[str, Any]] = {
    "the device": {"device": None, "near": {}, "far": {}, "routes": {}},
    "a neighbour": {"near": NEAR_A},
    "another neighbour": {"near": {"10.244.2.0": A, "10.244.3.0": A}},
    "one neighbour more": {"near": {"10.244.2.0": A, "10.244.3.0": B, "10.244.9.0": A}},
    "an entry": {"far": FAR_A},
    "another entry": {"far": {A: "172.31.0.66", B: "172.31.0.22"}},
    "one entry more": {"far": {**FAR_A, B: "172.31.0.22", "02:00:00:00:00:ff": "172.31.0.66"}},
    "a route": {"routes": {"10.244.2.0/24": ["10.244.2.0", "251"]}},
    "another route": {"routes": {**ROUTES, "10.244.3.0/24": ["10.244.2.0", "251"]}},
    "one route more": {"routes": {**ROUTES, "10.244.9.0/24": ["10.244.9.0", "251"]}},
}


@pytest.mark.parametrize("what", DRIFT)
def test_what_was_changed_in_the_kernel_is_as_before_again(guest: FlannelGuest, what: str) -> None:
    with guest.running():
        guest.until(guest.is_whole)
        guest.change(**DRIFT[what])
        assert not guest.is_whole()
        guest.until(guest.is_whole)


def test_a_device_that_was_changed_is_made_anew_with_all_its_peers(guest: FlannelGuest) -> None:
    with guest.running():
        guest.until(guest.is_whole)
        guest.change(device={**guest.vxlan.state["device"], "mtu": 9000})
        guest.until(lambda: guest.is_whole() and guest.vxlan.state["device"]["mtu"] == 1450)
    assert guest.vxlan.state["made"] == 2


def test_it_takes_over_what_it_finds_after_a_restart(guest: FlannelGuest, api: WatchedApi) -> None:
    with guest.running():
        guest.until(guest.is_whole)
    api.delete("b")
    with guest.running():
        guest.until(lambda: list(guest.vxlan.state["routes"]) == ["10.244.2.0/24"])
    assert guest.vxlan.state["made"] == 1


@pytest.mark.parametrize("status", [403, 503])
def test_all_stays_while_the_api_server_refuses(guest: FlannelGuest, api: WatchedApi, status: int) -> None:
    with guest.running():
        guest.until(lambda: guest.is_whole() and api.watches == 1)
        api.status = status
        api.cut_watches()
        guest.until(lambda: guest.seen().get("api", "-").startswith(str(status)))
        assert guest.is_whole()


def test_a_node_without_vxlan_is_told_once(guest: FlannelGuest, api: WatchedApi) -> None:
    api.put(node("c", "10.244.4.0/24", backend_type="host-gw"))
    with guest.running():
        guest.until(lambda: guest.is_whole() and bool(guest.seen().get("left")))
        api.delete("b")
        guest.until(lambda: len(guest.vxlan.state["routes"]) == 1)
    assert guest.seen()["left"] == [{"why": "foreign", "node": "c", "address": "10.244.4.0", "count": 0}]
    line = "no route to the pods on Node c: its annotations name no VXLAN of flannel's"
    assert guest.journal().count(line) == 1


@pytest.mark.parametrize("mode", ["none", "endpoints"])
def test_another_setting_removes_the_device_with_its_routes(guest: FlannelGuest, mode: str) -> None:
    with guest.running():
        guest.until(guest.is_whole)
    if mode == "none":
        guest.machine.write("/etc/vmproxy/podroutes.json", json.dumps({"mode": "none"}))
        assert guest.machine.run("podroutes.py").returncode == 0
    else:
        with guest.running(mode="endpoints", nodes={}, own=[]):
            guest.until(lambda: guest.seen().get("mode") == "endpoints")
    state = guest.vxlan.state
    assert (state["device"], state["routes"]) == (None, {})
