"""What a site file comes to: which machines carry VMs, and whose traffic goes through which of them.

Compiled once, by a pure function; everything below the command line takes these values and never the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, ip_interface

from vmproxy.model import names
from vmproxy.model.net import Address, Interface, overlap
from vmproxy.site.model import (
    CloudInit,
    Cluster,
    Containers,
    Dns,
    Host,
    Hyperv,
    Image,
    Network,
    Proxy,
    Qemu,
    Site,
    Ssh,
)
from vmproxy.site.model import Vm as Size


@dataclass(frozen=True)
class OwnSwitch:
    """An Internal switch that vmproxy makes for one VM, under that VM's name. `mark` in its Notes makes it
    ours; `host` is the host's own address on it, `vm` the VM's. `nat`: the host translates what leaves its
    network; else the host only forwards it, and the LAN needs a route back."""

    name: str
    mark: str
    host: Interface
    vm: Address
    nat: bool


@dataclass(frozen=True)
class Carrier:
    """A machine that carries VMs. `connection` says how it is reached, and so of which kind it is; `switch`
    is the name of the virtual switch that its VMs are connected to. `own` None: it is somebody else's."""

    name: str
    connection: Hyperv | Qemu
    switch: str
    own: OwnSwitch | None = None


@dataclass(frozen=True)
class Vm:
    """A VM that runs kube-proxy. `site` and `host` are its owner, as its marker and its labels say; `account`
    is its ServiceAccount; `acts_for` the Node that it proxies for, None for a plain gateway. `containers` are
    those of its host that it serves, None for none."""

    name: str
    site: str
    host: str
    account: str
    size: Size
    network: Network
    acts_for: str | None
    carrier: Carrier
    containers: Containers | None = None

    @property
    def address(self) -> Interface:
        """The one that it is to have."""
        assert self.network.address is not None  # compile_site gives it one
        return self.network.address

    def host_address(self, host: Iterable[Interface]) -> Address | None:
        """Where its host, whose own addresses are `host`, is on the VM's network: the VM's way to the host's
        containers. None: nowhere."""
        if self.containers and self.containers.host_address:
            return self.containers.host_address
        return next((item.ip for item in host if item.ip in self.address.network), None)

    @property
    def inside(self) -> IPv4Interface | None:
        """Its second address, in the containers' subnet, whose gateway it is; None: it is not. The same as
        ContainerNetwork.next_hop."""
        asked = self.containers
        if asked is None or asked.gateway != "vm":
            return None
        return IPv4Interface(f"{asked.subnet[2]}/{asked.subnet.prefixlen}")

    @property
    def gateway(self) -> Address:
        """Its own default gateway."""
        assert self.network.gateway is not None  # as the address
        return self.network.gateway

    @property
    def node(self) -> str:
        """The Node's name that its kube-proxy asks for; a plain gateway's does not exist."""
        return self.acts_for or self.name

    def near(self, host: Iterable[Interface]) -> tuple[Interface, ...]:
        """Where the machine that has the routes to pods is: the VM, or with a switch of its own the host,
        whose addresses are `host`, beside that switch."""
        if self.carrier.own is None:
            return (self.address,)
        return tuple(item for item in host if not overlap(item.network, self.address.network))

    @property
    def near_what(self) -> str:
        """The networks of `near`, for a reader."""
        return "a network of the host" if self.carrier.own else "the VM's network"

    def neighbour(
        self, addresses: Iterable[Address], near: Iterable[Interface] | None = None
    ) -> Address | None:
        """The first of a machine's addresses that is on a network of `near`, by default on the VM's own.
        None: none is."""
        owns = (self.address,) if near is None else tuple(near)
        return next(
            (item for item in addresses for own in owns if item in own.network and item != own.ip), None
        )


@dataclass(frozen=True)
class Gateway:
    """Where clients send Service traffic: an address of a family each, and the VMs behind it."""

    addresses: tuple[Address, ...]
    vms: tuple[Vm, ...]


@dataclass(frozen=True)
class Client:
    """A machine whose routes lead the Service ranges to `gateway`. It is reached as `carrier` is."""

    name: str
    carrier: Carrier
    gateway: Gateway


@dataclass(frozen=True)
class Member:
    """One entry of the site file's `hosts`: today one of each."""

    vm: Vm
    client: Client

    @property
    def name(self) -> str:
        return self.client.name

    @property
    def carrier(self) -> Carrier:
        return self.vm.carrier


@dataclass(frozen=True)
class Topology:
    """Everything desired: what belongs to the site as a whole, and its members. `dns` None: the clients do
    not get the cluster's names."""

    name: str
    cluster: Cluster
    proxy: Proxy
    dns: Dns | None
    image: Image
    cloud_init: CloudInit
    ssh: Ssh
    members: tuple[Member, ...]

    @property
    def over_vxlan(self) -> bool:
        """Whether a VM sends to pods over flannel's VXLAN."""
        return any(member.vm.network.pod_routes == "flannel" for member in self.members)


def compile_site(site: Site) -> Topology:
    return Topology(
        name=site.name,
        cluster=site.cluster,
        proxy=site.proxy,
        dns=site.dns,
        image=site.image,
        cloud_init=site.cloud_init,
        ssh=site.ssh,
        members=tuple(_member(site, host) for host in site.hosts),
    )


def _member(site: Site, host: Host) -> Member:
    connection = host.hyperv or host.qemu
    assert connection is not None  # the site file's check
    network, own = host.network, _own_switch(site, host)
    if own is not None:
        address = ip_interface(f"{own.vm}/{own.host.network.prefixlen}")
        network = network.model_copy(update={"address": address, "gateway": own.host.ip})
    carrier = Carrier(host.name, connection, own.name if own else host.switch.name, own)
    vm = Vm(
        name=names.vm_name(site.name, host.name),
        site=site.name,
        host=host.name,
        account=names.account(site.name, host.name),
        size=site.vm_size(host),
        network=network,
        acts_for=host.acts_for,
        carrier=carrier,
        containers=host.containers,
    )
    return Member(vm, Client(host.name, carrier, Gateway((vm.address.ip,), (vm,))))


def _own_switch(site: Site, host: Host) -> OwnSwitch | None:
    """The host has the network's first address, the VM the second one unless the site file says another."""
    network: IPv4Network | None = host.switch.internal
    if network is None:
        return None
    return OwnSwitch(
        name=names.vm_name(site.name, host.name),
        mark=names.mark(site.name, host.name),
        host=ip_interface(f"{network[1]}/{network.prefixlen}"),
        vm=host.network.address.ip if host.network.address else network[2],
        nat=host.switch.nat,
    )
