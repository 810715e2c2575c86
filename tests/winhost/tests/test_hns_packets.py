"""Packets of containers: real ones, through the emulated host's container networks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.winhost import hns
from tests.winhost.hns import Container, Hns, HnsError
from tests.winhost.net.kernel import Kernel
from tests.winhost.standin import ROOT
from tests.winhost.state import Host
from tests.winhost.tests import lan as lans
from tests.winhost.tests.lan import HOST, NEIGHBOUR, PODS, SERVICE, SERVICES, VM, Lan, get, lan, serving
from vmproxy.util import netns, wait
from vmproxy.util.run import run

pytestmark = pytest.mark.winhost
FIRST, SECOND = "10.244.9.10", "10.244.9.11"
SHORT = 1.5
ENCAP: Mapping[str, Any] = {"Type": "ROUTE", "DestinationPrefix": SERVICES, "NeedEncap": True}
HOME: Mapping[str, Any] = {"Type": "ROUTE", "DestinationPrefix": f"{HOST}/32", "NeedEncap": True}
NAT: Mapping[str, Any] = {"Type": "OutBoundNAT", "ExceptionList": [PODS, SERVICES, "192.168.100.0/24"]}


@dataclass(frozen=True)
class Site:
    """An emulated host with an l2bridge, and what is around it."""

    lan: Lan
    hns: Hns
    network: str

    def container(
        self, name: str, address: str, *policies: Mapping[str, Any], gateway: str = ""
    ) -> Container:
        about = {
            "Name": name,
            "VirtualNetwork": self.network,
            "IPAddress": address,
            "GatewayAddress": gateway or "10.244.9.2",
            "Policies": list(policies),
        }
        return self.hns.start_container(name, self.hns.create_endpoint(about))

    def forwarding(self, *, on: bool, of: str = "") -> None:
        """Of the host's interfaces whose devices' names start so."""
        kernel = Kernel(self.lan.host)
        for one in (link for link in kernel.links() if link.name.startswith(of)):
            kernel.set_sysctl(f"ipv4/conf/{one.name}/forwarding", str(int(on)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with lan() as around:
        host = Host(
            namespace=around.host,
            switch_namespace=around.switch,
            bridges={"External": "br0"},
            folder=tmp_path,
        )
        (tmp_path / "programs").mkdir()
        ours = Hns(host)
        subnet = {"AddressPrefix": PODS, "GatewayAddress": "10.244.9.1"}
        network = ours.create_network({"Name": "cbr0", "Type": "L2Bridge", "Subnets": [subnet]})
        ours.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")
        made = Site(around, ours, network)
        made.forwarding(on=True)
        try:
            yield made
        finally:
            hns.close(host)


def test_a_service_is_reached_by_a_container_whose_policy_leads_into_the_host(site: Site) -> None:
    pod = site.container("pod", FIRST, ENCAP, HOME, NAT)
    assert get(pod.namespace, SERVICE) == FIRST, "an exception: its own address is seen"
    assert get(pod.namespace, HOST) == FIRST


def test_without_the_policy_a_packet_to_a_service_is_lost_on_the_wire(site: Site) -> None:
    pod = site.container("pod", FIRST, NAT)
    assert get(pod.namespace, SERVICE, patience=SHORT) is None
    site.hns.set_policies(pod.endpoint, [NAT, ENCAP])
    assert get(pod.namespace, SERVICE) == FIRST, "it was only the policy"


@pytest.mark.parametrize("off", ["eth0", "vh"])
def test_the_host_passes_on_only_what_both_its_interfaces_forward(site: Site, off: str) -> None:
    pod = site.container("pod", FIRST, ENCAP, HOME, NAT)
    site.forwarding(on=False, of=off)
    assert get(pod.namespace, SERVICE, patience=SHORT) is None
    assert get(pod.namespace, HOST) == FIRST, "the host itself is reached"
    site.forwarding(on=True)
    assert get(pod.namespace, SERVICE) == FIRST


def test_a_container_of_a_nat_network_is_the_host_to_everybody_and_follows_its_routes(site: Site) -> None:
    """Whatever the host's interfaces forward; and it is gone with its network, what others have is not."""
    site.forwarding(on=False)
    subnet = {"AddressPrefix": "172.28.48.0/20", "GatewayAddress": "172.28.48.1"}
    network = site.hns.create_network({"Name": "nat", "Type": "nat", "Subnets": [subnet]})
    about = {"VirtualNetwork": network, "IPAddress": "172.28.48.10", "GatewayAddress": "172.28.48.1"}
    pod = site.hns.start_container("pod", site.hns.create_endpoint(about), runtime="docker")
    assert [get(pod.namespace, address) for address in (SERVICE, NEIGHBOUR)] == [HOST, HOST]
    assert get(pod.namespace, "172.28.48.1") == "172.28.48.10"
    assert get(site.lan.neighbour, "172.28.48.10", patience=SHORT) is None, "no way in"
    another = site.container("another", FIRST, ENCAP, NAT)
    assert get(another.namespace, SERVICE, patience=SHORT) is None, "NAT makes the host forward for it alone"
    site.hns.remove_network(network)
    links = [one.name for one in Kernel(site.lan.host).links()]
    assert len([name for name in links if name.startswith("vh")]) == 1, "that of cbr0"
    rules = run(netns.run_in(site.lan.host, ["nft", "list", "ruleset"])).stdout
    assert "172.28.48.0" not in rules


def test_outbound_nat_makes_the_source_the_hosts_but_for_exceptions(site: Site) -> None:
    pod = site.container("pod", FIRST, ENCAP, {"Type": "OutBoundNAT", "ExceptionList": [PODS]})
    assert get(pod.namespace, SERVICE) == HOST
    site.hns.set_policies(pod.endpoint, [ENCAP, {"Type": "OutBoundNAT", "ExceptionList": [PODS, SERVICES]}])
    assert get(pod.namespace, SERVICE) == FIRST


def test_outbound_nat_is_done_on_the_way_to_the_wire_too(site: Site) -> None:
    """By the platform, not by the host: it does not need to forward for that."""
    site.forwarding(on=False)
    pods = [site.container(f"pod-{at}", f"10.244.9.{at}", {"Type": "OutBoundNAT"}) for at in (10, 11)]
    assert [get(one.namespace, NEIGHBOUR) for one in pods] == [HOST, HOST]
    assert get(site.lan.host, NEIGHBOUR) == HOST
    site.hns.set_policies(pods[0].endpoint, [{"Type": "OutBoundNAT", "ExceptionList": ["192.168.100.0/24"]}])
    assert get(pods[0].namespace, NEIGHBOUR, patience=SHORT) is None, "the neighbour has no route to it"


def test_without_the_policy_outbound_nat_does_not_lead_to_a_service(site: Site) -> None:
    pod = site.container("pod", FIRST, {"Type": "OutBoundNAT"})
    assert get(pod.namespace, SERVICE, patience=SHORT) is None


def test_a_container_is_reached_by_who_sends_its_network_to_the_host(site: Site) -> None:
    pod = site.container("pod", FIRST, NAT)
    with serving(pod.namespace):
        assert get(site.lan.vm, FIRST) == VM
        assert get(site.lan.host, FIRST) == "10.244.9.2"
        assert get(site.lan.neighbour, FIRST, patience=SHORT) is None, "it has no route"


def test_a_neighbour_learns_the_hosts_mac_address_for_a_container(site: Site) -> None:
    """In the host's own subnet, or in one that the neighbour is in too."""
    pod = site.container("pod", FIRST)
    Kernel(site.lan.neighbour).run("address", "add", "10.244.9.40/24", "dev", "eth0")
    with serving(pod.namespace):
        assert get(site.lan.neighbour, FIRST) == "10.244.9.40"
    assert get(pod.namespace, "10.244.9.40") == FIRST
    assert site.lan.known(site.lan.neighbour, FIRST) == site.lan.mac(site.lan.host)
    assert site.lan.known(pod.namespace, "10.244.9.40") == site.lan.mac(site.lan.neighbour)


def test_containers_of_a_host_talk_to_each_other_directly(site: Site) -> None:
    one, two = site.container("one", FIRST, NAT), site.container("two", SECOND, NAT)
    with serving(two.namespace):
        assert get(one.namespace, SECOND) == FIRST
    assert site.lan.known(one.namespace, SECOND) == site.lan.mac(two.namespace)


def test_the_vm_can_be_the_gateway_of_the_containers_subnet(site: Site) -> None:
    """Neither the policy nor forwarding on the host is needed then."""
    vm = Kernel(site.lan.vm)
    vm.run("route", "del", PODS)
    vm.run("address", "add", "10.244.9.1/24", "dev", "eth0")
    site.forwarding(on=False)
    pod = site.container("pod", FIRST, NAT, gateway="10.244.9.1")
    assert get(pod.namespace, SERVICE) == FIRST
    with serving(pod.namespace):
        assert get(site.lan.vm, FIRST) == "10.244.9.1"


def rule(direction: str, action: str, remote: str = "", *, priority: int, **more: str) -> dict[str, Any]:
    about = {"Type": "ACL", "Action": action, "Direction": direction, "RuleType": "Switch"}
    return {**about, "RemoteAddresses": remote, "Priority": priority, **more}


def test_a_blocked_neighbour_is_reached_neither_way_and_services_still_are(site: Site) -> None:
    isolated = [
        rule("Out", "Allow", f"{HOST},{SERVICES}", priority=1000, Protocols="256"),
        rule("Out", "Block", PODS, priority=1001, Protocols="256"),
        rule("In", "Block", PODS, priority=1001, Protocols="256"),
        rule("In", "Allow", priority=1002, Protocols="256"),
    ]
    one = site.container("one", FIRST, ENCAP, HOME, NAT, *isolated)
    two = site.container("two", SECOND, ENCAP, HOME, NAT)
    with serving(one.namespace), serving(two.namespace):
        assert get(one.namespace, SECOND, patience=SHORT) is None
        assert get(two.namespace, FIRST, patience=SHORT) is None
        assert get(one.namespace, SERVICE) == FIRST
        assert get(site.lan.vm, FIRST) == VM
        site.hns.set_policies(one.endpoint, [ENCAP, HOME, NAT])
        assert get(one.namespace, SECOND) == FIRST


def test_rules_are_taken_by_priority_and_match_ports_and_protocols(site: Site) -> None:
    one, two = site.container("one", FIRST), site.container("two", SECOND)
    with serving(two.namespace):
        for policies, reached in (
            ([rule("Out", "Block", PODS, priority=200), rule("Out", "Allow", PODS, priority=100)], True),
            ([rule("Out", "Block", PODS, priority=100), rule("Out", "Allow", PODS, priority=200)], False),
            ([rule("Out", "Block", priority=100, Protocols="6", RemotePorts="81-90,443")], True),
            ([rule("Out", "Block", priority=100, Protocols="6,17", RemotePorts="79-81")], False),
            ([rule("Out", "Block", priority=100, Protocols="17", RemotePorts="80")], True),
            ([rule("In", "Block", priority=100)], True),
            (
                [{**rule("Out", "Allow", priority=100)}, rule("Out", "Block", priority=9, RuleType="Host")],
                False,
            ),
        ):
            site.hns.set_policies(one.endpoint, policies)
            assert (get(one.namespace, SECOND, patience=SHORT) == FIRST) is reached, policies


def test_on_a_transparent_network_a_container_has_its_own_mac_address_on_the_wire(site: Site) -> None:
    flat = site.hns.create_network(
        {"Name": "flat", "Type": "Transparent", "Subnets": [{"AddressPrefix": "192.168.100.0/24"}]}
    )
    about = {"VirtualNetwork": flat, "IPAddress": "192.168.100.60", "GatewayAddress": lans.GATEWAY}
    pod = site.hns.start_container("pod", site.hns.create_endpoint(about))
    assert get(pod.namespace, NEIGHBOUR) == "192.168.100.60"
    assert site.lan.known(site.lan.neighbour, "192.168.100.60") == site.lan.mac(pod.namespace)


def test_an_endpoint_of_hcns_has_its_own_routes(site: Site) -> None:
    about = {
        "HostComputeNetwork": site.network,
        "IpConfigurations": [{"IpAddress": FIRST, "PrefixLength": 24}],
        "Routes": [
            {"NextHop": "10.244.9.2", "DestinationPrefix": "0.0.0.0/0"},
            {"NextHop": "10.244.9.5", "DestinationPrefix": SERVICES},
        ],
        "SchemaVersion": {"Major": 2, "Minor": 0},
    }
    Kernel(site.lan.vm).run("address", "add", "10.244.9.5/24", "dev", "eth0")
    pod = site.hns.start_container("pod", site.hns.create_endpoint(about))
    assert get(pod.namespace, SERVICE) == FIRST, "no policy leads there"


def test_a_container_stops_and_another_takes_its_endpoint(site: Site) -> None:
    pod = site.container("pod", FIRST, ENCAP, NAT)
    with pytest.raises(HnsError, match="already attached"):
        site.hns.start_container("second", pod.endpoint)
    site.hns.stop_container(pod)
    assert not netns.exists(pod.namespace)
    with pytest.raises(HnsError, match="not found"):
        site.hns.stop_container(pod)
    assert get(site.hns.start_container("second", pod.endpoint).namespace, SERVICE) == FIRST


def test_of_a_container_that_can_not_start_nothing_is_left(site: Site) -> None:
    about = {"VirtualNetwork": site.network, "IPAddress": FIRST, "GatewayAddress": "172.16.0.1"}
    endpoint = site.hns.create_endpoint(about)
    with pytest.raises(HnsError) as refused:
        site.hns.start_container("pod", endpoint)
    assert refused.value.code == 0x803B001E
    assert not [one for one in Path("/run/netns").iterdir() if one.name.startswith(f"{site.lan.host}-")]
    site.hns.remove_endpoint(endpoint)
    assert get(site.container("pod", FIRST, ENCAP, NAT).namespace, SERVICE) == FIRST


def test_two_networks_of_a_host_do_not_mix(site: Site) -> None:
    subnet = {"AddressPrefix": "10.244.8.0/24", "GatewayAddress": "10.244.8.1"}
    other = site.hns.create_network({"Name": "cbr1", "Type": "L2Bridge", "Subnets": [subnet]})
    site.hns.attach_host_endpoint(other, "cbr1_ep", "10.244.8.2")
    site.forwarding(on=True)
    about = {"VirtualNetwork": other, "IPAddress": "10.244.8.10", "GatewayAddress": "10.244.8.2"}
    nat = {"Type": "OutBoundNAT", "ExceptionList": [PODS]}
    far = site.hns.start_container("far", site.hns.create_endpoint({**about, "Policies": [ENCAP, nat]}))
    near = site.container("near", FIRST, ENCAP, NAT)
    assert (get(far.namespace, SERVICE), get(near.namespace, SERVICE)) == (HOST, FIRST)
    site.hns.remove_network(other)
    assert get(near.namespace, SERVICE) == FIRST


def test_what_was_attached_is_gone_when_it_is_removed(site: Site) -> None:
    pod = site.container("pod", FIRST, ENCAP, NAT)
    assert netns.exists(pod.namespace)
    site.hns.remove_network(site.network)
    assert not netns.exists(pod.namespace)
    assert site.hns.call("GET", "/endpoints") == []
    assert _left(site.lan) == (["eth0", "lo"], "", "")


def test_nothing_is_left_when_the_host_ends(site: Site) -> None:
    pod = site.container("pod", FIRST, ENCAP, NAT)
    before = Kernel(site.lan.host).sysctl("ipv4/conf/eth0/arp_ignore")
    hns.close(site.hns.host)
    assert not netns.exists(pod.namespace)
    assert _left(site.lan) == (["eth0", "lo"], "", "")
    assert (before, Kernel(site.lan.host).sysctl("ipv4/conf/eth0/arp_ignore")) == ("1", "0")


_BEHIND = """
import sys, time
from pathlib import Path
from tests.winhost import hns
from tests.winhost.state import Host
from tests.winhost.tests.lan import PODS
inside, switch, folder = sys.argv[1:]
host = Host(namespace=inside, switch_namespace=switch, bridges={"External": "br0"}, folder=Path(folder))
ours = hns.Hns(host)
network = ours.create_network({"Name": "cbr0", "Type": "L2Bridge", "Subnets": [{"AddressPrefix": PODS}]})
ours.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")
about = {"VirtualNetwork": network, "GatewayAddress": "10.244.9.2", "Policies": [{"Type": "OutBoundNAT"}]}
pod = ours.start_container("pod", ours.create_endpoint(about))
print(pod.namespace, hns.store(host).undertaker.pid, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_of_a_host_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    with lan() as around:
        command = [sys.executable, "-c", _BEHIND, around.host, around.switch, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as behind:
            assert behind.stdout is not None
            pod, undertaker = behind.stdout.readline().split()
            assert netns.exists(pod)
            behind.send_signal(signal.SIGKILL)
        ended = Path("/proc", undertaker)
        wait.until(
            "the undertaker to end", lambda: "it runs" if ended.exists() else True, timeout=30, every=0.1
        )
        assert not netns.exists(pod)
        assert _left(around) == (["eth0", "lo"], "", "")


def _left(around: Lan) -> tuple[list[str], str, str]:
    """The host's devices, its rules and the switch's."""
    devices = sorted(one.name for one in Kernel(around.host).links())
    rules = [
        run(netns.run_in(one, ["nft", "list", "ruleset"])).stdout for one in (around.host, around.switch)
    ]
    return devices, rules[0], rules[1]
