"""What was seen of a host, its VM, the guest and the cluster: plain data, no I/O.

`None` always means "observed: it does not exist". What could not be observed is `Unobservable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from vmproxy.model import names
from vmproxy.model.net import Address, Interface, Network, Route, addresses, summed


@dataclass(frozen=True)
class Unobservable:
    """Could not look, and why: `because` reads as "the VM is stopped"."""

    because: str


@dataclass(frozen=True)
class Marker:
    """What vmproxy writes on a VM that it made, so that it knows it again (Hyper-V: in the Notes).

    `address` is the VM's, with its prefix length. `seed` is the hash of what the seed is made from
    without private keys, `host_key` the guest's SSH host public key in OpenSSH form, `routes` what was
    set on the host for this VM. `recipe` names what its image was made of, `made` the day, as 2026-01-31; ""
    when that is not known. `forwarding` are the host's interfaces, by alias, on which vmproxy turned
    forwarding on, `cni` the paths of CNI configurations that it wrote there.
    """

    site: str
    host: str
    address: Interface
    seed: str
    image: str
    host_key: str
    routes: tuple[Route, ...] = ()
    recipe: str = ""
    made: str = ""
    forwarding: tuple[str, ...] = ()
    cni: tuple[str, ...] = ()


@dataclass(frozen=True)
class VmSeen:
    """The VM as its hypervisor shows it. `marker` None: not made by vmproxy.

    `settings` are the fields that resources/vm.py compares, by the same names, as the VM has them
    (running or defined). `disk` and `seed` name what is attached and exists: the image's SHA-256
    that the disk was copied from, and the seed's hash; None when the file is gone. `trace`: why a VM
    without a marker seems to be ours all the same; it stays foreign.
    """

    name: str
    running: bool
    settings: Mapping[str, Any]
    marker: Marker | None
    disk: str | None
    seed: str | None
    trace: str = ""


@dataclass(frozen=True)
class SwitchSeen:
    """A virtual switch. `reachable` False: the host itself has no port on it (`why` says how)."""

    name: str
    reachable: bool = True
    why: str = ""


@dataclass(frozen=True)
class OwnSwitchSeen:
    """The virtual switch that has the VM's name. `ours`: its Notes have our mark. `internal`: it is of that
    type. `settings` are the fields of `SwitchWanted`, by the same names, with those of the NAT. `addresses`
    are the host's on it."""

    ours: bool
    internal: bool
    settings: Mapping[str, Any]
    addresses: tuple[Interface, ...] = ()


@dataclass(frozen=True)
class Entrance:
    """How this machine gets to a VM behind its host's NAT: `host` is the host's address that it connects to,
    `controller` its own, as the host sees it."""

    host: Address
    controller: Address


@dataclass(frozen=True)
class NameRule:
    """A rule of a machine's resolver: names in its namespaces are asked of its servers. A namespace that
    begins with a dot holds all names below, else it is one name. `comment` says whose rule it is; `id` is the
    resolver's own name for it, "" for one that is still to be made."""

    namespaces: tuple[str, ...]
    servers: tuple[Address, ...]
    comment: str
    id: str = ""


@dataclass(frozen=True)
class ClientSeen:
    """A machine whose traffic goes through a VM. `routes` are all IPv4 routes but its own interfaces',
    `addresses` its own, with their networks' length. `rules` are all of its resolver but those of policies:
    `policy` is the key under which these are, and which makes the others void; None: there is none.
    `serves_dns`: it runs a DNS server for other machines."""

    routes: tuple[Route, ...]
    addresses: tuple[Interface, ...] = ()
    rules: tuple[NameRule, ...] = ()
    policy: str | None = None
    serves_dns: bool = False


@dataclass(frozen=True)
class InterfaceSeen:
    """A network interface of a host, by the name that Windows shows; `forwards`: packets of others too."""

    alias: str
    addresses: tuple[Address, ...]
    forwards: bool


@dataclass(frozen=True)
class AccessRule:
    """An ACL policy of a container's adapter. `remote` are the networks that it is about; () all."""

    action: Literal["allow", "block"]
    direction: Literal["in", "out"]
    remote: tuple[Network, ...]


@dataclass(frozen=True)
class HnsEndpoint:
    """A container's adapter, as HNS shows it. `encapsulated`: what its SDNRoute (ROUTE) policies with
    NeedEncap give to the host's own stack. `exceptions`: what its OutBoundNAT leaves the container's own
    address; None: it has no such policy."""

    name: str
    address: Address
    gateway: Address | None
    encapsulated: tuple[Network, ...]
    exceptions: tuple[Network, ...] | None
    rules: tuple[AccessRule, ...] = ()


@dataclass(frozen=True)
class HnsNetwork:
    """An HNS network; `kind` as l2bridge, transparent or nat. `gateways`: of those subnets that have one."""

    name: str
    kind: str
    subnets: tuple[Network, ...]
    gateways: Mapping[Network, Address] = field(default_factory=dict)


@dataclass(frozen=True)
class CniSeen:
    """The file of vmproxy's name among the container runtime's CNI configurations. `sha256` of its content;
    None: there is none. `ours`: it has our labels. `others` are the names of the files beside it. `folder`:
    whether that is there."""

    sha256: str | None
    ours: bool = False
    others: tuple[str, ...] = ()
    folder: bool = True


@dataclass(frozen=True)
class ContainersSeen:
    """What a host has of containers. `networks` are all HNS networks; None: HNS is not there or does not run.
    `endpoints` are those of containers on the network that was asked about, `interfaces` the host's on the
    VM's network and in the containers' subnet. `rival` is a native kube-proxy that runs; None: none does.
    `cni` None: nobody asked."""

    networks: tuple[HnsNetwork, ...] | None
    endpoints: tuple[HnsEndpoint, ...] = ()
    interfaces: tuple[InterfaceSeen, ...] = ()
    rival: str | None = None
    cni: CniSeen | None = None


@dataclass(frozen=True)
class CarrierSeen:
    """A machine that carries VMs, and the one VM of it that was asked about.

    `images` are the hashes of the base images on it. Sizes are bytes. `renamed` is the name that our VM has
    now, when it is not the wanted one. `leftovers` are files of ours without a VM, known only when there is
    no VM. `mac_pool`: the first and the last of the addresses that it gives away itself. `own`: the switch
    that has the VM's name. `nats` are the host's NAT networks, by name, looked at only where such a switch
    exists or is wanted; and so is `entrance`, None where none is found.
    """

    vm: VmSeen | None
    switch: SwitchSeen | None
    images: frozenset[str] = frozenset()
    free_memory: int = 0
    free_disk: int = 0
    leftovers: tuple[str, ...] = ()
    renamed: str | None = None
    mac_pool: tuple[str, str] | None = None
    own: OwnSwitchSeen | None = None
    nats: Mapping[str, str] = field(default_factory=dict)
    entrance: Entrance | None = None

    @property
    def marker(self) -> Marker | None:
        """None: there is no VM of vmproxy's."""
        return self.vm.marker if self.vm else None


@dataclass(frozen=True)
class FileSeen:
    """A managed file in the guest; `sha256` of its content, `mode` as "0644", `owner` and `group` as "root".
    `kind`: what is in its place: "file", or else "link", "folder" or "special", and then without content."""

    sha256: str
    mode: str
    owner: str
    group: str = "root"
    kind: str = "file"


@dataclass(frozen=True)
class FolderSeen:
    """A folder in the guest that is vmproxy's own, as FileSeen; `kind`: "folder", or what is in its place."""

    mode: str
    owner: str
    group: str
    kind: str


@dataclass(frozen=True)
class UnitSeen:
    """A systemd unit. `stale`: it runs, but was started before a file that it uses changed. `drop_ins`: files
    that change it from beside its own."""

    active: bool
    enabled: bool
    stale: bool
    failed: bool = False
    drop_ins: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenSeen:
    """The claims of the token in the guest, never the token. Times are seconds since the epoch."""

    subject: str
    uid: str
    issued: int
    expires: int


@dataclass(frozen=True)
class ProxySeen:
    """kube-proxy as it answers. None fields: the endpoint did not answer.

    `mode` from /proxyMode; `live` from /livez or /healthz; times are seconds since the epoch;
    `failures` sums the rule sync failure counters; `denied` counts 401 and 403 answers of the API. `age`:
    the seconds that it has run; None: it does not run, or nobody knows.
    """

    live: bool
    mode: str | None
    last_synced: float
    last_queued: float
    failures: int
    denied: int
    version: str | None = None
    age: float | None = None


@dataclass(frozen=True)
class CanarySeen:
    """The way from the guest through its kube-proxy to the API server. `rule`: kube-proxy has one for it.
    `status` of a request with the guest's token; 0: no answer, and `why` if it was tried."""

    rule: bool
    status: int
    why: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Endpoints on a Node that get no route: `address` is one of `count`; 0: all of the Node's pods, and
    `address` is its podCIDR's. `why`: the Node is "unknown" in the VM, or "elsewhere" than on its network, or
    the address is "refused", as no route may lead there. Over VXLAN: the Node is "foreign" to it, "apart" in
    one with another VNI, or another Node has "taken" its podCIDR or its device's address."""

    why: Literal["unknown", "elsewhere", "refused", "foreign", "apart", "taken"]
    node: str
    address: Address
    count: int


@dataclass(frozen=True)
class PodRoutesSeen:
    """What the guest's keeper of routes to pods says of itself.

    `mode` is the one that it runs in. `listed`: it knows the endpoints. `routes` are set, `failed` are not.
    `api`: why it does not follow the API server now; empty: it does, and `since` when (seconds since the
    epoch). `left`: what gets no route, and `more` that is not listed.
    """

    mode: str
    listed: bool
    routes: int
    failed: int
    api: str
    since: float
    left: tuple[LeftOut, ...] = ()
    more: int = 0


@dataclass(frozen=True)
class ApiServer:
    """The API server as the guest reaches it: where its URL leads. `name` is the one in its certificate,
    `ca` a file in the guest."""

    host: str
    port: int
    path: str
    name: str
    ca: str


@dataclass(frozen=True)
class GuestQuery:
    """What to look at in the guest: files and folders by path; units and sysctls by name. `token` and
    `renewal` are the files with kube-proxy's token and the one that renews it, both among `files`. `canary`
    is (ClusterIP, port) of default/kubernetes; None: it is not tried. So it is for `api`, which the second
    token is for."""

    files: tuple[str, ...]
    units: tuple[str, ...]
    sysctls: tuple[str, ...]
    token: str
    renewal: str
    canary: tuple[Address, int] | None = None
    api: ApiServer | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestSeen:
    """The VM from inside. Paths missing from `files` do not exist; sysctls by their dotted name.

    `guard` is the hash of guard.nft as it was loaded, "changed" when the kernel's table is no longer so, None
    when there is no table.
    `routes` are those that carry vmproxy's protocol number, and the default route. `now` is its clock.
    `writes_rules`: nft or iptables is there; an image may get them by cloud-init. `canary` None: not tried.
    `renewal`: the API server's status for the token that renews the other; 0: no answer, or there is none.
    `drops`: packets that the guard table dropped, by the name of its counter. `repairs`: what the keeper has
    repaired since the VM started, and how often. `addresses` are those of its interface, of which vmproxy
    added `added`; `dns` are the servers that it asks. `blockers` are chains of others that drop forwarded
    packets, for a reader. `pod_routes`: of what keeps the routes to pods; None: it has not run.
    """

    files: Mapping[str, FileSeen]
    units: Mapping[str, UnitSeen]
    sysctls: Mapping[str, str]
    guard: str | None
    routes: tuple[Route, ...]
    token: TokenSeen | None
    proxy: ProxySeen
    kernel: str
    writes_rules: bool
    nft: str | None
    now: float
    canary: CanarySeen | None = None
    renewal: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    repairs: Mapping[str, int] = field(default_factory=dict)
    folders: Mapping[str, FolderSeen] = field(default_factory=dict)
    addresses: tuple[Interface, ...] = ()
    added: tuple[Interface, ...] = ()
    dns: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    pod_routes: PodRoutesSeen | None = None


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """`system` is its operating system, for a reader; `flannel` the back-end that flannel announces on it.
    Both are empty where it has none."""

    name: str
    internal_ips: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    system: str = ""
    flannel: str = ""


@dataclass(frozen=True, slots=True)
class DnsSeen:
    """The cluster's DNS: the domain of its names, as cluster.local, and the Service that knows them."""

    domain: str
    server: Address

    def name(self, service: str) -> str:
        """Of a Service that is written as "namespace/name"."""
        namespace, _, name = service.partition("/")
        return f"{name}.{namespace}.svc.{self.domain}"


@dataclass(frozen=True)
class ClusterSeen:
    """What VMs need to know of the cluster, and the identity of one of them.

    `version` is the API server's, as v1.36.3. `service_cidrs` in the cluster's order, IPv4 first.
    `pod_cidrs` are the site file's; the Nodes' are in `nodes`.
    `canary` is (ClusterIP, port) of a Service with an IPv4 address: default/kubernetes, else another one.
    `identity` holds the live objects of one VM's identity by "kind/name", without those that do not exist;
    {}: as of a look at what all VMs share. A Secret has its token's SHA-256 as `data.token`, or no data when
    it holds no token of its account. `accounts` are all ServiceAccounts of vmproxy.
    `ca` is the CA bundle, PEM, of `server`, the API's URL as the VM reaches it; `tls_server_name` is the name
    in its certificate, None for the one in the URL. `cluster_ca` is the CA of what answers at the
    ClusterIP of default/kubernetes: another one where the API is behind a front; "" when it is not known.
    `dns` None: nobody asked for it. `flannel_port` is the UDP port of flannel's VXLAN; None: neither the site
    file nor the cluster says it, or nobody asked for it.
    """

    version: str
    server: str
    ca: str
    service_cidrs: tuple[Network, ...]
    pod_cidrs: tuple[Network, ...]
    nodes: tuple[NodeSeen, ...]
    canary: tuple[Address, int]
    accounts: tuple[str, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    tls_server_name: str | None = None
    cluster_ca: str = ""
    dns: DnsSeen | Unobservable | None = None
    flannel_port: int | None = None

    @property
    def vxlan_port(self) -> int:
        """8472 is Linux' own, and so that of flannel and k3s where nothing else is set."""
        return self.flannel_port or 8472

    @property
    def pod_ranges(self) -> tuple[Network, ...]:
        """The site file's, else those of the Nodes; none where the cluster's network plugin tells no Node."""
        return self.pod_cidrs or summed(cidr for node in self.nodes for cidr in node.pod_cidrs)

    @property
    def server_addresses(self) -> tuple[Address, ...]:
        """Of the API server; none where it is known by its name."""
        return tuple(addresses([urlsplit(self.server).hostname or ""]))

    def uid(self, account: str) -> str | None:
        """Of that ServiceAccount, if it was asked about; None: it does not exist."""
        found = self.identity.get(names.key("ServiceAccount", account))
        return str(found["metadata"]["uid"]) if found else None

    def renewal(self, account: str) -> str | None:
        """The SHA-256 of the token with which that account's VM renews its own; None: there is none yet."""
        found = self.identity.get(names.key("Secret", names.renewal(account)))
        return (found.get("data") or {}).get("token") if found else None


@dataclass(frozen=True, slots=True)
class Grant:
    """An object in the cluster, whoever made it, that gives a ServiceAccount in vmproxy's namespace rights,
    or holds its token: `what`, before the account's name. `name` is as in "rolebinding/namespace/name"."""

    account: str
    name: str
    what: str


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """One address behind a Service. `ports`: where it listens, by the Service's (port, protocol). `node`: the
    Node that it is on; None: nobody says."""

    ip: Address
    ready: bool
    ports: Mapping[tuple[int, str], int]
    node: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A Service with a ClusterIP. `name` is "namespace/name", protocols are as in "tcp". `local`: it has
    internalTrafficPolicy: Local, so that kube-proxy knows only the endpoints on its own Node."""

    name: str
    cluster_ip: Address
    ports: tuple[tuple[int, str], ...]
    endpoints: tuple[EndpointSeen, ...]
    local: bool = False

    def usable(self, node: str | None) -> bool:
        """Whether kube-proxy for that Node has a ready endpoint. None: it is of no Node."""
        return any(item.ready and (not self.local or item.node == node) for item in self.endpoints)


@dataclass(frozen=True)
class CloudInit:
    """`errors` are those of all its stages, known when it has ended."""

    ended: bool
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """Where something should answer the VM."""

    address: Address
    port: int
    protocol: Literal["tcp", "udp"]


@dataclass(frozen=True)
class Reach:
    """How the VM reaches an endpoint. `why` None: it does. `silent`: nothing came back. `refused`: the
    machine answers, the port does not. `via`: the next hop there; None on the own link, with no way at
    all, or when it is reached."""

    why: str | None
    silent: bool
    refused: bool
    via: Address | None
