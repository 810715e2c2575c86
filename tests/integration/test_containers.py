"""Windows containers of the host reach Services through the VM, and are reached: real packets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.integration.test_failures import says
from tests.integration.world import SITE, Ran, World
from tests.winhost.hns import Container, Hns
from tests.winhost.system.state import System
from tests.winhost.tests.lan import serving
from vmproxy.lab.objects import service_with_slice
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("hyperv",)
SUBNET, SERVICES = "10.244.9.0/24", "10.96.0.0/16"
OUTER, INNER = "192.168.100.10", "10.244.9.2"
NAT: Mapping[str, Any] = {
    "Type": "OutBoundNAT",
    "Settings": {"Exceptions": ["10.244.0.0/16", SERVICES, "192.168.100.0/24"]},
}
ENCAP: Mapping[str, Any] = {
    "Type": "SDNRoute",
    "Settings": {"DestinationPrefix": SERVICES, "NeedEncap": True},
}


@dataclass
class Site:
    """A world whose host has an l2bridge network with two containers, made by somebody else."""

    world: HypervWorld
    hns: Hns
    network: str
    one: Container
    two: Container

    def get(self, container: Container, address: str, path: str = "/clientip") -> str | None:
        """What answers a container there; None: nothing."""
        url = f"http://{address}{path}"
        asked = self.hns.run(container, "curl", "-sS", "--noproxy", "*", "-m", "3", url)
        return asked.stdout.strip() if asked.returncode == 0 else None

    def ask(self, service: str, container: Container | None = None, path: str = "/clientip") -> str | None:
        return self.get(container or self.one, self.world.cluster_ip(service), path)

    def forwarding(self, address: str, value: str = "") -> str:
        """Of the host's interface with that address; set when a value is given."""
        shown = self.world.look_in("host", "ip", "-j", "address", "show", "to", address)
        (link,) = (item["ifname"] for item in json.loads(shown) if item)
        word = f"net.ipv4.conf.{link}.forwarding" + (f"={value}" if value else "")
        return self.world.in_namespace("host", "sysctl", "-n", word).strip()


@pytest.fixture
def site(bare: World) -> Iterator[Site]:
    """What apply made stays for the next test, which has a network and containers of its own."""
    assert isinstance(bare, HypervWorld)
    world, hns = bare, bare.windows.hns
    subnet = {"AddressPrefix": SUBNET, "GatewayAddress": "10.244.9.1"}
    network = hns.create_network({"Name": "cbr0", "Type": "L2Bridge", "Subnets": [subnet]})
    hns.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")

    def container(name: str, address: str) -> Container:
        endpoint = {
            "Name": f"{name}_cbr0",
            "HostComputeNetwork": network,
            "IpConfigurations": [{"IpAddress": address, "PrefixLength": 24}],
            "Routes": [{"NextHop": "10.244.9.2", "DestinationPrefix": "0.0.0.0/0"}],
            "Policies": [NAT, ENCAP],
            "SchemaVersion": {"Major": 2, "Minor": 0},
        }
        return hns.start_container(name, hns.create_endpoint(endpoint))

    try:
        made = Site(world, hns, network, container("one", "10.244.9.10"), container("two", "10.244.9.11"))
        world.reset()
        world.settle(containers={"network": "cbr0", "subnet": SUBNET})
        yield made
    finally:
        hns.remove_network(network)
        world.reset()
        world.clean = False


def finds(ran: Ran, *words: str) -> None:
    """A problem that verify or doctor shows among its results."""
    assert ran.code == 4, ran.err
    for word in words:
        assert word in ran.out


def test_a_container_reaches_services_and_what_is_missing_is_named_and_repaired(site: Site) -> None:
    world = site.world
    assert world.drift() == []
    assert site.ask("web", path="/hostname") in {"web-1", "web-2"}
    assert site.ask("web") == "192.168.100.5", "the endpoint sees the VM"
    assert world.curl("web") in {"web-1", "web-2"}

    for address in (INNER, OUTER):
        world.apply()
        site.forwarding(address, "0")
        (field,) = world.drift()
        assert field.startswith("forwarding on ")
        assert f"{field} is off" in world.vmproxy("status").out
    assert site.ask("web") is None
    ran = world.vmproxy("verify", "--container", "one", "--service", "demo/web")
    finds(ran, "container", f"{field} is off")
    world.apply()
    assert site.ask("web") == "192.168.100.5"
    assert world.drift() == []


def test_an_endpoint_without_the_policy_times_out_and_is_named_with_it(site: Site) -> None:
    site.hns.set_policies(site.one.endpoint, [NAT])
    assert site.ask("web") is None
    assert site.ask("web", site.two) == "192.168.100.5"
    lack = "endpoint one_cbr0 (10.244.9.10) of cbr0: it lacks the policy SDNRoute (ROUTE) with NeedEncap"
    finds(site.world.vmproxy("doctor", "-o", "json"), lack)
    tried = site.world.vmproxy("verify", "--container", "one", "--service", "demo/web", "-o", "json")
    finds(tried, '"hop": "container"', lack)
    site.hns.set_policies(site.one.endpoint, [{**NAT, "Settings": {"Exceptions": [SUBNET]}}, ENCAP])
    finds(
        site.world.vmproxy("doctor", "-o", "json"),
        "10.96.0.0/16 is missing in the exceptions of its policy OutBoundNAT",
    )


def test_verify_connects_from_inside_a_container_that_runs(site: Site) -> None:
    ran = site.world.vmproxy("verify", "--container", "two", "-o", "json")
    assert ran.code == 0, ran.err
    (host,) = ran.json["hosts"]
    assert {check["service"] for check in host["checks"]} >= {"demo/web:80", "default/kubernetes:443"}
    assert all(check["ok"] is True for check in host["checks"])
    says(site.world.vmproxy("verify", "--container", "three"), 2, "no container three runs", "one (")
    odd = site.world.vmproxy("verify", "--container", "x;y")
    assert odd.code == 2
    assert "Invalid value for '--container'" in odd.err


def test_a_service_of_containers_is_answered_to_host_neighbour_and_container(site: Site) -> None:
    """Also to the one that is the endpoint: by way of the VM and back."""
    world = site.world
    with serving(site.two.namespace, 8080):
        world.create(*service_with_slice("inside", [("http", 80, 8080, "TCP")], {"10.244.9.11": "two"}))
        try:
            wait.until("the Service", lambda: bool(site.ask("inside", path="/")) or "no answer", timeout=60)
            assert world.curl("inside", "/") == "192.168.100.5", "the container sees the VM"
            assert site.ask("inside", path="/") is not None
            assert site.ask("inside", site.two, path="/") is not None
            assert "demo/inside:80" in world.vmproxy("verify", "--service", "demo/inside").out
        finally:
            world.delete_service("inside")


def test_a_service_of_containers_is_answered_to_a_linux_node_whose_route_leads_to_the_vm(site: Site) -> None:
    """The node's own route, and a client of the VM by the site file."""
    world, route = site.world, ("ip", "route", "add", SERVICES, "via", "192.168.100.5")
    world.change_network(clients=["192.168.100.20"])
    world.apply()
    with serving(site.two.namespace, 8080):
        world.create(*service_with_slice("inside", [("http", 80, 8080, "TCP")], {"10.244.9.11": "two"}))
        world.in_namespace("node", *route)
        asked = ("curl", "-sS", "--noproxy", "*", "-m", "5", f"http://{world.cluster_ip('inside')}/")
        try:
            wait.until("the Service", lambda: bool(site.ask("inside", path="/")) or "no answer", timeout=60)
            assert world.look_in("node", *asked) == "192.168.100.5", "the container sees the VM"
        finally:
            world.in_namespace("node", "ip", "route", "del", *route[3:])
            world.delete_service("inside")


def test_a_container_of_a_nat_network_needs_nothing_and_can_be_asked(world: World) -> None:
    """Docker's default: the site file says nothing of it."""
    assert isinstance(world, HypervWorld)
    hns, subnet = world.windows.hns, {"AddressPrefix": "172.28.48.0/20", "GatewayAddress": "172.28.48.1"}
    network = hns.create_network({"Name": "nat", "Type": "nat", "Subnets": [subnet]})
    try:
        about = {"VirtualNetwork": network, "GatewayAddress": "172.28.48.1"}
        web = hns.start_container("web", hns.create_endpoint(about), runtime="docker")
        site = Site(world, hns, network, web, web)
        assert site.ask("web") == "192.168.100.5", "the endpoint sees the VM"
        assert world.drift() == []
        assert site.ask("web") == "192.168.100.5"
        ran = world.vmproxy("verify", "--container", "web", "--service", "demo/web")
        assert ran.code == 0, ran.err + ran.out
        block = {"Type": "ACL", "Action": "Block", "Direction": "Out", "RemoteAddresses": SERVICES}
        hns.set_policies(web.endpoint, [{**block, "Protocols": "6", "Priority": 100, "RuleType": "Switch"}])
        ran = world.vmproxy("verify", "--container", "web", "--service", "demo/web", "-o", "json")
        finds(ran, '"hop": "container"', "win-01 reaches it, its container does not")
    finally:
        world.clean = False
        hns.remove_network(network)


def test_a_native_kube_proxy_is_refused_before_anything_is_changed(site: Site) -> None:
    system = site.world.windows.state.part(System)
    rival = system.start("kube-proxy.exe")
    try:
        says(site.world.vmproxy("apply"), 1, "kube-proxy.exe runs there", "stop it")
        assert site.world.curl("web") in {"web-1", "web-2"}
    finally:
        system.processes.remove(rival)


def test_the_cni_configuration_is_rendered_written_and_removed(site: Site, tmp_path: Path) -> None:
    """What render shows is what apply writes; a container that is made with it reaches Services."""
    world, folder = site.world, site.world.windows.drive / "cni"
    folder.mkdir()
    cni = {"write": True, "directory": r"C:\cni"}
    world.change_host(containers={"network": "cbr0", "subnet": SUBNET, "cni": cni})
    name = f"10-vmproxy-{SITE}-win-01.conflist"
    assert world.drift() == [rf"C:\cni\{name}"]
    assert world.vmproxy("render", str(tmp_path / "out")).code == 0
    world.apply()
    (rendered,) = (tmp_path / "out").rglob(name)
    assert (folder / name).read_text() == rendered.read_text()
    (plugin,) = json.loads(rendered.read_text())["plugins"]
    site.hns.set_policies(site.one.endpoint, [policy["value"] for policy in plugin["policies"]])
    assert site.ask("web") == "192.168.100.5"
    (folder / name).write_text(rendered.read_text().replace(SERVICES, "10.97.0.0/16"))
    assert world.drift() == [rf"C:\cni\{name}: sha256"]
    world.apply()
    world.change_host(containers={"network": "cbr0", "subnet": SUBNET})
    world.apply()
    assert list(folder.iterdir()) == []


def test_isolated_containers_reach_each_other_by_a_service_only(site: Site, tmp_path: Path) -> None:
    """With the rules that render writes; without them, directly too, and doctor names what is missing."""
    world, containers = site.world, {"network": "cbr0", "subnet": SUBNET, "isolate": True}
    world.change_host(containers=containers)
    with serving(site.two.namespace, 8080):
        world.create(*service_with_slice("inside", [("http", 80, 8080, "TCP")], {"10.244.9.11": "two"}))
        try:
            wait.until("the Service", lambda: bool(site.ask("inside", path="/")) or "no answer", timeout=60)
            assert site.get(site.one, "10.244.9.11:8080", "/") == "10.244.9.10"
            finds(world.vmproxy("doctor", "-o", "json"), "it lacks the ACL policies that block 10.244.9.0/24")
            assert world.vmproxy("render", str(tmp_path / "out")).code == 0
            (rendered,) = (tmp_path / "out").rglob("*.conflist")
            (plugin,) = json.loads(rendered.read_text())["plugins"]
            for container in (site.one, site.two):
                policies = [policy["value"] for policy in plugin["policies"]]
                site.hns.set_policies(container.endpoint, policies)
            assert site.get(site.one, "10.244.9.11:8080", "/") is None
            assert site.ask("inside", path="/") is not None
            assert world.curl("inside", "/") is not None, "the host, through the VM"
            assert "ACL" not in world.vmproxy("doctor", "-o", "json").out
        finally:
            world.delete_service("inside")


def test_destroy_turns_forwarding_off_where_vmproxy_turned_it_on(site: Site) -> None:
    world = site.world
    assert {site.forwarding(address) for address in (INNER, OUTER)} == {"1"}
    assert world.vmproxy("destroy", "--yes").code == 0
    assert {site.forwarding(address) for address in (INNER, OUTER)} == {"0"}
    assert site.hns.call("GET", "/networks"), "the network is somebody else's"
