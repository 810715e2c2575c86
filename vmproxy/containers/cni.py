"""The CNI configuration of an l2bridge network: its containers send Service traffic to the VM.

The keys of win-bridge are those of containernetworking/plugins v1.10.0 (tests/containers reads them with its
own code), those of sdnbridge the documented ones of microsoft/windows-container-networking. The policies'
settings are HNS's: hcsshim v0.15.0, hcn/hcnpolicy.go for v2 and internal/hns/hnspolicy.go for v1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from vmproxy.errors import UsageError
from vmproxy.model.names import HOST_LABEL, SITE_LABEL
from vmproxy.model.net import overlap

Plugin = Literal["win-bridge", "sdnbridge"]
Api = Literal["v1", "v2"]
Gateway = Literal["host", "vm"]

_VERSION = "1.0.0"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
"""What libcni accepts as the name of a network (pkg/utils: ValidateNetworkName)."""
_ANY_PROTOCOL = "256"
_SMALLEST = 29
"""The longest prefix of a subnet that has addresses left for containers: the first three are taken."""


@dataclass(frozen=True)
class Dns:
    """What containers ask for names. A runtime's own settings for a container win over it."""

    servers: tuple[IPv4Address, ...]
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContainerNetwork:
    """An l2bridge network of HNS, and where its containers' traffic goes. IPv4 only, as win-bridge.

    `name` is the HNS network's, by which the plugin finds it. `gateway`: whose is the containers' default
    gateway, the second address of `subnet`: the host's endpoint, whose routes lead to the VM, or the VM.
    `lan` is the host's network and `management` its address there. `isolate`: containers of this host reach
    each other through Services only. `dns` None: the runtime decides.
    """

    site: str
    host: str
    name: str
    subnet: IPv4Network
    service_cidrs: tuple[IPv4Network, ...]
    pod_cidrs: tuple[IPv4Network, ...]
    lan: IPv4Network
    management: IPv4Address
    gateway: Gateway = "host"
    plugin: Plugin = "win-bridge"
    api: Api = "v2"
    dns: Dns | None = None
    isolate: bool = False

    @property
    def next_hop(self) -> IPv4Address:
        """The containers' default gateway. win-bridge always takes the subnet's second address
        (processEndpointArgs adds 2 to the network's), so it is that one with sdnbridge too."""
        return self.subnet[2]

    @property
    def note(self) -> str:
        """What whoever sets up a runtime has to know of the gateway; empty: nothing."""
        if self.gateway == "host":
            return ""
        return (
            f"EXPERIMENTAL: the containers' default gateway is the VM at {self.next_hop}, and the host has "
            "no endpoint; no real Windows host has shown that. It is in the CNI configuration, not in this "
            "table. Docker, which uses no CNI, takes it with the network, whose making takes the network "
            f"card: docker network create -d l2bridge --subnet {self.subnet} --gateway {self.next_hop} "
            f"{self.name}"
        )

    @property
    def first(self) -> IPv4Address:
        """The first address for a container: HNS keeps .1 for itself, and .2 is the gateway's."""
        return self.subnet[3]


def file_name(site: str, host: str) -> str:
    """In the runtime's folder of CNI configurations, where the first in alphabetical order counts."""
    return f"10-vmproxy-{site}-{host}.conflist"


def text(network: ContainerNetwork) -> str:
    """The file's content. Raises UsageError as `conflist` does."""
    return json.dumps(conflist(network), indent=2) + "\n"


def conflist(network: ContainerNetwork) -> dict[str, Any]:
    """The network configuration list. libcni ignores the two labels, by which the file is known as vmproxy's.
    Raises UsageError with every fault of `network` as a detail."""
    found = list(faults(network))
    if found:
        raise UsageError(
            f"cannot write a CNI configuration for the network {network.name!r} of {network.host}",
            details=found,
            hint="change the container network's keys in the site file",
        )
    return {
        "cniVersion": _VERSION,
        "name": network.name,
        SITE_LABEL: network.site,
        HOST_LABEL: network.host,
        "plugins": [_plugin(network)],
    }


def faults(network: ContainerNetwork) -> Iterator[str]:
    """Why no plugin could use it, one sentence each."""
    if not _NAME.fullmatch(network.name):
        yield "CNI allows letters, digits, '_', '.' and '-' in a network's name, with a letter or digit first"
    if network.subnet.prefixlen > _SMALLEST:
        yield f"the subnet {network.subnet} has no addresses for containers: use /{_SMALLEST} or larger"
    if not network.service_cidrs:
        yield "there is no IPv4 Service range"
    if network.plugin == "sdnbridge" and network.api == "v1":
        yield "sdnbridge speaks HNS's API v2 only"
    for taken in (*network.service_cidrs, network.lan):
        if overlap(network.subnet, taken):
            yield f"the subnet {network.subnet} overlaps {taken}"


def _plugin(network: ContainerNetwork) -> dict[str, Any]:
    common = {
        "type": network.plugin,
        "capabilities": {"dns": True, "portMappings": True},
        **_dns(network.dns),
    }
    return {**common, **(_win_bridge if network.plugin == "win-bridge" else _sdnbridge)(network)}


def _dns(dns: Dns | None) -> dict[str, Any]:
    if dns is None:
        return {}
    search = {"search": list(dns.search)} if dns.search else {}
    return {"dns": {"nameservers": [str(server) for server in dns.servers], **search}}


def _win_bridge(network: ContainerNetwork) -> dict[str, Any]:
    """host-local must hand out neither .1 nor .2: HCN answers 0x803b002f for an address that is taken."""
    addresses = {
        "subnet": str(network.subnet),
        "rangeStart": str(network.first),
        "gateway": str(network.next_hop),
    }
    return {
        "apiVersion": 2 if network.api == "v2" else 1,
        "loopbackDSR": network.gateway == "host",
        "ipam": {"type": "host-local", "ranges": [[addresses]]},
        "policies": [{"name": "EndpointPolicy", "value": policy} for policy in policies(network)],
    }


def _sdnbridge(network: ContainerNetwork) -> dict[str, Any]:
    """HNS hands out the addresses, as in the documented example: sdnbridge passes only the subnet and the
    routes on to an IPAM plugin (cni.go: IpamConfig), so host-local would hand out .2."""
    return {
        "ipam": {"subnet": str(network.subnet), "routes": [{"GW": str(network.next_hop)}]},
        "AdditionalArgs": [{"Name": "EndpointPolicy", "Value": policy} for policy in policies(network)],
    }


def policies(network: ContainerNetwork) -> list[dict[str, Any]]:
    """The policies of each container's endpoint, in the form of the network's API."""
    wanted = [*_through_host(network)] if network.gateway == "host" else []
    wanted += _isolation(network) if network.isolate else []
    return [_form(network.api, *policy) for policy in wanted]


_Policy = tuple[str, dict[str, Any]]
"""The type and the settings, by their names in v2."""
_OF_V1 = {"SDNRoute": "ROUTE", "Exceptions": "ExceptionList"}


def _form(api: Api, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    if api == "v2":
        return {"Type": kind, "Settings": settings}
    return {
        "Type": _OF_V1.get(kind, kind),
        **{_OF_V1.get(key, key): value for key, value in settings.items()},
    }


def _through_host(network: ContainerNetwork) -> Iterator[_Policy]:
    """Into the host's own network stack, whose route leads on to the VM, and with the container's address, to
    which the VM has a route. Neither is needed if the VM is the gateway, where all traffic is sent anyway."""
    yield "OutBoundNAT", {"Exceptions": [str(cidr) for cidr in exceptions(network)]}
    for prefix in (*network.service_cidrs, IPv4Network(network.management)):
        yield "SDNRoute", {"DestinationPrefix": str(prefix), "NeedEncap": True}


def exceptions(network: ContainerNetwork) -> tuple[IPv4Network, ...]:
    """Where a container is seen with its own address, not with the host's."""
    inside = any(network.subnet.subnet_of(cidr) for cidr in network.pod_cidrs)
    own = () if inside else (network.subnet,)
    return tuple(dict.fromkeys((*network.pod_cidrs, *own, *network.service_cidrs, network.lan)))


def _isolation(network: ContainerNetwork) -> Iterator[_Policy]:
    """The lowest priority's number counts first. The gateway is in the subnet, and the host's own connections
    to a container, or the VM's, come from there. HNS's last two are needed on an l2bridge network (Felix)."""
    near = f"{network.management},{network.next_hop}"
    services = ",".join(str(cidr) for cidr in network.service_cidrs)
    yield _acl("Allow", "Out", "Switch", 1000, f"{near},{services}")
    yield _acl("Allow", "In", "Switch", 1000, near)
    for direction in ("Out", "In"):
        yield _acl("Block", direction, "Switch", 1001, str(network.subnet))
    for direction in ("Out", "In"):
        yield _acl("Allow", direction, "Switch", 1002)
    for direction in ("Out", "In"):
        yield _acl("Allow", direction, "Host", 100)


def _acl(action: str, direction: str, rule: str, priority: int, remote: str = "") -> _Policy:
    """`remote` "" is every address."""
    addresses = {"RemoteAddresses": remote} if remote else {}
    about = {"Action": action, "Direction": direction, "Protocols": _ANY_PROTOCOL, **addresses}
    return "ACL", {**about, "RuleType": rule, "Priority": priority}
