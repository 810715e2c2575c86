"""podRoutes: flannel: pods of Nodes with the real flanneld, one of them in another network.

test_flannel_guest.py has what is the guest's alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_identity import ask
from tests.integration.world import World
from vmproxy.lab.flannel import POD_CIDRS, PORT, SERVICES, VNI, Flannel
from vmproxy.lab.network import ADDRESSES, FLANNEL_NODES, FLANNEL_PODS, POD_CIDR, VM_ADDRESS
from vmproxy.util import wait

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
        bare.reset()


@pytest.fixture
def kept(flannel: Flannel, bare: World) -> World:
    """In sync, with routes over VXLAN to both Nodes."""
    bare.reset()
    bare.change_network(**NETWORK)
    bare.settle()
    wait.until("the routes", lambda: is_whole(bare, flannel), timeout=60)
    return bare


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
        shown = world.look(
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
    shown = world.look("ip -d -j link show vmproxy.1 || true")
    return dict(json.loads(shown)[0]["linkinfo"]["info_data"]) if shown.strip() else {}


def status(world: World) -> dict[str, Any]:
    (found,) = world.vmproxy("status", "-o", "json").json["hosts"]
    return dict(found)


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
    assert len(kept.look_in("host", *curl, f"{url}/bytes/1000000")) == 1_000_000
    sent = kept.look_in("host", *curl, "-H", f"X-Filling: {'x' * 60_000}", f"{url}/hostname")
    assert sent.strip() == "pod-5"


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


def test_destroy_leaves_nothing_and_apply_makes_it_again(kept: World, flannel: Flannel) -> None:
    assert kept.vmproxy("destroy", "--yes").code == 0
    assert not kept.has_vm()
    with kept.api() as api:
        role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/vmproxy-it-win-01"
        assert api.get(role).status_code == 404
    kept.apply()
    assert is_whole(kept, flannel) is True
    assert kept.curl(FAR_SERVICE) == "pod-5"
