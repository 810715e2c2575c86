"""The way of a host's containers to the VM, in memory: set, repaired, and taken back."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.memory import VM, Product, topology
from tests.unit.engine.test_run import is_good, killed_everywhere, quiet, shown
from vmproxy.errors import Conflict, NotReady
from vmproxy.hosts.memory import MemoryCluster, MemoryWorld
from vmproxy.model.net import Interface, Network
from vmproxy.model.seen import ContainersSeen, HnsEndpoint, HnsNetwork, InterfaceSeen, NodeSeen
from vmproxy.operations.verify import verify_host

SUBNET = ip_network("10.244.9.0/24")
SERVICES = ip_network("10.96.0.0/16")
LAN, INNER = "vEthernet (LAN)", "vEthernet (cbr0_ep)"
FOLDER = r"C:\cni"
PATH = FOLDER + r"\10-vmproxy-a-win-01.conflist"
WRITTEN = {"cni": {"write": True, "directory": FOLDER}}
ATTACHED = {"network": "cbr0", "subnet": str(SUBNET)}


def endpoint(*encapsulated: Network, exceptions: tuple[Network, ...] | None = (SERVICES,)) -> HnsEndpoint:
    return HnsEndpoint("web-1", ip_address("10.244.9.10"), ip_address("10.244.9.2"), encapsulated, exceptions)


def seen(*forwarding: str, endpoints: tuple[HnsEndpoint, ...] = ()) -> ContainersSeen:
    at = {LAN: "192.168.10.2", INNER: "10.244.9.2"}
    return ContainersSeen(
        (HnsNetwork("nat", "nat", ()), HnsNetwork("cbr0", "l2bridge", (SUBNET,))),
        endpoints,
        tuple(
            InterfaceSeen(alias, (ip_address(address),), alias in forwarding) for alias, address in at.items()
        ),
    )


def product(containers: ContainersSeen, **attached: object) -> Product:
    cluster = MemoryCluster(nodes=(NodeSeen("win-01", (), ()),))
    address = ip_interface("192.168.10.2/24")
    world = MemoryWorld(cluster, addresses=(address,), containers=containers)
    return Product(world, topology(containers={**ATTACHED, **attached}))


def forwarding(world: MemoryWorld) -> dict[str, bool]:
    return {item.alias: item.forwards for item in world.containers.interfaces}


def test_a_host_forwards_between_its_interfaces_when_all_else_is_done() -> None:
    run = product(seen())
    result = run.apply()
    assert result.error is None
    assert [item for item in shown(result.done) if "forwarding on" in item[1]] == [
        ("set", f"forwarding on {LAN}"),
        ("set", f"forwarding on {INNER}"),
    ]
    assert forwarding(run.world) == {LAN: True, INNER: True}
    assert run.plan().in_sync


def test_the_vm_knows_the_way_to_the_containers_and_serves_them() -> None:
    run = product(seen())
    run.apply()
    guest = run.world.vms[VM].guest
    assert (
        f'"prefix": "{SUBNET}",\n    "via": "192.168.10.2"'
        in guest.content["/etc/vmproxy/routes.json"].decode()
    )
    assert "192.168.10.2/32" in guest.content["/etc/vmproxy/guard.nft"].decode()
    assert str(SUBNET) in guest.content["/etc/vmproxy/guard.nft"].decode()


@pytest.mark.parametrize("alias", [LAN, INNER])
def test_forwarding_that_was_switched_off_is_exactly_that_drift_and_is_repaired(alias: str) -> None:
    run = product(seen())
    run.apply()
    other = INNER if alias == LAN else LAN
    run.world.containers = seen(other)
    (step,) = run.plan().steps
    assert [(item.field, item.wanted, item.seen) for item in step.drift] == [
        (f"forwarding on {alias}", "Enabled", "Disabled")
    ]
    status = run.status()
    assert not status.converged
    assert status.problems == (f"forwarding on {alias} is off: the containers of cbr0 need it",)
    assert run.apply().error is None
    assert run.plan().in_sync


def test_destroy_turns_forwarding_off_only_where_vmproxy_turned_it_on() -> None:
    run = product(seen(LAN))
    run.apply()
    result = run.destroy()
    assert [item for item in shown(result.done) if "forwarding on" in item[1]] == [
        ("reset", f"forwarding on {INNER}")
    ]
    assert forwarding(run.world) == {LAN: True, INNER: False}


def test_without_containers_in_the_site_file_it_is_turned_off_again() -> None:
    run = product(seen())
    run.apply()
    without = Product(run.world)
    assert [verb for verb, target in shown(without.plan().steps) if "forwarding on" in target] == [
        "reset"
    ] * 2
    assert without.apply().error is None
    assert forwarding(run.world) == {LAN: False, INNER: False}
    assert without.plan().in_sync


def test_a_new_vm_keeps_what_was_turned_on_in_its_marker() -> None:
    run = product(seen())
    run.apply()
    run.world.vms[VM].disk = None
    assert run.apply().error is None
    run.destroy()
    assert forwarding(run.world) == {LAN: False, INNER: False}


@pytest.mark.parametrize("command", ["apply", "destroy"])
@pytest.mark.parametrize("start", ["nothing", "attached", "switched off"])
def test_killed_at_any_moment_the_next_apply_converges_and_destroy_leaves_nothing(
    command: str, start: str
) -> None:
    run = product(seen())
    if start != "nothing":
        run.apply()
    if start == "switched off":
        run.world.containers = seen()
    for left in killed_everywhere(run.world, run, command):
        again = Product(left, run.topology)
        assert again.apply().error is None
        assert again.plan().in_sync
        is_good(left)
        assert all(forwarding(left).values())
        again.destroy()
        assert not any(forwarding(left).values())


@pytest.mark.parametrize(
    ("there", "kind", "message"),
    [
        (replace(seen(), rival="kube-proxy.exe"), Conflict, "kube-proxy.exe runs there"),
        (replace(seen(), networks=None), NotReady, "HNS is not there"),
        (replace(seen(), networks=seen().networks[:1]), NotReady, "there is no HNS network cbr0"),  # type: ignore[index]
        (
            replace(seen(), networks=(HnsNetwork("cbr0", "nat", (SUBNET,)),)),
            Conflict,
            "its type is nat",
        ),
        (
            replace(seen(), networks=(HnsNetwork("cbr0", "l2bridge", (ip_network("10.244.8.0/24"),)),)),
            Conflict,
            "its subnet is 10.244.8.0/24, not 10.244.9.0/24",
        ),
    ],
)
def test_what_cannot_be_attached_is_refused_before_anything_is_made(
    there: ContainersSeen, kind: type[Exception], message: str
) -> None:
    run = product(there)
    result = run.apply()
    assert isinstance(result.error, kind)
    assert message in str(result.error)
    assert result.error.hint
    assert result.done == ()
    assert run.world.vms == {}


@pytest.mark.parametrize(
    ("found", "lack"),
    [
        (endpoint(), "it lacks the policy SDNRoute (ROUTE) with NeedEncap for 10.96.0.0/16"),
        (
            endpoint(ip_network("10.96.0.0/17")),
            "it lacks the policy SDNRoute (ROUTE) with NeedEncap for 10.96",
        ),
        (
            endpoint(SERVICES, exceptions=(ip_network("10.244.0.0/16"),)),
            "10.96.0.0/16 is missing in the exceptions of its policy OutBoundNAT",
        ),
        (endpoint(ip_network("10.0.0.0/8")), None),
        (endpoint(SERVICES, exceptions=None), None),
    ],
)
def test_an_endpoint_that_lacks_a_policy_is_named_with_it(found: HnsEndpoint, lack: str | None) -> None:
    run = product(seen(endpoints=(found,)))
    run.apply()
    plan = run.plan()
    assert plan.in_sync
    if lack is None:
        assert plan.warnings == ()
    else:
        (warning,) = plan.warnings
        assert warning.startswith(f"endpoint web-1 (10.244.9.10) of cbr0: {lack}")


def test_isolation_that_an_endpoint_lacks_is_named() -> None:
    run = product(seen(endpoints=(endpoint(SERVICES),)), isolate=True)
    run.apply()
    (warning,) = run.plan().warnings
    assert "lacks the ACL policies that block 10.244.9.0/24 in both directions" in warning


def test_a_host_without_an_address_in_the_subnet_is_no_gateway_of_it() -> None:
    there = replace(seen(), interfaces=seen().interfaces[:1])
    run = product(there)
    run.apply()
    assert "the host has no address in 10.244.9.0/24" in run.plan().warnings[0]


def test_containers_of_a_transparent_network_need_the_vm_as_their_gateway_and_no_forwarding() -> None:
    subnet = ip_network("192.168.10.0/24")
    there = replace(
        seen(endpoints=(endpoint(),)),
        networks=(HnsNetwork("cbr0", "transparent", (subnet,)),),
    )
    run = product(there, subnet=str(subnet))
    assert run.apply().error is None
    assert not any(forwarding(run.world).values())
    (warning,) = run.plan().warnings
    assert "its gateway is 10.244.9.2, not the VM at 192.168.10.5" in warning


def test_the_cni_configuration_is_written_repaired_and_removed() -> None:
    run = product(seen(), **WRITTEN)
    result = run.apply()
    assert result.error is None
    assert ("write", PATH) in shown(result.done)
    content = run.world.cni[PATH]
    (plugin,) = json.loads(content)["plugins"]
    assert {"Type": "SDNRoute", "Settings": {"DestinationPrefix": "10.96.0.0/16", "NeedEncap": True}} in [
        policy["value"] for policy in plugin["policies"]
    ]
    assert plugin["dns"] == {"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]}
    assert run.plan().in_sync
    run.world.cni[PATH] = content.replace(b"10.96.0.0/16", b"10.97.0.0/16")
    (step,) = run.plan().steps
    assert [item.field for item in step.drift] == [f"{PATH}: sha256"]
    assert run.apply().error is None
    assert run.world.cni[PATH] == content
    run.destroy()
    assert run.world.cni == {}


@pytest.mark.parametrize(
    "later", [{}, {"cni": {"write": False}}, {"cni": {"write": True, "directory": r"D:\\cni"}}]
)
def test_a_configuration_that_is_no_longer_wanted_there_is_removed(later: dict[str, object]) -> None:
    run = product(seen(), **WRITTEN)
    run.apply()
    again = Product(run.world, topology(containers={**ATTACHED, **later}))
    assert again.apply().error is None
    assert PATH not in run.world.cni
    assert again.plan().in_sync
    again.destroy()
    assert run.world.cni == {}


def test_a_file_of_that_name_that_is_not_ours_is_refused_and_left_alone() -> None:
    run = product(seen(), **WRITTEN)
    run.world.cni[PATH] = b'{"name": "cbr0"}'
    result = run.apply()
    assert isinstance(result.error, Conflict)
    assert "what is there is not vmproxy's" in result.error.message
    assert run.world.vms == {}
    assert run.world.cni == {PATH: b'{"name": "cbr0"}'}


BY_VM = {"gateway": "vm"}
INSIDE = ip_interface("10.244.9.2/24")
OUTER = InterfaceSeen(LAN, (ip_address("192.168.10.2"),), forwards=False)
EXPERIMENTAL = "containers.gateway: vm is experimental: it has never been seen on a real Windows host"


def bare(*endpoints: HnsEndpoint) -> ContainersSeen:
    """The host has no endpoint of its own in the network."""
    return replace(seen(endpoints=endpoints), interfaces=(OUTER,))


def attached_to(gateway: str) -> HnsEndpoint:
    return replace(endpoint(exceptions=None), gateway=ip_address(gateway))


def addresses(world: MemoryWorld) -> tuple[Interface, ...]:
    return world.vms[VM].guest.added


def guest_file(world: MemoryWorld, path: str) -> str:
    return world.vms[VM].guest.content[path].decode()


def test_the_vm_is_the_containers_gateway_and_the_host_forwards_nothing() -> None:
    run = product(bare(attached_to("10.244.9.2")), **BY_VM)
    result = run.apply()
    assert result.error is None
    assert addresses(run.world) == (INSIDE,)
    assert not any(forwarding(run.world).values())
    assert not any("forwarding on" in target for _, target in shown(result.done))
    assert str(SUBNET) not in guest_file(run.world, "/etc/vmproxy/routes.json")
    assert f"ip saddr {SUBNET} accept" in guest_file(run.world, "/etc/vmproxy/guard.nft")
    assert run.plan().in_sync
    assert run.status().problems == ()


def test_that_it_is_experimental_is_said_each_time() -> None:
    run = product(bare(), **BY_VM)
    planned, applied, again = run.plan().warnings, run.apply(), run.apply()
    assert again.done == ()
    told = (planned, applied.left.warnings, again.left.warnings, run.plan().warnings, run.status().warnings)
    assert [text.startswith(EXPERIMENTAL) for (text,) in told] == [True] * 5
    assert run.status().converged
    assert not any("experimental" in text for text in product(seen()).plan().warnings)


def test_a_second_address_that_is_gone_is_drift_and_is_repaired() -> None:
    run = product(bare(), **BY_VM)
    run.apply()
    run.world.vms[VM].guest.added = ()
    (step,) = run.plan().steps
    assert [(item.field, item.wanted, item.seen) for item in step.drift] == [
        (f"address {INSIDE}", "present", "absent")
    ]
    status = run.status()
    assert not status.converged
    assert status.problems == (
        "the VM lacks its address 10.244.9.2/24: the containers of cbr0 have no gateway",
    )
    assert run.apply().error is None
    assert addresses(run.world) == (INSIDE,)
    assert run.plan().in_sync


def test_verify_names_where_the_way_by_the_vm_breaks() -> None:
    def tried() -> tuple[str | None, str]:
        member = run.topology.members[0]
        (check,) = verify_host(run.site(), member, quiet, services=(), container="web-1")
        return check.hop, check.detail

    run = product(bare(attached_to("10.244.9.2")), **BY_VM)
    run.apply()
    assert tried()[0] is None
    run.world.vms[VM].guest.added = ()
    assert tried() == ("vm", "the VM lacks its address 10.244.9.2/24: the containers of cbr0 have no gateway")
    run.world.containers = bare(attached_to("10.244.9.1"))
    hop, why = tried()
    assert hop == "container"
    assert "its gateway is 10.244.9.1" in why
    run.world.vms[VM].running = False
    run.world.containers = bare(attached_to("10.244.9.2"))
    assert tried()[0] == "vm"


def test_from_the_host_to_the_vm_and_back_forwarding_and_address_follow() -> None:
    run = product(seen())
    run.apply()
    assert forwarding(run.world) == {LAN: True, INNER: True}
    run.world.containers = replace(run.world.containers, interfaces=(replace(OUTER, forwards=True),))
    by_vm = Product(run.world, topology(containers={**ATTACHED, **BY_VM}))
    assert by_vm.apply().error is None
    assert forwarding(run.world) == {LAN: False}
    assert addresses(run.world) == (INSIDE,)
    assert by_vm.plan().in_sync
    run.world.containers = seen()
    assert run.apply().error is None
    assert forwarding(run.world) == {LAN: True, INNER: True}
    assert addresses(run.world) == ()
    assert '"via": "192.168.10.2"' in guest_file(run.world, "/etc/vmproxy/routes.json")
    assert run.plan().in_sync


def test_without_containers_in_the_site_file_the_second_address_goes() -> None:
    run = product(bare(), **BY_VM)
    run.apply()
    without = Product(run.world)
    assert without.apply().error is None
    assert addresses(run.world) == ()
    assert "masquerade" not in guest_file(run.world, "/etc/vmproxy/guard.nft")
    assert without.plan().in_sync


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (seen(), f"{INNER} has the address 10.244.9.2 that the VM is to have"),
        (
            bare(replace(endpoint(), address=INSIDE.ip)),
            "web-1 has the address 10.244.9.2 that the VM is to have",
        ),
        (
            replace(bare(), networks=(HnsNetwork("cbr0", "transparent", (SUBNET,)),)),
            "its type is transparent",
        ),
    ],
)
def test_where_the_vm_cannot_be_the_gateway_it_is_refused_before_anything_is_made(
    there: ContainersSeen, message: str
) -> None:
    run = product(there, **BY_VM)
    error = run.apply().error
    assert isinstance(error, Conflict)
    assert "cannot make the VM the gateway of cbr0 on win-01" in error.message
    assert message in error.message
    assert error.hint
    assert run.world.vms == {}


def test_an_endpoint_with_another_gateway_is_named_and_no_policy_is_asked_for() -> None:
    there = bare(attached_to("10.244.9.1"), replace(attached_to("10.244.9.2"), name="web-2"))
    run = product(there, **BY_VM)
    run.apply()
    _, warning = run.plan().warnings
    assert warning == (
        "endpoint web-1 (10.244.9.10) of cbr0: its gateway is 10.244.9.1, not the VM at 10.244.9.2"
    )


@pytest.mark.parametrize(("gateway", "named"), [("10.244.9.1", True), ("10.244.9.2", False)])
def test_a_network_with_another_gateway_than_the_vm_is_named(gateway: str, *, named: bool) -> None:
    found = HnsNetwork("cbr0", "l2bridge", (SUBNET,), {SUBNET: ip_address(gateway)})
    run = product(replace(bare(attached_to("10.244.9.2")), networks=(found,)), **BY_VM)
    assert run.apply().error is None
    lack = (
        "the gateway of cbr0 is 10.244.9.1, not the VM at 10.244.9.2: whoever made the network makes it "
        "again with that one"
    )
    assert (lack in run.plan().warnings) is named
    by_host = product(replace(seen(), networks=(found,)))
    by_host.apply()
    assert not any("the gateway of cbr0" in text for text in by_host.plan().warnings)


def test_the_cni_configuration_of_that_gateway_leads_nothing_into_the_host() -> None:
    run = product(bare(), **BY_VM, **WRITTEN)
    assert run.apply().error is None
    (plugin,) = json.loads(run.world.cni[PATH])["plugins"]
    assert plugin["policies"] == []
    assert plugin["ipam"]["ranges"][0][0]["gateway"] == "10.244.9.2"


@pytest.mark.parametrize("command", ["apply", "destroy"])
@pytest.mark.parametrize("start", ["nothing", "attached", "address gone", "by the host"])
def test_killed_at_any_moment_the_next_apply_makes_the_vm_the_gateway(command: str, start: str) -> None:
    run = product(bare(), **BY_VM)
    if start == "by the host":
        product_by_host = Product(run.world, topology(containers=ATTACHED))
        product_by_host.apply()
    elif start != "nothing":
        run.apply()
    if start == "address gone":
        run.world.vms[VM].guest.added = ()
    for left in killed_everywhere(run.world, run, command):
        again = Product(left, run.topology)
        assert again.apply().error is None
        assert again.plan().in_sync
        is_good(left)
        assert addresses(left) == (INSIDE,)
        assert not any(forwarding(left).values())


def test_killed_at_any_moment_on_the_way_back_the_next_apply_makes_the_host_the_gateway() -> None:
    by_vm = product(bare(), **BY_VM)
    by_vm.apply()
    by_vm.world.containers = seen()
    run = Product(by_vm.world, topology(containers=ATTACHED))
    for left in killed_everywhere(by_vm.world, run, "apply"):
        again = Product(left, run.topology)
        assert again.apply().error is None
        assert again.plan().in_sync
        is_good(left)
        assert addresses(left) == ()
        assert forwarding(left) == {LAN: True, INNER: True}


def test_the_address_follows_the_subnet_of_the_containers() -> None:
    run = product(bare(), **BY_VM)
    run.apply()
    other = ip_network("10.244.8.0/23")
    run.world.containers = replace(bare(), networks=(HnsNetwork("cbr0", "l2bridge", (other,)),))
    moved = Product(run.world, topology(containers={**ATTACHED, **BY_VM, "subnet": str(other)}))
    assert moved.apply().error is None
    assert addresses(run.world) == (ip_interface("10.244.8.2/23"),)
    assert str(SUBNET) not in guest_file(run.world, "/etc/vmproxy/guard.nft")
    assert moved.plan().in_sync


@pytest.mark.parametrize("command", ["apply", "destroy"])
@pytest.mark.parametrize("start", ["nothing", "written"])
def test_killed_at_any_moment_the_configuration_is_written_whole_or_gone(command: str, start: str) -> None:
    run = product(seen(), **WRITTEN)
    if start == "written":
        run.apply()
    for left in killed_everywhere(run.world, run, command):
        again = Product(left, run.topology)
        assert again.apply().error is None
        assert again.plan().in_sync
        assert set(left.cni) == {PATH}
        again.destroy()
        assert left.cni == {}
