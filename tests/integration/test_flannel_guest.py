"""podRoutes: flannel in the guest, which is the same on every host: what comes, goes, or is of no use."""

from __future__ import annotations

import json

import pytest

from tests.integration.test_flannel import (
    CONFIG,
    FAR,
    FAR_SERVICE,
    NEAR,
    device,
    flannel,
    is_whole,
    kept,
    mac,
    seen,
    status,
    wanted,
)
from tests.integration.world import World
from vmproxy.lab.flannel import PORT, VNI, Flannel
from vmproxy.lab.network import FLANNEL_NODES, FLANNEL_PODS
from vmproxy.util import netns, wait
from vmproxy.util.run import run

__all__ = ["flannel", "kept"]

pytestmark = pytest.mark.lab


def findings(world: World) -> list[str]:
    """Doctor's, of the routes to pods."""
    (host,) = world.vmproxy("doctor", "-o", "json").json["hosts"]
    return [
        ": ".join(filter(None, (item["detail"], item["next"])))
        for item in host["findings"]
        if item["check"] == "pod routes"
    ]


def outage(world: World) -> str:
    """Why the guest does not follow the API server; empty: it does."""
    return str(json.loads(world.look("cat /run/vmproxy/podroutes.json"))["api"])


def annotate(flannel: Flannel, node: str, **notes: str | None) -> None:
    found = {f"flannel.alpha.coreos.com/{name.replace('_', '-')}": value for name, value in notes.items()}
    with flannel.control.api() as api:
        patch = {"metadata": {"annotations": found}}
        kind = {"Content-Type": "application/merge-patch+json"}
        api.patch(f"/api/v1/nodes/{node}", json=patch, headers=kind).raise_for_status()


def answers(world: World) -> bool | str:
    try:
        return world.curl(FAR_SERVICE) == "pod-5"
    except Exception as exc:  # curl's own words are of no use
        return str(exc)


def test_a_node_that_moves_goes_and_comes_is_followed_without_apply(kept: World, flannel: Flannel) -> None:
    left, moved = wanted(flannel, NEAR), (mac(flannel, FAR), "172.31.0.99")
    annotate(flannel, FAR, public_ip=moved[1])
    wait.until("the entry", lambda: moved in (found := seen(kept)[2]).items() or str(found), timeout=30)
    try:
        kept.delete(f"/api/v1/nodes/{FAR}")
        wait.until("the route to go", lambda: (found := seen(kept)) == left or str(found), timeout=30)
        assert kept.drift() == []
        kept.delete(f"/api/v1/nodes/{NEAR}")
        wait.until("the device to go", lambda: (found := device(kept)) == {} or str(found), timeout=30)
    finally:
        for node in FLANNEL_NODES:  # it announces its Node when it starts
            flannel.process(node).stop()
        flannel.up(print)
    wait.until("the routes", lambda: is_whole(kept, flannel), timeout=30)
    assert kept.curl(FAR_SERVICE) == "pod-5"
    assert kept.drift() == []


def test_routes_outlast_an_api_server_that_is_gone_for_a_while(kept: World, flannel: Flannel) -> None:
    before, url = seen(kept), f"http://{kept.cluster_ip(FAR_SERVICE)}/hostname"
    flannel.control.process("kube-apiserver").stop()
    try:
        wait.until("the outage to be noticed", lambda: outage(kept) != "", timeout=60)
        assert seen(kept) == before
        assert kept.look_in("host", "curl", "-sSm", "30", url).strip() == "pod-5"
    finally:
        flannel.control.up(print)
    annotate(flannel, FAR, public_ip="172.31.0.99")
    try:
        moved = mac(flannel, FAR), "172.31.0.99"
        wait.until("the entry", lambda: moved in (found := seen(kept)[2]).items() or str(found), timeout=60)
    finally:
        annotate(flannel, FAR, public_ip=FLANNEL_NODES[FAR])
    wait.until("the routes", lambda: is_whole(kept, flannel), timeout=30)


LOST = (
    "systemctl kill -s KILL vmproxy-routes.service",
    "systemd-run -q sh -c 'ip link set eth0 down; sleep 1; ip link set eth0 up'",
    "systemctl restart systemd-networkd",
)
"""test_vxlan.py has what is lost in the kernel alone."""


def test_what_is_lost_in_the_vm_comes_back_by_itself(kept: World, flannel: Flannel) -> None:
    for break_ in LOST:
        kept.guest(break_)
        wait.until("all of it", lambda: is_whole(kept, flannel), timeout=60)
        wait.until("the pod", lambda: answers(kept), timeout=60)
    assert "mtu 1450" in kept.look("ip link show vmproxy.1")
    wait.until("the unit to run again", lambda: (found := kept.drift()) == [] or str(found), timeout=60)


def test_a_watch_that_was_stopped_is_drift(kept: World, flannel: Flannel) -> None:
    kept.guest("systemctl stop vmproxy-routes.service; ip link del vmproxy.1")
    assert kept.drift() == ["vmproxy-routes.service: active"]
    kept.apply()
    assert kept.drift() == []
    wait.until("all of it", lambda: is_whole(kept, flannel), timeout=30)


def test_the_port_is_found_and_the_site_files_own_one_wins(kept: World) -> None:
    assert f"the VM sends to UDP port {PORT}" in findings(kept)
    kept.change(cluster={**kept.site()["cluster"], "flannelPort": 8472})
    assert kept.drift() == [CONFIG]
    kept.apply()
    wait.until("the device", lambda: device(kept).get("port") == 8472, timeout=30)
    ran = kept.vmproxy("verify", "--service", f"demo/{FAR_SERVICE}", "-o", "json")
    assert ran.code == 4
    (check,) = ran.json["hosts"][0]["checks"]
    assert check["hop"] == "endpoint"
    assert f"the VM sends it over VXLAN to UDP port 8472 of Node {FAR}" in check["detail"]


def filter_by_reverse_path(flannel: Flannel, value: int) -> None:
    names = [f"net.ipv4.conf.{name}.rp_filter" for name in ("all", f"flannel/{VNI}")]
    command = ["sysctl", "-qw", *(f"{name}={value}" for name in names)]
    run(netns.run_in(flannel.network.namespace(FAR), command))


def test_a_node_that_filters_by_the_reverse_path_is_named(kept: World, flannel: Flannel) -> None:
    filter_by_reverse_path(flannel, 1)
    try:
        ran = kept.vmproxy("verify", "--service", f"demo/{FAR_SERVICE}", "-o", "json")
        assert ran.code == 4
        (check,) = ran.json["hosts"][0]["checks"]
        assert "drops it if net.ipv4.conf.*.rp_filter is 1 there" in check["detail"]
    finally:
        filter_by_reverse_path(flannel, 2)
    wait.until("the pod", lambda: answers(kept), timeout=30)


def test_a_node_of_no_use_is_named_with_what_helps(kept: World, flannel: Flannel) -> None:
    def is_left(told: str) -> bool | str:
        warnings = kept.vmproxy("plan", "-o", "json").json["hosts"][0]["warnings"]
        return any(warning.startswith(told) for warning in warnings) or str(warnings)

    left, told = wanted(flannel, FAR), f"no route to the pods of Node {NEAR}: that Node's annotations name no"
    address = FLANNEL_NODES[NEAR]
    try:
        for notes in ({"backend_type": None}, {"backend_type": "vxlan", "public_ip": "node-03.example"}):
            annotate(flannel, NEAR, **notes)
            wait.until("its route to go", lambda: (found := seen(kept)) == left or str(found), timeout=30)
        assert is_left(told) is True
        annotate(flannel, NEAR, public_ip=address, backend_type="host-gw")
        pod = FLANNEL_PODS["pod-4"]
        advice = f"{pod} is on {NEAR}, whose flannel has the back-end host-gw: set network.routes"
        assert is_left(advice) is True
        assert advice in findings(kept)
        assert any(warning.startswith(told) for warning in status(kept)["warnings"])
    finally:
        annotate(flannel, NEAR, backend_type="vxlan", public_ip=address)
    wait.until("the routes", lambda: is_whole(kept, flannel), timeout=30)


def test_a_vm_that_was_switched_off_sends_again_without_apply(kept: World, flannel: Flannel) -> None:
    kept.restart()
    wait.until("the routes", lambda: is_whole(kept, flannel), timeout=120)
    wait.until("the pod", lambda: answers(kept), timeout=120)
