"""flannel.py: which Nodes are peers, the routes to their pods, and what the kernel is told of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.guest.machine import Machine

MAC, OTHER = "02:00:00:00:00:61", "02:00:00:00:00:ff"
ADDRESS = "172.31.0.21"
CONFIG = {
    "node": "win-01",
    "local": "192.168.10.5",
    "port": 8472,
    "aside": ["10.244.9.0/24"],
    "refused": ["192.168.10.0/24", "10.96.0.0/16", "127.0.0.0/8"],
}


def node(name: str, cidr: str | None = "10.244.2.0/24", **changes: Any) -> dict[str, Any]:
    """With a MAC address of its name's first letter."""
    data = {"VNI": 1, "VtepMAC": f"02:00:00:00:00:{ord(name[0]):02x}", **changes.pop("data", {})}
    notes = {"backend_type": "vxlan", "backend_data": json.dumps(data), "public_ip": ADDRESS, **changes}
    found = {f"flannel.alpha.coreos.com/{key.replace('_', '-')}": value for key, value in notes.items()}
    annotations = {key: value for key, value in found.items() if value is not None}
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"podCIDR": cidr}}


@pytest.fixture
def flannel(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PATH", str(machine.bin))
    machine.write("/sys/class/net/eth0/mtu", "1500\n")
    return machine.module("flannel.py")


def routes(flannel: Any, *nodes: dict[str, Any]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    wanted, left = flannel.Peers(CONFIG).routes([flannel.peer(item) for item in nodes])
    return wanted, [(item["why"], item["node"]) for item in left]


def test_a_peer_is_reached_over_the_device_by_way_of_its_networks_own_address(flannel: Any) -> None:
    assert routes(flannel, node("a")) == ({"10.244.2.0/24": "10.244.2.0 dev vmproxy.1 onlink"}, [])


def test_both_families_of_a_node_mean_one_route(flannel: Any) -> None:
    item = node("a")
    item["spec"]["podCIDRs"] = ["10.244.2.0/24", "fd00:10:244:2::/64"]
    assert list(routes(flannel, item)[0]) == ["10.244.2.0/24"]


DAMAGED: dict[str, dict[str, Any]] = {
    "another backend": {"backend_type": "host-gw"},
    "no annotations": {"backend_type": None, "backend_data": None, "public_ip": None},
    "no JSON": {"backend_data": "{"},
    "a list": {"backend_data": "[1]"},
    "no VNI": {"data": {"VNI": None}},
    "a VNI as text": {"data": {"VNI": "1"}},
    "a VNI that is none": {"data": {"VNI": True}},
    "a large VNI": {"data": {"VNI": 1 << 24}},
    "no MAC": {"data": {"VtepMAC": "02:00:00:00:02"}},
    "a MAC and a command": {"data": {"VtepMAC": MAC + " dev eth0\nlink del eth0"}},
    "no address": {"public_ip": "node-02.example"},
    "an address and a command": {"public_ip": "172.31.0.21\nfdb flush dev eth0"},
    "IPv6": {"public_ip": "fd00::1"},
    "a group's address": {"public_ip": "224.0.0.1"},
    "everybody's address": {"public_ip": "255.255.255.255"},
    "its own loopback": {"public_ip": "127.0.0.1"},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_node_whose_annotations_are_of_no_use_is_no_peer(flannel: Any, what: str) -> None:
    good = node("good", "10.244.3.0/24")
    wanted, left = routes(flannel, good, node("bad", **DAMAGED[what]))
    assert list(wanted) == ["10.244.3.0/24"]
    assert left == [("foreign", "bad")]


def test_where_no_node_has_vxlan_each_is_named(flannel: Any) -> None:
    none = node("a", backend_type="host-gw"), node("b", "10.244.3.0/24", backend_type=None)
    assert routes(flannel, *none) == ({}, [("foreign", "a"), ("foreign", "b")])


NO_RANGES = [None, "", "x", 7, "10.244.2.0/24 via 1.2.3.4", "0.0.0.0/0", "10.0.0.0/7", "10.244.2.1/32"]


@pytest.mark.parametrize("cidr", NO_RANGES)
def test_what_is_no_range_for_pods_gets_no_route(flannel: Any, cidr: Any) -> None:
    assert routes(flannel, node("a", cidr)) == ({}, [])


@pytest.mark.parametrize("cidr", ["192.168.0.0/16", "192.168.10.128/25", "10.96.3.0/24", "127.0.0.0/16"])
def test_no_route_may_take_what_the_vm_needs(flannel: Any, cidr: str) -> None:
    assert routes(flannel, node("a", cidr)) == ({}, [("refused", "a")])


def test_peers_of_another_vni_and_the_node_that_the_vm_acts_for_are_none(flannel: Any) -> None:
    nodes = [
        node("a"),
        node("b", "10.244.3.0/24"),
        node("windows", "10.244.4.0/24", data={"VNI": 4096}),
        node("win-01", "10.244.5.0/24"),
    ]
    wanted, left = routes(flannel, *nodes)
    assert list(wanted) == ["10.244.2.0/24", "10.244.3.0/24"]
    assert left == [("apart", "windows")]


def test_the_site_files_own_routes_win(flannel: Any) -> None:
    assert routes(flannel, node("a", "10.244.9.0/24")) == ({}, [])
    assert routes(flannel, node("a", "10.244.9.128/25", backend_type="host-gw")) == ({}, [])


@pytest.mark.parametrize("cidr", ["10.244.2.0/24", "10.244.2.128/25", "10.244.0.0/16"])
def test_of_two_nodes_with_the_same_pods_the_first_one_counts(flannel: Any, cidr: str) -> None:
    wanted, left = routes(flannel, node("b", cidr), node("a"), node("c", "10.245.0.0/24"))
    assert list(wanted) == ["10.244.2.0/24", "10.245.0.0/24"]
    assert left == [("taken", "b")]


def test_a_node_cannot_take_another_ones_packets_by_its_mac_address(flannel: Any) -> None:
    other = node("b", "10.244.3.0/24", data={"VtepMAC": MAC.upper()}, public_ip="172.31.0.66")
    peers = flannel.Peers(CONFIG)
    _, (left,) = peers.routes([flannel.peer(item) for item in (other, node("a"))])
    assert (left["why"], left["node"]) == ("taken", "b")
    assert peers.far == {MAC: ADDRESS}


@pytest.mark.parametrize("cidr", ["172.31.0.0/24", "172.16.0.0/12"])
def test_no_route_may_lead_to_the_nodes_themselves(flannel: Any, cidr: str) -> None:
    assert routes(flannel, node("a"), node("b", cidr))[1] == [("refused", "b")]
    assert routes(flannel, node("b", cidr)) == ({}, [("refused", "b")])


def test_a_node_cannot_be_where_the_vm_is(flannel: Any) -> None:
    assert routes(flannel, node("a", public_ip=CONFIG["local"])) == ({}, [("refused", "a")])


class Kernel:
    """What `ip` and `bridge` show, and the lines that they got."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lines = machine.path("/lines")

    def shows(self, *, link: Any = None, near: Any = (), far: Any = ()) -> None:
        """Without `link` there is no device."""
        device = f"echo '{json.dumps([link])}'" if link else "exit 1"
        self.program("ip", {"link": device, "neigh": f"echo '{json.dumps(list(near))}'"})
        self.program("bridge", {"fdb": f"echo '{json.dumps(list(far))}'"})

    def program(self, name: str, answers: dict[str, str]) -> None:
        cases = "".join(f"*' {what} '*) {does};;\n" for what, does in answers.items())
        keep = f'while read -r line; do echo "{name} $line" >> {self.lines}; done'
        self.machine.program(name, f'case " $* " in\n*-batch*) {keep};;\n{cases}esac')

    def got(self) -> list[str]:
        return self.lines.read_text().splitlines() if self.lines.exists() else []


DATA = {"id": 1, "link": "eth0", "port": 8472, "local": "192.168.10.5"}
LINK = {"flags": ["UP"], "mtu": 1450, "linkinfo": {"info_data": DATA}}


def prepared(flannel: Any, *nodes: dict[str, Any]) -> bool:
    peers = flannel.Peers(CONFIG)
    peers.routes([flannel.peer(item) for item in nodes])
    return bool(peers.prepare())


def test_the_device_and_its_peers_are_made(flannel: Any, machine: Machine) -> None:
    kernel = Kernel(machine)
    kernel.shows()
    assert prepared(flannel, node("a"))
    assert kernel.got() == [
        "ip link add vmproxy.1 mtu 1450 type vxlan id 1 dev eth0 local 192.168.10.5 dstport 8472 nolearning",
        "ip link set vmproxy.1 up",
        f"ip neigh replace 10.244.2.0 lladdr {MAC} dev vmproxy.1 nud permanent",
        f"bridge fdb replace {MAC} dev vmproxy.1 dst 172.31.0.21",
    ]


def test_what_is_as_it_should_be_is_left_alone(flannel: Any, machine: Machine) -> None:
    kernel = Kernel(machine)
    near = {"dst": "10.244.2.0", "lladdr": MAC}
    kernel.shows(link=LINK, near=[near], far=[{"mac": MAC, "dst": "172.31.0.21"}])
    assert prepared(flannel, node("a"))
    assert kernel.got() == []


def test_a_peer_that_went_goes_and_one_that_moved_is_changed(flannel: Any, machine: Machine) -> None:
    kernel = Kernel(machine)
    near = [{"dst": "10.244.2.0", "lladdr": MAC}, {"dst": "10.244.8.0", "lladdr": OTHER}]
    far = [{"mac": MAC, "dst": "172.31.0.99"}, {"mac": OTHER, "dst": "172.31.0.98"}]
    kernel.shows(link=LINK, near=near, far=far)
    assert prepared(flannel, node("a"))
    assert kernel.got() == [
        "ip neigh del 10.244.8.0 dev vmproxy.1",
        f"bridge fdb del {OTHER} dev vmproxy.1 dst 172.31.0.98",
        f"bridge fdb replace {MAC} dev vmproxy.1 dst 172.31.0.21",
    ]


OTHERS: list[dict[str, Any]] = [
    *(
        {**LINK, "linkinfo": {"info_data": {**DATA, **change}}}
        for change in ({"id": 2}, {"port": 4789}, {"local": "192.168.10.6"}, {"link": "eth1"})
    ),
    {**LINK, "flags": ["BROADCAST"]},
    {**LINK, "mtu": 8950},
    {**LINK, "linkinfo": {}},
]


@pytest.mark.parametrize("link", OTHERS)
def test_a_device_of_another_kind_is_made_anew(flannel: Any, machine: Machine, link: dict[str, Any]) -> None:
    kernel = Kernel(machine)
    kernel.shows(link=link)
    assert prepared(flannel, node("a"))
    assert kernel.got()[0] == "ip link del vmproxy.1"
    assert kernel.got()[1].startswith("ip link add vmproxy.1 mtu 1450 ")


def test_what_the_kernel_refuses_is_no_success(flannel: Any, machine: Machine) -> None:
    machine.program("ip", "exit 1")
    machine.program("bridge", "exit 1")
    assert not prepared(flannel, node("a"))


def test_without_peers_there_is_no_device(flannel: Any, machine: Machine) -> None:
    kernel = Kernel(machine)
    kernel.shows(link=LINK)
    assert prepared(flannel)
    assert kernel.got() == ["ip link del vmproxy.1"]
