"""HNS, the host networking service: container networks, their endpoints, and containers that are on them.

What cmdlets show of it is in cmdlets.py. `Hns` plays the part of those who make networks and containers on a
real host: flannel, a CNI plugin, containerd, Docker. It is `WinHost.hns`, or `Hns(state)` without WinRM:

    network = host.hns.create_network({"Name": "cbr0", "Type": "L2Bridge", "Subnets": [
        {"AddressPrefix": "10.244.9.0/24", "GatewayAddress": "10.244.9.1"}]})
    host.hns.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")      # vEthernet (cbr0_ep)
    endpoint = host.hns.create_endpoint({"Name": "pod", "VirtualNetwork": network, "IPAddress": "10.244.9.10",
        "GatewayAddress": "10.244.9.2", "Policies": [
            {"Type": "OutBoundNAT", "ExceptionList": ["10.96.0.0/16"]},
            {"Type": "ROUTE", "DestinationPrefix": "10.96.0.0/16", "NeedEncap": True}]})
    pod = host.hns.start_container("web", endpoint)                      # runs, and crictl.exe knows it
    host.hns.run(pod, "curl", "--silent", "http://10.96.0.50/")          # this machine's, in its network

The same in HCN's form has HostComputeNetwork, IpConfigurations, Routes, policies with Settings, and
SchemaVersion. A native kube-proxy is `host.state.part(System).start("kube-proxy.exe")` and
`host.hns.create_load_balancer("10.96.0.10")`.

A container is a real network namespace, and its packets go where HNS's policies send them: see filtering.py.
All of it is gone when the host ends, also when its process is killed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid5

from tests.winhost import programs
from tests.winhost.hns import cmdlets, nat, wiring
from tests.winhost.hns.calls import hns_call
from tests.winhost.hns.errors import HnsError
from tests.winhost.hns.store import Container, Form, Store, store
from tests.winhost.state import Host
from vmproxy.util import netns

__all__ = ["Container", "Hns", "HnsError", "Store", "close", "cmdlets", "hns_call", "rebooting", "store"]

SERVER_CORE = frozenset({"curl.exe", "powershell.exe"})
NANO_SERVER = frozenset({"curl.exe"})
OLD_NANO_SERVER: frozenset[str] = frozenset()
"""Of an image before 1809: no curl."""
_CONTAINERS = UUID("4f2c9a0e-3b0c-4c0e-9a53-2f5a8f3f9d10")
Runtime = Literal["containerd", "docker"]
_PROGRAMS = {"containerd": "crictl.exe", "docker": "docker.exe"}
close = wiring.close


@dataclass(frozen=True)
class Hns:
    """Those who change HNS. Errors of HNS are HnsError; what is not emulated is a CmdletError."""

    host: Host

    def call(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        """HNSCall's Output."""
        answer = json.loads(hns_call(self.host, method, path, json.dumps(document) if document else ""))
        if not answer["Success"]:
            raise HnsError(answer["ErrorCode"], told=answer["Error"])
        return answer["Output"]

    def create_network(self, document: Mapping[str, Any]) -> str:
        """Of either version's JSON; returns its ID."""
        return str(self.call("POST", "/networks", document)["ID"])

    def remove_network(self, network: str) -> None:
        """With all endpoints and containers on it."""
        self.call("DELETE", f"/networks/{network}")

    def create_endpoint(self, document: Mapping[str, Any]) -> str:
        """Of either version's JSON; returns its ID. It is real once it is attached."""
        return str(self.call("POST", "/endpoints", document)["ID"])

    def set_policies(self, endpoint: str, policies: Sequence[Mapping[str, Any]]) -> None:
        """In the place of those that it has, of either version; they take effect at once."""
        self.call("POST", f"/endpoints/{endpoint}", {"Policies": list(policies)})

    def remove_endpoint(self, endpoint: str) -> None:
        self.call("DELETE", f"/endpoints/{endpoint}")

    def create_load_balancer(self, *vips: str) -> str:
        """As the native kube-proxy makes them; only seen, without an effect on packets. Returns its ID."""
        balancer = {"Type": "ELB", "Protocol": 6, "InternalPort": 80, "ExternalPort": 80, "VIPs": list(vips)}
        return str(self.call("POST", "/policylists", {"References": [], "Policies": [balancer]})["ID"])

    def attach_host_endpoint(self, network: str, name: str, address: str) -> str:
        """Make an endpoint and attach it to the host: the interface `vEthernet (NAME)`; returns its ID."""
        about = {"Name": name, "VirtualNetwork": network, "IPAddress": address}
        endpoint = self.create_endpoint(about)
        self.call("POST", f"/endpoints/{endpoint}/attach", {"SystemType": "Host", "CompartmentId": 1})
        return endpoint

    def start_container(
        self,
        name: str,
        endpoint: str,
        *,
        runtime: Runtime = "containerd",
        pod: str = "",
        image: str = "mcr.microsoft.com/windows/servercore:ltsc2022",
        programs_of_image: frozenset[str] = SERVER_CORE,
    ) -> Container:
        """A running container with that endpoint; crictl.exe or docker.exe of the host know it.

        `pod` is the pod's name; empty: the container's.
        """
        number = uuid5(_CONTAINERS, f"{endpoint} {name}").hex * 2
        attach = {"SystemType": "Container", "ContainerId": number}
        self.call("POST", f"/endpoints/{endpoint}/attach", attach)
        wired = store(self.host).endpoint(endpoint).wired
        assert wired is not None
        made = Container(
            number, name, runtime, pod or name, image, programs_of_image, endpoint.upper(), wired.namespace
        )
        store(self.host).containers[number] = made
        self.install(runtime)
        return made

    def stop_container(self, container: Container) -> None:
        """It ends and is removed; its endpoint stays."""
        attach = {"SystemType": "Container", "ContainerId": container.id}
        self.call("POST", f"/endpoints/{container.endpoint}/detach", attach)

    def install(self, runtime: Runtime) -> None:
        """crictl.exe or docker.exe on the host's PATH; it may know no container."""
        programs.add(self.host.folder / "programs", _PROGRAMS[runtime], self.host.version)

    def show_policies_as(self, form: Form) -> None:
        """How the cmdlets show policies that HCN was given."""
        store(self.host).shown = form

    def run(
        self, container: Container, *command: str, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """A program of this machine, such as curl or ip, in the container's network."""
        return subprocess.run(
            netns.run_in(container.namespace, command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@contextmanager
def rebooting(host: Host) -> Iterator[None]:
    """Around the reboot of the host's own network: containers end; the host's interfaces are made anew.

    They have Windows' defaults then: no forwarding, and another index.
    """
    part = store(host)
    again = [one for one in part.endpoints.values() if one.wired and not one.wired.container]
    for kept in part.endpoints.values():
        wiring.detach(host, kept)
    natted = [one for one in part.networks.values() if one.Type.lower() == "nat"]
    for about in natted:
        nat.stop(host, about)
    yield
    for about in natted:
        nat.start(host, about)
    for kept in again:
        hns_call(
            host, "POST", f"/endpoints/{kept.about.ID}/attach", '{"SystemType": "Host", "CompartmentId": 1}'
        )
