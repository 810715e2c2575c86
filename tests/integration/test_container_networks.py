"""Containers of a Windows host in the lab: what HNS's policies make of their way to a Service."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.winhost.hns import Container
from tests.winhost.net.kernel import Kernel

pytestmark = pytest.mark.lab
PLACES = ("hyperv",)

PODS = "10.244.9.0/24"
SERVICES = "10.96.0.0/16"
VM, HOST = "192.168.100.5", "192.168.100.10"


@pytest.fixture
def windows(world: HypervWorld) -> HypervWorld:
    return world


@contextmanager
def container(world: HypervWorld, *policies: dict[str, Any]) -> Iterator[Container]:
    """One on an l2bridge with a subnet of its own, whose gateway is the host, which forwards."""
    hns, kernel = world.windows.hns, Kernel(str(world.windows.state.namespace))
    subnet = {"AddressPrefix": PODS, "GatewayAddress": "10.244.9.1"}
    network = hns.create_network({"Name": "cbr0", "Type": "L2Bridge", "Subnets": [subnet]})
    try:
        hns.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")
        about = {"VirtualNetwork": network, "IPAddress": "10.244.9.10", "GatewayAddress": "10.244.9.2"}
        endpoint = hns.create_endpoint({**about, "Policies": list(policies)})
        for link in kernel.links():
            kernel.set_sysctl(f"ipv4/conf/{link.name}/forwarding", "1")
        yield hns.start_container("pod", endpoint)
    finally:
        kernel.set_sysctl("ipv4/conf/eth0/forwarding", "0")
        hns.remove_network(network)
        world.clean = False


def ask(world: HypervWorld, pod: Container, path: str) -> subprocess.CompletedProcess[str]:
    url = f"http://{world.cluster_ip('web')}{path}"
    return world.windows.hns.run(pod, "curl", "-sS", "--noproxy", "*", "-m", "5", url)


def test_a_container_whose_packets_have_the_hosts_address_is_answered_through_the_vm(
    windows: HypervWorld,
) -> None:
    encap = {"Type": "ROUTE", "DestinationPrefix": SERVICES, "NeedEncap": True}
    with container(windows, encap, {"Type": "OutBoundNAT", "ExceptionList": [PODS]}) as pod:
        asked = ask(windows, pod, "/clientip")
    assert (asked.returncode, asked.stdout.strip()) == (0, VM), asked.stderr


def test_a_container_without_the_policy_is_not_answered(windows: HypervWorld) -> None:
    with container(windows, {"Type": "OutBoundNAT", "ExceptionList": [PODS, SERVICES]}) as pod:
        assert ask(windows, pod, "/hostname").returncode == 28
