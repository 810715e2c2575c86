"""What the guest is told of Nodes, which setting a cluster needs, and what the guest says of its routes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Literal, cast

import pytest

from tests.memory import Product, made, topology
from tests.unit.resources.test_guest import CLUSTER, NOW, good, wanted
from tests.values import node
from vmproxy.model import names
from vmproxy.model.seen import (
    ClusterSeen,
    EndpointSeen,
    LeftOut,
    NodeSeen,
    PodRoutesSeen,
    ServiceSeen,
    Unobservable,
)
from vmproxy.model.topology import Vm
from vmproxy.operations.status import PodRoutesStatus
from vmproxy.resources import guest, identity, podroutes

NODES = (
    node("node-02", "192.168.10.21", "10.244.2.0/24"),
    node("node-01", "192.168.10.20", "10.244.1.0/24"),
    node("far", "172.16.0.9", "10.244.7.0/24"),
    node("bare", "192.168.10.30"),
)
SEEN = replace(CLUSTER, nodes=NODES)
KEPT = PodRoutesSeen("endpoints", listed=True, routes=4, failed=0, api="", since=NOW - 100)


def vm(mode: str, **network: object) -> Vm:
    own = {"address": "192.168.10.5/24", "gateway": "192.168.10.1", "podRoutes": mode, **network}
    return topology(network=own).members[0].vm


def config(mode: str, nodes: Sequence[NodeSeen] = NODES, **network: object) -> dict[str, Any]:
    cluster = replace(SEEN, nodes=tuple(nodes))
    content = podroutes.files(vm(mode, **network), cluster)[names.POD_ROUTES_CONFIG].content
    return cast(dict[str, Any], json.loads(content or b""))


def unit(mode: str) -> str:
    files = podroutes.files(vm(mode), SEEN)
    return (files[f"{names.UNITS}/{names.ROUTES_UNIT}"].content or b"").decode()


def services(**endpoints: str) -> list[ServiceSeen]:
    """By Node with "_" for "-", its endpoint's address."""
    return [
        ServiceSeen(
            f"demo/{name}",
            ip_address("10.96.3.3"),
            ((80, "tcp"),),
            (EndpointSeen(ip_address(address), True, {(80, "tcp"): 8080}, name.replace("_", "-")),),
        )
        for name, address in endpoints.items()
    ]


def findings(mode: str, listed: Sequence[ServiceSeen], **network: object) -> list[str]:
    found = podroutes.findings(vm(mode, **network), SEEN, listed, ())
    assert not any(item.ok for item in found)
    return [f"{item.detail}: {item.next_step}" for item in found]


def test_the_guest_knows_each_nodes_address_on_its_network_and_those_without_one() -> None:
    told = config("endpoints", dns=["10.9.9.9"], routes=[{"to": "10.9.0.0/24", "via": "192.168.10.9"}])
    assert told["nodes"] == {
        "bare": "192.168.10.30",
        "far": "",
        "node-01": "192.168.10.20",
        "node-02": "192.168.10.21",
    }
    assert "172.16.0.9" in told["own"]
    assert told["aside"] == ["192.168.10.0/24", "10.9.0.0/24"]
    assert {"10.96.0.0/16", "10.9.9.9/32", "127.0.0.0/8"} <= set(told["refused"])
    assert (told["server"], told["ca"]) == (CLUSTER.server, names.CA)


def test_the_order_in_which_nodes_are_listed_is_no_drift() -> None:
    assert config("endpoints") == config("endpoints", nodes=NODES[::-1])
    assert json.dumps(config("endpoints")) == json.dumps(config("endpoints", nodes=NODES[::-1]))


@pytest.mark.parametrize("mode", ["none", "nodes"])
def test_with_nothing_to_keep_the_unit_ends_after_it_has_removed_what_was_kept(mode: str) -> None:
    assert config(mode) == {"mode": "none"}
    assert "Type=oneshot" in unit(mode)
    assert "RemainAfterExit=yes" in unit(mode)


def test_a_unit_that_keeps_routes_never_counts_as_active_without_its_process() -> None:
    assert "RemainAfterExit" not in unit("endpoints")
    assert "Restart=always" in unit("endpoints")
    assert "CapabilityBoundingSet=CAP_NET_ADMIN\n" in unit("endpoints")


def test_pods_outside_their_nodes_pod_cidr_are_shown_by_one_endpoint() -> None:
    listed = services(node_02="172.16.192.7", node_01="10.244.1.10")
    assert findings("nodes", listed) == [
        "172.16.192.7 is on node-02, whose podCIDR 10.244.2.0/24 does not hold it: use podRoutes: endpoints"
    ]
    assert findings("nodes", services(bare="172.16.192.8")) == [
        "172.16.192.8 is on bare, which has no podCIDR: use podRoutes: endpoints"
    ]
    assert findings("endpoints", listed) == []
    assert findings("none", listed) == []


def test_pods_on_a_node_in_another_network_are_shown_by_one_endpoint() -> None:
    for mode in ("nodes", "endpoints"):
        assert findings(mode, services(far="10.244.7.3")) == [
            "10.244.7.3 is on far, which is not on the VM's network: set network.routes"
        ]
    routed = [{"to": "10.244.7.0/24", "via": "192.168.10.9"}]
    assert findings("endpoints", services(far="10.244.7.3"), routes=routed) == []


@pytest.mark.parametrize("address", ["192.168.10.77", "192.168.10.21", "fd00::7"])
def test_nodes_themselves_neighbours_and_other_families_follow_no_pod_cidr(address: str) -> None:
    assert findings("nodes", services(node_02=address)) == []


FLANNEL = replace(
    SEEN,
    nodes=(
        replace(NODES[2], flannel="vxlan", system="Rocky Linux 9.4"),
        replace(NODES[0], flannel="vxlan", system="Debian GNU/Linux 12"),
        NODES[1],
        replace(node("node-03", "192.168.10.22", "10.244.3.0/24"), flannel="host-gw"),
        replace(node("remote", "172.16.0.10", "10.244.8.0/24"), flannel="wireguard"),
    ),
)


def over(mode: str, cluster: ClusterSeen = FLANNEL, **endpoints: str) -> list[str]:
    """What is found there."""
    listed = podroutes.findings(vm(mode), cluster, services(**endpoints), ())
    return [f"{item.detail}: {item.next_step}" for item in listed]


def test_a_peer_of_flannels_in_another_network_needs_its_vxlan() -> None:
    distant = "10.244.7.3 is on far, which is not on the VM's network: use podRoutes: flannel"
    assert over("nodes", far="10.244.7.3") == over("endpoints", far="10.244.7.3") == [distant]
    assert over("none", far="10.244.7.3") == []
    assert over("flannel", far="10.244.7.3", node_02="10.244.2.9") == []


def test_flannels_other_back_ends_are_named_with_what_helps() -> None:
    host_gw = "10.244.3.9 is on node-03, whose flannel has the back-end host-gw"
    assert over("flannel", node_03="10.244.3.9") == [f"{host_gw}: set network.routes"]
    others = replace(FLANNEL, nodes=tuple(item for item in FLANNEL.nodes if item.flannel != "vxlan"))
    assert over("flannel", others, node_03="10.244.3.9") == [f"{host_gw}: use podRoutes: nodes"]
    assert over("flannel", others, remote="10.244.8.9") == [
        "10.244.8.9 is on remote, whose flannel has the back-end wireguard: set network.routes"
    ]


def test_pods_that_flannel_does_not_serve_are_named_with_what_helps() -> None:
    assert over("flannel", node_01="10.244.1.9", far="172.16.192.9") == [
        "172.16.192.9 is on far, whose podCIDR 10.244.7.0/24 does not hold it: set network.routes",
        "10.244.1.9 is on node-01, which has no flannel: set network.routes",
    ]
    assert over("flannel", SEEN, node_02="172.16.192.7", node_01="10.244.1.9") == [
        "172.16.192.7 is on node-02, whose podCIDR 10.244.2.0/24 does not hold it: use podRoutes: endpoints",
        "10.244.1.9 is on node-01, which has no flannel: use podRoutes: nodes",
    ]


def test_what_flannels_peers_need_is_told_to_the_guest() -> None:
    def told(port: int | None) -> dict[str, Any]:
        own = vm("flannel", routes=[{"to": "10.9.0.0/24", "via": "192.168.10.9"}])
        content = podroutes.files(own, replace(FLANNEL, flannel_port=port))[names.POD_ROUTES_CONFIG].content
        return cast(dict[str, Any], json.loads(content or b""))

    seen = told(4789)
    assert (seen["mode"], seen["local"], seen["node"]) == ("flannel", "192.168.10.5", "win-01")
    assert seen["aside"] == ["10.9.0.0/24"]
    assert {"192.168.10.0/24", "10.96.0.0/16"} <= set(seen["refused"])
    assert "nodes" not in seen
    assert (seen["port"], told(None)["port"]) == (4789, 8472)


def test_doctor_says_which_port_is_used_and_whether_that_was_found() -> None:
    (found,) = podroutes.notes(vm("flannel"), replace(SEEN, flannel_port=4789))
    assert found == "the VM sends to UDP port 4789"
    (assumed,) = podroutes.notes(vm("flannel"), SEEN)
    assert assumed.startswith("the VM sends to UDP port 8472, as no ConfigMap of flannel's names one")
    assert list(podroutes.notes(vm("nodes"), FLANNEL)) == []


def test_doctor_names_nodes_whose_system_drops_what_comes_over_vxlan() -> None:
    _, note = podroutes.notes(vm("flannel"), FLANNEL)
    assert note.startswith("Node far (Rocky Linux 9.4): net.ipv4.conf.*.rp_filter must be 2 or 0 there")
    two = replace(FLANNEL, nodes=tuple(replace(item, system="Red Hat 9") for item in FLANNEL.nodes))
    _, note = podroutes.notes(vm("flannel"), two)
    assert note.startswith("2 Nodes, such as far (Red Hat 9):")


@pytest.mark.parametrize(("mode", "verbs"), [("endpoints", []), ("flannel", [["list", "watch"]])])
def test_only_flannel_lets_the_vm_read_other_nodes(mode: str, verbs: list[list[str]]) -> None:
    (role,) = (item for item in identity.wanted(vm(mode)).values() if item["kind"] == "ClusterRole")
    nodes = [rule for rule in role["rules"] if rule["resources"] == ["nodes"]]
    assert [rule["verbs"] for rule in nodes if "resourceNames" not in rule] == verbs


def test_an_endpoint_whose_node_is_not_in_the_cluster_proves_nothing() -> None:
    assert findings("nodes", services(gone="172.16.192.7")) == []


def trouble(state: PodRoutesSeen | None) -> list[str]:
    return list(podroutes.trouble(replace(good(wanted()), pod_routes=state)))


def test_a_keeper_of_routes_that_is_well_says_nothing() -> None:
    assert trouble(KEPT) == trouble(None) == trouble(replace(KEPT, mode="none", api="x")) == []
    assert trouble(replace(KEPT, api="Connection refused", since=NOW - 5)) == []


def test_what_is_late_missing_or_left_out_is_told() -> None:
    left = (
        LeftOut("unknown", "node-09", ip_address("172.16.1.1"), 3),
        LeftOut("elsewhere", "far", ip_address("172.16.1.2"), 1),
    )
    assert trouble(replace(KEPT, api="403 Forbidden", failed=2, left=left, more=4)) == [
        "the VM's routes to pods are not kept up to date for 100 s: 403 Forbidden",
        "2 routes to pods are not set: see journalctl -u vmproxy-routes.service in the VM",
        "no route to 172.16.1.1 and 2 more endpoints on Node node-09: "
        "the VM does not know that Node's address: run vmproxy apply",
        "no route to 172.16.1.2 on Node far: that Node is not on the VM's network: set network.routes",
        "no route to pods on 4 more Nodes",
    ]


def test_a_node_that_is_left_out_as_a_whole_is_told() -> None:
    whys: tuple[Literal["foreign", "apart", "taken"], ...] = ("foreign", "apart", "taken")
    left = tuple(LeftOut(why, "node-09", ip_address("10.244.9.0"), 0) for why in whys)
    assert trouble(replace(KEPT, mode="flannel", left=left)) == [
        "no route to the pods of Node node-09: that Node's annotations name no VXLAN of flannel's: "
        "set network.routes",
        "no route to the pods of Node node-09: that Node's VXLAN has another VNI than most Nodes': "
        "set network.routes",
        "no route to the pods of Node node-09: another Node has the same podCIDR, or VtepMAC in flannel's "
        "annotations: correct one of them",
    ]


def test_plan_and_status_show_it() -> None:
    seen = replace(good(wanted()), pod_routes=replace(KEPT, failed=2))
    assert any("2 routes to pods are not set" in text for text in guest.warnings(wanted(), seen))
    assert any("2 routes to pods are not set" in text for text in guest.trouble(seen))


def network(mode: str) -> dict[str, object]:
    return {"address": "192.168.10.5/24", "gateway": "192.168.10.1", "podRoutes": mode}


def test_status_shows_the_routes_that_are_kept_and_plan_needs_nothing_more() -> None:
    world = made(network=network("endpoints"))
    product = Product(world, topology(network=network("endpoints")))
    assert product.plan().in_sync
    assert product.status().pod_routes == PodRoutesStatus("current", "endpoints", 0, 0.0)
    assert Product(world).status().pod_routes is None


def test_a_change_of_the_setting_is_made_live_and_back() -> None:
    world = made(network=network("nodes"))
    for mode in ("endpoints", "flannel", "none"):
        product = Product(world, topology(network=network(mode)))
        assert any(names.POD_ROUTES_CONFIG in step.target for step in product.plan().steps)
        assert not any(step.cold for step in product.plan().steps)
        assert product.apply(yes=False).error is None
        assert product.plan().in_sync
        (vm,) = world.vms.values()
        assert vm.guest.pod_routes
        assert vm.guest.pod_routes.mode == mode


def test_a_vm_that_keeps_none_yet_is_no_vm_with_no_routes() -> None:
    product = Product(made(network=network("nodes")), topology(network=network("endpoints")))
    assert isinstance(product.status().pod_routes, Unobservable)
