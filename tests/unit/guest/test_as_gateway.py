"""setup.py and the guard table of a VM that is the gateway of its containers: real packets, in namespaces.

          switch: a bridge
 ┌────────────┼───────────────┬──────────────┐
vm           one             two            lan
192.168.100.5, 10.244.9.2    10.244.9.11    192.168.100.40, and behind it 203.0.113.7
              10.244.9.10
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from tests import names
from tests.unit.guest.machine import PYTHON, Machine
from tests.winhost.presence import require
from tests.winhost.tests.lan import get, serving
from vmproxy.resources import firewall
from vmproxy.resources.firewall import Inside
from vmproxy.util import netns, wait
from vmproxy.util.run import run

VM, INSIDE, FIRST, SECOND = "192.168.100.5", "10.244.9.2", "10.244.9.10", "10.244.9.11"
LAN, OUTSIDE, SERVICE, OTHER = "192.168.100.40", "203.0.113.7", "10.96.0.50", "10.96.0.51"
SERVICES, SUBNET = ip_network("10.96.0.0/16"), ip_network("10.244.9.0/24")
DIRECT = (ip_network("10.244.0.0/16"), ip_network("192.168.100.0/24"))
GATEWAY = Inside(SUBNET, (ip_address(VM), ip_address(INSIDE)), DIRECT, (SERVICES, *DIRECT))
SHORT = 1.5
PROXY = f"""
table ip proxy {{
  chain to {{ type nat hook prerouting priority dstnat;
    ip daddr {SERVICE} dnat to {LAN}; ip daddr {OTHER} dnat to {SECOND}; }}
  chain from {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}
  chain strict {{ type filter hook forward priority filter; ct state invalid drop; }}
}}
"""
"""What kube-proxy does, and what it did to halves of connections before 1.29."""


@dataclass(frozen=True)
class Ground:
    """The namespaces, and the VM's scripts."""

    machine: Machine
    vm: str
    one: str
    two: str
    lan: str

    def in_vm(self, *command: str, stdin: str = "") -> str:
        return run(netns.run_in(self.vm, command), stdin=stdin).stdout

    def addresses(self, *wanted: str) -> list[str]:
        """Those of the VM with our label, after setup.py has made them these."""
        self.machine.write("/etc/vmproxy/addresses.json", json.dumps(wanted))
        words = [PYTHON, "-I", "-S", "-c", self.machine.text("setup.py"), "addresses"]
        self.in_vm(*words)
        told = self.in_vm("ip", "-j", "-4", "address", "show", "dev", "eth0")
        return list(self.machine.module("agent.py").addresses(told, "eth0:vmproxy"))


@pytest.fixture
def ground(machine: Machine) -> Iterator[Ground]:
    require(None if os.geteuid() == 0 else "network namespaces need root")
    require(None if shutil.which("nft") else "nft (nftables) is not installed")
    roles = {role: names.namespace(f"g{role}") for role in ("sw", "vm", "one", "two", "lan")}
    with ExitStack() as stack:
        for name in roles.values():
            run(["ip", "netns", "add", name])
            stack.callback(run, ["ip", "netns", "del", name])
            run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(["ip", "-n", roles["sw"], "link", "add", "br0", "up", "type", "bridge"])
        for role, address in (("vm", VM), ("one", FIRST), ("two", SECOND), ("lan", LAN)):
            _connect(roles["sw"], roles[role], role, f"{address}/24")
        made = Ground(machine, *(roles[role] for role in ("vm", "one", "two", "lan")))
        _settle(made)
        for name in (made.one, made.two, made.lan):
            stack.enter_context(serving(name))
        yield made


def _connect(switch: str, name: str, port: str, address: str) -> None:
    run(["ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch])
    run(["ip", "-n", switch, "link", "set", port, "master", "br0", "up"])
    run(["ip", "-n", name, "address", "add", address, "dev", "eth0"])
    run(["ip", "-n", name, "link", "set", "eth0", "up"])


def _settle(ground: Ground) -> None:
    content = firewall.file((SERVICES,), (SUBNET,), GATEWAY).content
    assert content is not None
    ground.in_vm("nft", "-f", "-", stdin=content.decode() + PROXY)
    off = [f"net.ipv4.conf.{name}.send_redirects=0" for name in ("all", "eth0")]
    ground.in_vm("sysctl", "-qw", *off, "net.ipv4.ip_forward=1")
    assert ground.addresses(f"{INSIDE}/24") == [f"{INSIDE}/24"]
    ground.in_vm("ip", "route", "add", "203.0.113.0/24", "via", LAN)
    run(["ip", "-n", ground.lan, "address", "add", f"{OUTSIDE}/32", "dev", "lo"])
    for name in (ground.one, ground.two):
        run(["ip", "-n", name, "route", "add", "default", "via", INSIDE])


def route(name: str, *words: str) -> None:
    run(["ip", "-n", name, "route", "replace", *words])


def test_an_address_is_set_once_kept_and_taken_away_again(ground: Ground) -> None:
    assert ground.addresses(f"{INSIDE}/24") == [f"{INSIDE}/24"]
    assert ground.addresses("10.244.8.2/24") == ["10.244.8.2/24"]
    assert ground.addresses() == []
    assert VM in ground.in_vm("ip", "address", "show", "dev", "eth0"), "the VM's own stays"


def test_services_are_answered_and_the_endpoint_sees_the_vm(ground: Ground) -> None:
    assert get(ground.one, SERVICE) == VM
    assert get(ground.one, OTHER) == INSIDE, "also where it is another container"
    assert get(ground.two, OTHER) == INSIDE, "or the very one"


def test_who_knows_the_subnet_sees_the_container_and_who_does_not_sees_the_vm(ground: Ground) -> None:
    assert get(ground.one, OUTSIDE) == VM
    assert get(ground.one, LAN, patience=SHORT) is None, "it has no way back yet"
    route(ground.lan, str(SUBNET), "via", VM)
    assert get(ground.one, LAN) == FIRST
    assert get(ground.lan, FIRST) == LAN
    assert get(ground.one, OUTSIDE) == VM


def test_it_is_no_router_between_others(ground: Ground) -> None:
    """Another address of a container's machine, which is not in the subnet."""
    run(["ip", "-n", ground.two, "address", "add", "10.1.1.1/32", "dev", "lo"])
    ground.in_vm("ip", "route", "add", "10.1.1.1/32", "via", SECOND)
    route(ground.lan, "10.1.1.1/32", "via", VM)
    route(ground.lan, str(SUBNET), "via", VM)
    assert get(ground.lan, "10.1.1.1", patience=SHORT) is None
    assert get(ground.lan, SECOND) == LAN


@pytest.mark.parametrize("half", ["to the LAN", "to the container"])
def test_half_of_a_connection_passes_because_it_is_not_tracked(ground: Ground, half: str) -> None:
    asking, address, seen = (ground.one, LAN, FIRST) if half == "to the LAN" else (ground.lan, FIRST, LAN)
    if half == "to the LAN":  # answers go straight to the container
        route(ground.lan, str(SUBNET), "dev", "eth0")
    else:
        route(ground.lan, str(SUBNET), "via", VM)
        route(ground.one, f"{LAN}/32", "dev", "eth0")
    assert get(asking, address) == seen
    ground.in_vm("nft", "flush", "chain", "inet", "vmproxy", "direct")
    assert get(asking, address, patience=SHORT) is None, "it was that chain"


def test_without_the_address_containers_reach_nothing_outside_their_subnet(ground: Ground) -> None:
    ground.addresses()
    assert get(ground.one, SERVICE, patience=SHORT) is None
    assert get(ground.one, SECOND) == FIRST
    ground.addresses(f"{INSIDE}/24")

    def answered() -> bool | str:
        """The container may still wait for the gateway's MAC address, in vain, from before."""
        return get(ground.one, SERVICE) == VM or "no answer"

    wait.until("the gateway", answered, timeout=30)


def test_the_keeper_sees_that_it_is_gone(ground: Ground) -> None:
    look = f"{ground.machine.text('keeper.py').partition('def main')[0]}\nprint(addresses_broken())"

    def broken() -> str:
        done = subprocess.run(
            netns.run_in(ground.vm, [PYTHON, "-I", "-S", "-c", look]),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert broken() == "None"
    ground.in_vm("ip", "address", "del", f"{INSIDE}/24", "dev", "eth0")
    assert broken() == f"{INSIDE}/24 missing"
