"""podRoutes: flannel: pods of Nodes with the real flanneld, one of them in another network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_identity import ask
from tests.integration.world import World
from vmproxy.lab.flannel import POD_CIDRS, PORT, SERVICES, VNI, Flannel
from vmproxy.lab.network import ADDRESSES, FLANNEL_NODES, FLANNEL_PODS, POD_CIDR, VM_ADDRESS
from vmproxy.util import netns, wait
from vmproxy.util.run import run

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

NEAR, FAR = FLANNEL_NODES
NEAR_SERVICE, FAR_SERVICE = SERVICES
FAR_POD = FLANNEL_PODS["pod-5"]
CONFIG = "/etc/vmproxy/podroutes.json: sha256"
RULES = "clusterrole/vmproxy-it-win-01: rules"
NETWORK = {"podRoutes": "flannel", "routes": [{"to": POD_CIDR, "via": ADDRESSES["node"]}]}
"""The Node of the lab's other pods has no flannel: a route of the site file's leads there."""


@pytest.fixture(scope="module")
def flannel(bare: World) -> Iterator[Flannel]:
    """Its two Nodes are up."""
    found = Flannel(bare.control().folder, bare.control().network, bare.control())
    try:
        found.up(print)
        yield found
    finally:
        found.down(print)


@pytest.fixture
def kept(flannel: Flannel, settled: World) -> World:
    """In sync, with routes over VXLAN to both Nodes."""
    site = settled.site()
    settled.reset()
    settled.change_network(**NETWORK)
    if settled.site() != site:
        settled.apply("--yes")
    wait.until("the routes", lambda: is_whole(settled, flannel), timeout=60)
    return settled


def announced(flannel: Flannel, node: str) -> dict[str, str]:
    """What flanneld has written on its Node."""
    with flannel.control.api() as api:
        metadata = api.get(f"/api/v1/nodes/{node}").raise_for_status().json()["metadata"]
    return dict(metadata["annotations"])


def mac(flannel: Flannel, node: str) -> str:
    data = json.loads(announced(flannel, node)["flannel.alpha.coreos.com/backend-data"])
    return str(data["VtepMAC"])


def seen(world: World) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """In the VM: routes by destination, neighbours, and forwarding entries."""
    try:
        shown = world.guest(
            "ip -j -4 route show proto 251; ip -j -4 neigh show dev vmproxy.1; "
            "bridge -j fdb show dev vmproxy.1; true"
        )
    except AssertionError:  # its link is down
        return {}, {}, {}
    routes, near, far = (json.loads(line) for line in [*shown.splitlines(), "[]", "[]", "[]"][:3])
    return (
        {item["dst"]: item["gateway"] for item in routes},
        {item["dst"]: item.get("lladdr", "") for item in near},
        {item["mac"]: item["dst"] for item in far if "dst" in item},
    )


def wanted(flannel: Flannel, *nodes: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    hops = {node: POD_CIDRS[node].partition("/")[0] for node in nodes}
    macs = {node: mac(flannel, node) for node in nodes}
    return (
        {POD_CIDRS[node]: hops[node] for node in nodes},
        {hops[node]: macs[node] for node in nodes},
        {macs[node]: FLANNEL_NODES[node] for node in nodes},
    )


def is_whole(world: World, flannel: Flannel) -> bool | str:
    found = seen(world)
    return found == wanted(flannel, NEAR, FAR) or str(found)


def device(world: World) -> dict[str, Any]:
    """Nothing, where there is none."""
    shown = world.guest("ip -d -j link show vmproxy.1 || true")
    return dict(json.loads(shown)[0]["linkinfo"]["info_data"]) if shown.strip() else {}


def status(world: World) -> dict[str, Any]:
    (found,) = world.vmproxy("status", "-o", "json").json["hosts"]
    return dict(found)


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
    return str(json.loads(world.guest("cat /run/vmproxy/podroutes.json"))["api"])


def annotate(flannel: Flannel, node: str, **notes: str | None) -> None:
    found = {f"flannel.alpha.coreos.com/{name.replace('_', '-')}": value for name, value in notes.items()}
    with flannel.control.api() as api:
        patch = {"metadata": {"annotations": found}}
        kind = {"Content-Type": "application/merge-patch+json"}
        api.patch(f"/api/v1/nodes/{node}", json=patch, headers=kind).raise_for_status()


def test_pods_answer_over_vxlan_and_see_the_vms_own_address(kept: World, flannel: Flannel) -> None:
    own = VM_ADDRESS.partition("/")[0]
    assert [kept.curl(service, "/clientip") for service in SERVICES] == [own, own]
    assert [kept.curl(service) for service in SERVICES] == list(FLANNEL_PODS)
    found = device(kept)
    assert (found["id"], found["port"], found["local"]) == (VNI, PORT, own)
    assert kept.drift() == []
    ran = kept.vmproxy("verify", "-o", "json")
    assert ran.code == 0, ran.out
    tried = {check["service"] for check in ran.json["hosts"][0]["checks"]}
    assert {f"demo/{service}:80" for service in SERVICES} <= tried
    shown = status(kept)
    assert shown["podRoutes"]["state"] == "current"
    assert (shown["podRoutes"]["mode"], shown["podRoutes"]["routes"]) == ("flannel", 2)
    assert shown["warnings"] == []
    assert kept.vmproxy("plan", "-o", "json").json["hosts"][0]["warnings"] == []
    # A pod's adapter in the lab takes 1500 bytes, and VXLAN leaves 1450 to what is sent to it.
    url = f"http://{kept.cluster_ip(FAR_SERVICE)}"
    curl = ("curl", "-sSm", "30")
    assert len(kept.in_namespace("host", *curl, f"{url}/bytes/1000000")) == 1_000_000
    sent = kept.in_namespace("host", *curl, "-H", f"X-Filling: {'x' * 60_000}", f"{url}/hostname")
    assert sent.strip() == "pod-5"


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
        assert kept.in_namespace("host", "curl", "-sSm", "30", url).strip() == "pod-5"
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
    assert "mtu 1450" in kept.guest("ip link show vmproxy.1")
    wait.until("the unit to run again", lambda: (found := kept.drift()) == [] or str(found), timeout=60)


def answers(world: World) -> bool | str:
    try:
        return world.curl(FAR_SERVICE) == "pod-5"
    except Exception as exc:  # curl's own words are of no use
        return str(exc)


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
        assert answers(kept) is not True
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


def test_only_flannel_may_read_nodes_and_another_setting_takes_all_away(
    kept: World, flannel: Flannel
) -> None:
    assert ask(kept, "GET", "/api/v1/nodes") == 200
    assert ask(kept, "GET", "/api/v1/nodes?watch=1&timeoutSeconds=1") == 200
    for path in (f"/api/v1/nodes/{FAR}", "/api/v1/secrets", "/api/v1/pods"):
        assert ask(kept, "GET", path) == 403
    kept.change_network(podRoutes="endpoints")
    kept.apply()
    assert kept.drift() == []
    assert ask(kept, "GET", "/api/v1/nodes") == 403
    assert device(kept) == {}
    advice = f"{FAR_POD} is on {FAR}, which is not on the VM's network: use podRoutes: flannel"
    assert advice in kept.vmproxy("plan", "-o", "json").json["hosts"][0]["warnings"]
    kept.change_network(podRoutes="flannel")
    assert {RULES, CONFIG} == set(kept.drift())
    kept.apply()
    assert kept.drift() == []
    wait.until("the routes", lambda: is_whole(kept, flannel), timeout=30)
    kept.change_network(podRoutes="none")
    kept.apply()
    assert kept.drift() == []
    assert (device(kept), seen(kept)) == ({}, ({}, {}, {}))
    assert ask(kept, "GET", "/api/v1/nodes") == 403
    kept.change_network(podRoutes="flannel")
    kept.apply()
    assert kept.drift() == []
    assert kept.curl(FAR_SERVICE) == "pod-5"


def test_a_vm_that_was_switched_off_sends_again_without_apply(kept: World, flannel: Flannel) -> None:
    kept.guest("systemd-run -q sh -c 'sleep 1; systemctl reboot'")

    def gone() -> bool | str:
        return seen(kept) == ({}, {}, {}) or "still there"

    wait.until("the VM to go", gone, timeout=60)
    wait.until("the routes", lambda: is_whole(kept, flannel), timeout=120)
    wait.until("the pod", lambda: answers(kept), timeout=120)


def test_destroy_leaves_nothing_and_apply_makes_it_again(kept: World, flannel: Flannel) -> None:
    assert kept.vmproxy("destroy", "--yes").code == 0
    assert not kept.has_vm()
    with kept.api() as api:
        role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/vmproxy-it-win-01"
        assert api.get(role).status_code == 404
    kept.apply()
    assert is_whole(kept, flannel) is True
    assert kept.curl(FAR_SERVICE) == "pod-5"
