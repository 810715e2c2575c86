"""The whole product in memory, with a VM on a switch of its own: from any state, killed at any moment."""

from __future__ import annotations

import copy
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory import (
    BEHIND,
    CHANGES,
    CONTROLLER,
    FOREIGN,
    LAN,
    NODE,
    SWITCH_CHANGES,
    VM,
    Product,
    behind,
    made_behind,
    topology,
    windows,
)
from tests.unit.engine.test_run import fewer, killed_everywhere, shown, with_foreign
from tests.unit.resources.test_guest import CLUSTER
from tests.values import route
from vmproxy.containers.cni import ContainerNetwork
from vmproxy.errors import Conflict, NotReady, UsageError
from vmproxy.hosts.memory import MemorySwitch, MemoryWorld
from vmproxy.model.drift import ABSENT
from vmproxy.model.net import Interface
from vmproxy.model.seen import (
    ContainersSeen,
    EndpointSeen,
    HnsNetwork,
    InterfaceSeen,
    NodeSeen,
    ServiceSeen,
)
from vmproxy.model.steps import Step
from vmproxy.resources import cni, guestroutes, podroutes

OWN = f"switch {VM}"
PREVIOUS = ("10.96.0.0/16", "10.244.1.0/24")


@st.composite
def worlds(draw: st.DrawFn) -> MemoryWorld:
    every = {**CHANGES, **SWITCH_CHANGES}
    for name in ("route elsewhere", "route twice", "trial route left", "no route"):  # of another VM's address
        del every[name]
    world = made_behind() if draw(st.booleans()) else windows()
    for name in draw(st.lists(st.sampled_from(sorted(every)), max_size=4)):
        every[name](world)
    return world


def is_good(world: MemoryWorld, routes: tuple[object, ...] = BEHIND) -> None:
    vm = world.vms[VM]
    assert vm.running
    assert vm.guest.answers
    assert world.joined(vm)
    assert vm.marker is not None
    assert vm.marker.routes == routes
    assert [item for item in world.routes if item not in FOREIGN] == [*routes] or set(routes) <= set(
        world.routes
    )


def in_the_way(world: MemoryWorld) -> bool:
    """Somebody set another route to the pods, which the marker does not name any more."""
    return any(item.prefix == BEHIND[1].prefix and item != BEHIND[1] for item in world.routes)


def test_from_nothing_one_apply_makes_all_of_it_in_order() -> None:
    world = windows()
    product = Product(world, behind())
    planned = [item for item in shown(product.plan().steps) if "/" not in item[1] or "route" in item[1]]
    assert planned == [
        ("create", OWN),
        ("create", f"vm {VM}"),
        ("start", f"vm {VM}"),
        ("add", "route 10.244.1.0/24"),
        ("add", "route 10.96.0.0/16"),
        ("add", "names .cluster.local and 1 more"),
    ]
    result = product.apply()
    assert (result.error, result.left.in_sync) == (None, True)
    assert world.own is not None
    assert world.own.settings == {
        "address": "172.30.255.1/29",
        "dnsRegistration": "off",
        "metric": 5000,
        "nat": "172.30.255.0/29",
        "mapping": f"tcp 2222 from {CONTROLLER} to 172.30.255.2:22",
    }
    assert product.plan().in_sync
    is_good(world)


@given(worlds())
@fewer
def test_from_any_world_apply_makes_the_next_plan_empty(world: MemoryWorld) -> None:
    product = Product(world, behind())
    result = product.apply()
    if isinstance(result.error, Conflict):
        assert in_the_way(world)
        return
    assert result.error is None
    assert product.plan().in_sync
    is_good(world)


@given(worlds())
@fewer
def test_without_consent_nothing_that_runs_is_interrupted(world: MemoryWorld) -> None:
    product = Product(world, behind())
    world.consent = False
    result = product.apply(yes=False)
    assert result.error is None or in_the_way(world)
    assert not any(step.cold for step in result.done)


@pytest.mark.parametrize("start", ["nothing", "in sync", *sorted(SWITCH_CHANGES)])
@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_killed_at_any_moment_the_next_apply_converges(start: str, command: str) -> None:
    world = with_foreign(windows() if start == "nothing" else made_behind())
    SWITCH_CHANGES.get(start, lambda _world: None)(world)
    for left in killed_everywhere(world, Product(world, behind()), command):
        again = Product(left, behind())
        result = again.apply()
        assert result.error is None, result.error
        assert again.plan().in_sync
        is_good(left)


@given(worlds())
@fewer
def test_destroy_leaves_nothing_of_it(world: MemoryWorld) -> None:
    product = Product(with_foreign(world), behind())
    assert product.destroy().error is None
    assert world.own is None
    assert set(world.vms) == {"other"}
    assert not [item for item in world.routes if item in BEHIND]
    assert product.destroy().done == ()


@pytest.mark.parametrize("what", ["address", "dnsRegistration", "metric", "mapping", "nat"])
def test_each_piece_is_named_alone_and_repaired(what: str) -> None:
    world = made_behind()
    SWITCH_CHANGES[what](world)
    product = Product(world, behind())
    (step,) = product.plan().steps
    assert ((step.verb, step.target), [item.field for item in step.drift]) == (("set", OWN), [what])
    assert any(what in text for text in product.status().problems)
    world.consent = False
    assert [item.verb for item in product.apply(yes=False).done] == ["set"]
    assert product.plan().in_sync


def test_forwarding_is_compared_where_there_is_no_nat() -> None:
    world = made_behind(nat=False)
    assert world.own is not None
    assert (world.own.settings["nat"], world.own.settings["mapping"]) == (ABSENT, ABSENT)
    world.own.settings["forwarding"] = "Disabled"
    (step,) = Product(world, behind(nat=False)).plan().steps
    assert [item.field for item in step.drift] == ["forwarding"]
    assert Product(world, behind(nat=False)).apply().error is None
    assert Product(world, behind(nat=False)).plan().in_sync


def test_a_switch_that_was_removed_is_made_again_and_the_vm_connected() -> None:
    world = made_behind()
    SWITCH_CHANGES["switch gone"](world)
    world.consent = False
    product = Product(world, behind())
    assert [verb for verb, _ in shown(product.plan().steps)] == ["create", "set", "add"]
    assert product.apply(yes=False).error is None
    is_good(world)


def test_a_pod_route_comes_and_goes_with_its_node() -> None:
    world = made_behind()
    other = NodeSeen("node-2", (ip_address("192.168.10.21"),), (ip_network("10.244.2.0/24"),))
    world.cluster.nodes = (other,)
    product = Product(world, behind())
    assert shown(product.plan().steps) == [
        ("add", "route 10.244.2.0/24"),
        ("remove", "route 10.244.1.0/24"),
    ]
    assert product.apply().error is None
    is_good(world, (BEHIND[0], route("10.244.2.0/24", "192.168.10.21")))


def test_another_network_moves_all_with_consent_only() -> None:
    world = made_behind()
    before = copy.deepcopy((world.own, world.routes))
    moved = Product(world, behind("172.30.250.0/29"))
    world.consent = False
    result = moved.apply(yes=False)
    assert (result.error, result.done) == (None, ())
    assert (world.own, world.routes) == before
    world.consent = True
    assert moved.apply().error is None
    is_good(world, (route("10.96.0.0/16", "172.30.250.2"), BEHIND[1]))
    for left in killed_everywhere(made_behind(), Product(world, moved.topology), "apply"):
        assert Product(left, moved.topology).apply().error is None
        assert [str(item.via) for item in left.routes if item.prefix == BEHIND[0].prefix] == ["172.30.250.2"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda world: world.nats.update({"dockernat": "172.16.0.0/24"}), "dockernat: 172.16.0.0/24"),
        (lambda world: setattr(world, "own", MemorySwitch({}, ours=False)), "was not made by vmproxy"),
        (
            lambda world: setattr(world, "addresses", (LAN, ip_interface("172.30.255.6/24"))),
            "own network 172.30.255.0/24",
        ),
        (
            lambda world: world.routes.append(route("172.30.255.0/30", "192.168.10.9")),
            "route to 172.30.255.0/30",
        ),
        (
            lambda world: setattr(world.cluster, "service_cidrs", (ip_network("172.30.0.0/16"),)),
            "Service range 172.30.0.0/16",
        ),
        (
            lambda world: setattr(
                world.cluster, "nodes", (replace(NODE, pod_cidrs=(ip_network("172.30.128.0/17"),)),)
            ),
            "pod range 172.30.128.0/17",
        ),
        (lambda world: setattr(world, "entrance", None), "cannot get to a VM behind the NAT"),
        (
            lambda world: setattr(
                world.cluster, "nodes", (replace(NODE, pod_cidrs=(ip_network("192.168.0.0/16"),)),)
            ),
            "",
        ),
    ],
)
def test_what_is_in_the_way_is_named_before_anything_is_made(change: object, named: str) -> None:
    world = windows()
    change(world)  # type: ignore[operator]
    before = copy.deepcopy((world.own, world.routes, world.vms, world.cluster.objects))
    result = Product(world, behind()).apply()
    if named:
        assert isinstance(result.error, Conflict)
        assert named in " ".join([result.error.message, *result.error.details])
        assert result.error.hint
        assert (world.own, world.routes, world.vms, world.cluster.objects) == before
    else:  # such a route would take the LAN away: it is left out, and said
        assert result.error is None
        assert any(
            "overlaps a network of the host" in text for text in Product(world, behind()).plan().warnings
        )
        assert BEHIND[1] not in world.routes


def test_a_wider_route_and_another_nat_without_ours_are_in_nobody_s_way() -> None:
    world = windows()
    world.routes.append(route("172.16.0.0/12", "192.168.10.9"))
    world.nats["dockernat"] = "172.16.0.0/24"
    assert Product(world, behind(nat=False)).apply().error is None
    is_good(world)


def test_a_pod_range_with_this_machine_in_it_is_refused() -> None:
    world = windows()
    assert world.entrance is not None
    world.entrance = replace(world.entrance, controller=ip_address("10.244.1.7"))
    error = Product(world, behind()).apply().error
    assert isinstance(error, Conflict)
    assert "this machine's own address" in error.message
    assert world.own is None


def test_a_route_of_the_site_that_the_host_cannot_have_is_refused_before_anything_is_made() -> None:
    world = windows()
    for to, via in (("10.9.0.0/16", "10.20.0.1"), ("192.168.0.0/16", "192.168.10.9")):
        network = {"routes": [{"to": to, "via": via}]}
        error = Product(world, behind(network=network)).apply().error
        assert isinstance(error, UsageError)
        assert f"cannot route {to}" in error.message
        assert world.own is None


def test_a_switch_that_the_site_does_not_want_any_more_is_named_and_destroy_removes_it() -> None:
    world = made_behind()
    elsewhere = Product(world, topology())
    error = elsewhere.apply().error
    assert isinstance(error, Conflict)
    assert "vmproxy destroy" in (error.hint or "")
    assert elsewhere.destroy().error is None
    assert (world.own, world.vms) == (None, {})
    assert elsewhere.apply().error is None


def test_a_foreign_switch_stays_when_all_else_goes() -> None:
    world = made_behind()
    assert world.own is not None
    world.own.ours = False
    assert Product(world, behind()).destroy().error is None
    assert world.own is not None
    assert world.vms == {}


SUBNET = ip_network("10.244.9.0/24")
INNER, ON_SWITCH = "vEthernet (cbr0_ep)", f"vEthernet ({VM})"
BRIDGED = ContainersSeen(
    (HnsNetwork("cbr0", "l2bridge", (SUBNET,)),),
    interfaces=(InterfaceSeen(INNER, (ip_address("10.244.9.2"),), forwards=False),),
)


def with_containers(*, nat: bool = True, seen: ContainersSeen = BRIDGED, **more: Any) -> Product:
    """Of an l2bridge network on the host's network card."""
    world = windows()
    world.containers = seen
    attached = {"network": "cbr0", "subnet": str(SUBNET), **more}
    return Product(world, behind(nat=nat, containers=attached))


def forwarding(steps: tuple[Step, ...]) -> list[tuple[str, str]]:
    return [item for item in shown(steps) if "forwarding on" in item[1]]


def test_containers_of_another_card_get_to_the_vm_by_way_of_the_host() -> None:
    product = with_containers()
    planned = forwarding(product.plan().steps)
    assert planned == [("set", f"forwarding on {INNER}"), ("set", f"forwarding on {ON_SWITCH}")]
    result = product.apply()
    assert (result.error, forwarding(result.done)) == (None, planned)
    assert product.plan().in_sync
    is_good(product.world)
    guest = product.world.vms[VM].guest
    assert str(SUBNET) in guest.content["/etc/vmproxy/guard.nft"].decode()
    assert [str(item.via) for item in guest.routes] == ["172.30.255.1"]


def test_the_way_of_containers_comes_back_with_a_switch_that_was_removed() -> None:
    product = with_containers()
    assert product.apply().error is None
    SWITCH_CHANGES["switch gone"](product.world)
    again = product.plan()
    assert ("set", f"forwarding on {ON_SWITCH}") in shown(again.steps)
    assert product.apply().error is None
    assert product.plan().in_sync


def test_without_nat_the_switch_itself_forwards_for_containers() -> None:
    product = with_containers(nat=False)
    result = product.apply()
    assert (result.error, forwarding(result.done)) == (None, [("set", f"forwarding on {INNER}")])
    without = Product(product.world, behind(nat=False))
    assert forwarding(without.apply().done) == [("reset", f"forwarding on {INNER}")]
    assert without.plan().in_sync


@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_killed_at_any_moment_with_containers_the_next_run_converges(command: str) -> None:
    start = with_containers()
    if command == "destroy":
        assert start.apply().error is None
    for left in killed_everywhere(with_foreign(start.world), start, command):
        again = Product(left, start.topology)
        assert getattr(again, command)().error is None
        assert [item.forwards for item in left.containers.interfaces] == [command == "apply"]
        assert (left.own is None) == (command == "destroy")
        assert command == "destroy" or again.plan().in_sync


def test_a_vm_on_a_switch_of_its_own_is_no_gateway_of_a_transparent_network() -> None:
    product = with_containers(seen=replace(BRIDGED, networks=(HnsNetwork("cbr0", "transparent", (SUBNET,)),)))
    error = product.apply().error
    assert isinstance(error, Conflict)
    assert "cannot be their gateway" in error.message
    assert product.world.own is None


def test_the_cni_configuration_has_the_address_on_the_lan_not_that_on_the_switch() -> None:
    here, on_switch = ip_interface("10.20.0.9/16"), ip_interface("172.30.255.1/29")
    inner = ip_interface("10.244.9.2/24")

    def network(*host: Interface, **more: Any) -> ContainerNetwork:
        vm = with_containers(**more).topology.members[0].vm
        return cni.network(vm, CLUSTER, (on_switch, inner, *host))

    assert (network(LAN).management, network(LAN).lan) == (LAN.ip, LAN.network)
    with pytest.raises(NotReady, match="which of its addresses is on the LAN"):
        network(LAN, here)
    assert network(LAN, here, hostAddress=str(here.ip)).lan == here.network


def test_pods_are_looked_for_on_the_host_s_networks() -> None:
    vm = behind().members[0].vm
    nodes = (
        NODE,
        NodeSeen("far", (ip_address("10.99.0.1"),), (ip_network("10.244.7.0/24"),)),
        NodeSeen("win-01", (LAN.ip,), (SUBNET,)),
    )
    cluster = replace(CLUSTER, nodes=nodes)
    pods = {"node-1": ("10.244.1.7", "172.16.9.9"), "win-01": ("10.244.9.10",), "far": ("10.244.7.7",)}
    listed = [
        ServiceSeen(
            "demo/web",
            ip_address("10.96.3.3"),
            ((80, "tcp"),),
            tuple(
                EndpointSeen(ip_address(pod), ready=True, ports={(80, "tcp"): 8080}, node=name)
                for name, some in pods.items()
                for pod in some
            ),
        )
    ]
    assert [(item.detail, item.next_step) for item in podroutes.findings(vm, cluster, listed, (LAN,))] == [
        ("172.16.9.9 is on node-1, whose podCIDR 10.244.1.0/24 does not hold it", "set network.routes"),
        ("10.244.7.7 is on far, which is not on a network of the host", "set network.routes"),
    ]
    assert list(guestroutes.warnings(vm, cluster, (LAN,))) == [
        "no route to the pods of Node far: its address is not on a network of the host"
    ]
    assert guestroutes.on_host(vm, cluster, (LAN,)) == (BEHIND[1],)
