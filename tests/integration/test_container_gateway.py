"""The VM as the gateway of the containers' subnet: the host forwards nothing. Real packets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.integration.test_containers import SERVICES, SUBNET, Site, finds
from tests.integration.test_failures import says
from tests.integration.world import World
from tests.winhost.hns import Container, Hns
from tests.winhost.tests.lan import serving
from vmproxy.lab.objects import service_with_slice
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("hyperv",)
VM, INSIDE, FIRST, SECOND = "192.168.100.5", "10.244.9.2", "10.244.9.10", "10.244.9.11"
ATTACHED = {"network": "cbr0", "subnet": SUBNET, "gateway": "vm"}
EXPERIMENTAL = "it has never been seen on a real Windows host"


def container(hns: Hns, network: str, name: str, address: str, gateway: str = INSIDE) -> Container:
    """As a runtime makes it with the rendered configuration: no policy is asked for."""
    endpoint = {
        "Name": f"{name}_cbr0",
        "HostComputeNetwork": network,
        "IpConfigurations": [{"IpAddress": address, "PrefixLength": 24}],
        "Routes": [{"NextHop": gateway, "DestinationPrefix": "0.0.0.0/0"}],
        "Policies": [],
        "SchemaVersion": {"Major": 2, "Minor": 0},
    }
    return hns.start_container(name, hns.create_endpoint(endpoint))


def network(hns: Hns, gateway: str = INSIDE) -> str:
    subnet = {"AddressPrefix": SUBNET, "GatewayAddress": gateway}
    return hns.create_network({"Name": "cbr0", "Type": "L2Bridge", "Subnets": [subnet]})


def remove_network(hns: Hns) -> None:
    for there in hns.call("GET", "/networks"):
        if there["Name"] == "cbr0":
            hns.remove_network(there["ID"])


@pytest.fixture
def site(bare: World) -> Iterator[Site]:
    """An l2bridge network with two containers whose gateway is the VM; the host has no endpoint.

    What apply made stays for the next test, which has a network and containers of its own.
    """
    assert isinstance(bare, HypervWorld)
    world, hns = bare, bare.windows.hns
    made = network(hns)
    try:
        one, two = (container(hns, made, *item) for item in (("one", FIRST), ("two", SECOND)))
        world.reset()
        world.settle(containers=ATTACHED)
        yield Site(world, hns, made, one, two)
    finally:
        remove_network(hns)
        world.reset()
        world.clean = False


@contextmanager
def knowing(world: World, *roles: str) -> Iterator[None]:
    """Machines of the LAN with a route to the containers by way of the VM."""
    for role in roles:
        world.in_namespace(role, "ip", "route", "replace", SUBNET, "via", VM)
    try:
        yield
    finally:
        for role in roles:
            world.in_namespace(role, "ip", "route", "del", SUBNET)


def fetched(world: World, role: str, url: str) -> str | None:
    """What answers a machine of the lab there; None: nothing."""
    try:
        return world.look_in(role, "curl", "-sS", "-m", "3", f"http://{url}").strip()
    except subprocess.CalledProcessError:
        return None


def forwards(world: HypervWorld) -> set[str]:
    """Of all interfaces of the host."""
    every = "cat /proc/sys/net/ipv4/conf/*/forwarding"
    return set(world.look_in("host", "sh", "-c", every).split())


def forward_nothing(world: HypervWorld) -> None:
    """Whatever tests before this one have left: all interfaces follow this one setting."""
    world.in_namespace("host", "sysctl", "-qw", "net.ipv4.ip_forward=0")
    assert forwards(world) == {"0"}


def held(world: World) -> list[str]:
    """The addresses of the VM's interface, with the label of each."""
    (link,) = [item for item in json.loads(world.look("ip -j -4 address show dev eth0")) if item]
    return [f"{item['local']}/{item['prefixlen']} {item['label']}" for item in link["addr_info"]]


def answered(site: Site) -> None:
    """A container that asked before may still wait for the gateway's MAC address."""
    wait.until("a Service", lambda: site.ask("web") == VM or "no answer", timeout=60)


def hosts(ran: Any) -> dict[str, Any]:
    (host,) = ran.json["hosts"]
    return dict(host)


def test_a_container_reaches_services_by_the_vm_while_the_host_forwards_nothing(site: Site) -> None:
    world = site.world
    assert world.drift() == []
    forward_nothing(world)
    assert world.drift() == [], "it needs no forwarding"
    assert site.ask("web", path="/hostname") in {"web-1", "web-2"}
    assert site.ask("web", site.two) == VM, "the endpoint sees the VM"
    assert world.curl("web") in {"web-1", "web-2"}
    assert held(world) == [f"{VM}/24 eth0", f"{INSIDE}/24 eth0:vmproxy"]
    ran = world.vmproxy("verify", "--container", "two", "-o", "json")
    assert ran.code == 0, ran.err
    assert all(check["ok"] is True for check in hosts(ran)["checks"])


def test_the_three_checks_of_the_page_of_containers_pass_here(site: Site) -> None:
    world = site.world
    to_vm = site.hns.run(site.one, "curl", "-v", "--max-time", "5", f"http://{INSIDE}:22/").stderr
    assert f"Connected to {INSIDE}" in to_vm
    with serving(site.one.namespace, 80):
        world.guest(f"timeout 5 bash -c '</dev/tcp/{FIRST}/80'")
    assert hardware(world.look(f"ip -j neigh show {FIRST}")) == hardware(
        world.look("ip -j neigh show 192.168.100.10")
    ), "the host's MAC address"
    seen = site.hns.run(site.one, "ip", "-j", "neigh", "show", INSIDE).stdout
    assert hardware(seen) == json.loads(world.look("ip -j link show dev eth0"))[0]["address"]


def hardware(shown: str) -> str:
    (neighbour,) = json.loads(shown)
    return str(neighbour["lladdr"])


def test_that_it_is_experimental_is_said_by_every_command_and_is_no_problem(site: Site) -> None:
    world = site.world
    assert any(EXPERIMENTAL in text for text in planned(site))
    status = hosts(world.vmproxy("status", "-o", "json"))
    assert any(EXPERIMENTAL in text for text in status["warnings"])
    assert status["converged"] is True
    assert EXPERIMENTAL in world.vmproxy("status").out
    applied = world.apply()
    assert EXPERIMENTAL in applied.out + applied.err
    doctor = world.vmproxy("doctor", "-o", "json")
    assert EXPERIMENTAL in doctor.out
    assert "eth0 of the VM has" not in doctor.out + world.vmproxy("plan").out


def test_the_lan_reaches_containers_by_the_vm_and_is_seen_with_its_own_address(site: Site) -> None:
    world = site.world
    with serving(site.one.namespace, 8080):
        assert fetched(world, "client", f"{FIRST}:8080/") is None, "it has no route yet"
        with knowing(world, "client", "node"):
            assert fetched(world, "client", f"{FIRST}:8080/") == "192.168.100.40"
            assert fetched(world, "node", f"{FIRST}:8080/") == "192.168.100.20", "a Linux node"
            assert site.get(site.one, "10.244.1.10:8080") == FIRST, "a pod of that node sees the container"
        world.in_namespace("client", "ip", "route", "replace", "10.244.1.0/24", "via", VM)
        try:
            assert fetched(world, "client", "10.244.1.10:8080/clientip") is None, "it is no open router"
        finally:
            world.in_namespace("client", "ip", "route", "del", "10.244.1.0/24")


def test_what_does_not_know_the_subnet_sees_the_vm(site: Site) -> None:
    """pod-3's address is in no range of the site: nobody there has a way back to a container."""
    world = site.world
    world.change_network(routes=[{"to": "172.16.192.0/24", "via": "192.168.100.21"}])
    world.apply()
    assert site.get(site.one, "172.16.192.7:8080") == VM


@pytest.mark.parametrize("other_half", ["of the LAN", "of the container"])
def test_half_of_a_connection_passes_also_where_a_kube_proxy_drops_what_is_invalid(
    site: Site, other_half: str
) -> None:
    """As kube-proxy before 1.29 does; the VM sees only what goes the other way."""
    world = site.world
    strict = (
        "table ip strict { chain forward { type filter hook forward priority 0; ct state invalid drop; }; }"
    )
    world.guest("nft -f -", stdin=strict)
    try:
        if other_half == "of the LAN":
            world.in_namespace("web-1", "ip", "route", "replace", SUBNET, "dev", "eth0")
            assert site.get(site.one, "192.168.100.31:8080") == FIRST
        else:
            site.hns.run(site.one, "ip", "route", "add", "192.168.100.40/32", "dev", "eth0")
            with serving(site.one.namespace, 8080), knowing(world, "client"):
                assert fetched(world, "client", f"{FIRST}:8080/") == "192.168.100.40"
        assert site.ask("web") == VM, "what is translated is tracked"
    finally:
        world.guest("nft delete table ip strict")
        if other_half == "of the LAN":
            world.in_namespace("web-1", "ip", "route", "del", SUBNET)


def test_isolated_containers_reach_each_other_by_a_service_only(site: Site, tmp_path: Path) -> None:
    """With the rules that render writes for that gateway."""
    world = site.world
    world.change_host(containers={**ATTACHED, "isolate": True})
    with serving(site.two.namespace, 8080):
        world.create(*service_with_slice("inside", [("http", 80, 8080, "TCP")], {SECOND: "two"}))
        try:
            wait.until("the Service", lambda: bool(site.ask("inside", path="/")) or "no answer", timeout=60)
            assert site.get(site.one, f"{SECOND}:8080", "/") == FIRST
            finds(world.vmproxy("doctor", "-o", "json"), f"it lacks the ACL policies that block {SUBNET}")
            assert world.vmproxy("render", str(tmp_path / "out")).code == 0
            (rendered,) = (tmp_path / "out").rglob("*.conflist")
            (plugin,) = json.loads(rendered.read_text())["plugins"]
            policies = [policy["value"] for policy in plugin["policies"]]
            assert {policy["Type"] for policy in policies} == {"ACL"}
            for one in (site.one, site.two):
                site.hns.set_policies(one.endpoint, policies)
            assert site.get(site.one, f"{SECOND}:8080", "/") is None
            assert site.ask("inside", path="/") == INSIDE, "the container sees the VM"
            assert world.curl("inside", "/") == INSIDE, "the host, through the VM"
            assert "ACL" not in world.vmproxy("doctor", "-o", "json").out
        finally:
            world.delete_service("inside")


def test_without_the_vm_containers_are_isolated_and_the_host_is_not_and_a_start_mends_it(site: Site) -> None:
    """No new seed and nothing by hand: the address comes back with the VM."""
    world = site.world
    world.kill_vm()
    assert site.ask("web") is None
    assert site.get(site.one, "192.168.100.31:8080") is None
    assert fetched(world, "host", "192.168.100.31:8080/clientip") == "192.168.100.10"
    ran = world.vmproxy("verify", "--container", "one", "--service", "demo/web", "-o", "json")
    finds(ran, '"hop": "vm"')
    world.apply()
    answered(site)
    assert world.drift() == []


def test_an_address_that_was_deleted_is_drift_and_named_and_repaired(site: Site) -> None:
    world = site.world
    world.guest(f"systemctl stop vmproxy-keeper.service && ip address del {INSIDE}/24 dev eth0")
    assert site.ask("web") is None
    assert world.drift() == [f"address {INSIDE}/24", "vmproxy-keeper.service: active"]
    lacks = f"the VM lacks its address {INSIDE}/24: the containers of cbr0 have no gateway"
    assert lacks in world.vmproxy("status").out
    tried = world.vmproxy("verify", "--container", "one", "--service", "demo/web", "-o", "json")
    finds(tried, '"hop": "vm"', lacks)
    world.apply()
    answered(site)
    assert world.drift() == []


def test_the_keeper_repairs_an_address_by_itself(site: Site) -> None:
    world = site.world
    world.guest(f"ip address del {INSIDE}/24 dev eth0")
    answered(site)
    assert hosts(world.vmproxy("status", "-o", "json"))["repairs"].get("addresses", 0) >= 1
    world.guest("systemctl restart systemd-networkd")
    answered(site)
    assert world.drift() == []


def test_a_container_with_another_gateway_is_named_with_it(site: Site) -> None:
    site.hns.stop_container(site.one)
    site.hns.remove_endpoint(site.one.endpoint)
    site.one = container(site.hns, site.network, "one", FIRST, gateway="10.244.9.1")
    lack = f"endpoint one_cbr0 ({FIRST}) of cbr0: its gateway is 10.244.9.1, not the VM at {INSIDE}"
    assert lack in planned(site)
    finds(site.world.vmproxy("doctor", "-o", "json"), lack)
    tried = site.world.vmproxy("verify", "--container", "one", "--service", "demo/web", "-o", "json")
    finds(tried, '"hop": "container"', lack)


def test_a_network_with_another_gateway_is_named_with_it(site: Site) -> None:
    assert not any("the gateway of cbr0" in text for text in planned(site))
    remove_network(site.hns)
    site.network = network(site.hns, "10.244.9.1")
    lack = f"the gateway of cbr0 is 10.244.9.1, not the VM at {INSIDE}"
    assert any(lack in text for text in planned(site))
    finds(site.world.vmproxy("doctor", "-o", "json"), lack)


def planned(site: Site) -> list[str]:
    return [str(text) for text in hosts(site.world.vmproxy("plan", "-o", "json"))["warnings"]]


def test_the_gateway_moves_from_the_host_to_the_vm_and_back(site: Site) -> None:
    """Each time, what the other one needed is taken back; two machines never have the same address."""
    world = site.world
    forward_nothing(world)
    endpoint = site.hns.attach_host_endpoint(site.network, "cbr0_ep", "10.244.9.3")
    world.change_host(containers={"network": "cbr0", "subnet": SUBNET})
    world.apply()
    assert "1" in forwards(world)
    assert held(world) == [f"{VM}/24 eth0"]
    assert f"{SUBNET} via 192.168.100.10" in world.look("ip route")
    assert world.drift() == []

    world.in_namespace("host", "ip", "address", "add", f"{INSIDE}/24", "dev", link_of(world, "10.244.9.3"))
    world.change_host(containers=ATTACHED)
    refused = world.vmproxy("apply")
    says(refused, 1, f"vEthernet (cbr0_ep) has the address {INSIDE} that the VM is to have")
    assert held(world) == [f"{VM}/24 eth0"]

    site.hns.remove_endpoint(endpoint)
    world.apply()
    assert forwards(world) == {"0"}
    assert held(world) == [f"{VM}/24 eth0", f"{INSIDE}/24 eth0:vmproxy"]
    assert "via 192.168.100.10" not in world.look("ip route")
    answered(site)
    assert world.drift() == []


def link_of(world: HypervWorld, address: str) -> str:
    shown = world.look_in("host", "ip", "-j", "address", "show", "to", address)
    (link,) = (str(item["ifname"]) for item in json.loads(shown) if item)
    return link


def test_without_containers_and_after_destroy_nothing_is_left_of_it(site: Site) -> None:
    world = site.world
    world.change_host(containers=None)
    assert f"address {INSIDE}/24" not in world.drift(), "it goes with the file that lists it"
    world.apply()
    assert held(world) == [f"{VM}/24 eth0"]
    assert "masquerade" not in world.look("nft list table inet vmproxy")
    assert world.drift() == []
    world.change_host(containers=ATTACHED)
    world.apply()
    assert world.vmproxy("destroy", "--yes").code == 0
    assert site.hns.call("GET", "/networks"), "the network is somebody else's"
    assert SERVICES not in world.look_in("host", "ip", "route")
