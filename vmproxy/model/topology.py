"""What a site file comes to: which machines carry VMs, and whose traffic goes through which of them.

Compiled once, by a pure function; everything below the command line takes these values and never the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmproxy.model import names
from vmproxy.model.net import Address, Interface
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
class Carrier:
    """A machine that carries VMs. `connection` says how it is reached, and so of which kind it is; `switch`
    is the name of the virtual switch that its VMs are connected to."""

    name: str
    connection: Hyperv | Qemu
    switch: str


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
        return self.network.address

    def host_address(self, host: Iterable[Interface]) -> Address | None:
        """Where its host, whose own addresses are `host`, is on the VM's network: the VM's way to the host's
        containers. None: nowhere."""
        if self.containers and self.containers.host_address:
            return self.containers.host_address
        return next((item.ip for item in host if item.ip in self.address.network), None)

    @property
    def node(self) -> str:
        """The Node's name that its kube-proxy asks for; a plain gateway's does not exist."""
        return self.acts_for or self.name

    def neighbour(self, addresses: Iterable[Address]) -> Address | None:
        """The first of a machine's addresses that is on the VM's network; None: none is."""
        own = self.address
        return next((item for item in addresses if item in own.network and item != own.ip), None)


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
    carrier = Carrier(host.name, connection, host.switch.name)
    vm = Vm(
        name=names.vm_name(site.name, host.name),
        site=site.name,
        host=host.name,
        account=names.account(site.name, host.name),
        size=site.vm_size(host),
        network=host.network,
        acts_for=host.acts_for,
        carrier=carrier,
        containers=host.containers,
    )
    return Member(vm, Client(host.name, carrier, Gateway((vm.address.ip,), (vm,))))
