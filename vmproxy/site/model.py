"""The site file, the desired state, as frozen pydantic models. load.py reads the file."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path, PureWindowsPath
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic.alias_generators import to_camel

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LONGEST_LABEL = 63
_ADDRESS_FORM = "write an IPv4 address, such as 192.168.10.1"
_NETWORK_FORM = "write an IPv4 network, such as 10.96.0.0/16"
_INTERFACE_FORM = "write an IPv4 address with prefix length, such as 192.168.10.5/24"


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("use lower-case letters, digits and '-', with a letter or digit at both ends")
    return text


def _memory(value: object) -> int:
    """Text such as 512MiB or 1GiB, to bytes."""
    match = re.fullmatch(r"(\d{1,9})\s*(MiB|GiB)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError("write a size with its unit, such as 512MiB or 2GiB")
    size = int(match[1]) << {"MiB": 20, "GiB": 30}[match[2]]
    if not 256 << 20 <= size <= 1 << 40:
        raise ValueError("should be at least 256MiB and at most 1024GiB")
    if size % (2 << 20):
        raise ValueError("should be a multiple of 2MiB, as Hyper-V takes no other sizes")
    return size


_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")


def _duration(value: object) -> int:
    """Text such as 24h, 90m or 1h30m, to seconds."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match or not value:
        raise ValueError("write a duration such as 24h, 90m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _boot_timeout(value: object) -> int:
    seconds = _duration(value)
    if not 10 <= seconds <= 3600:
        raise ValueError("should be at least 10s and at most 1h")
    return seconds


def _lifetime(value: object) -> int:
    lifetime = _duration(value)
    if lifetime < 600:
        raise ValueError("should be at least 10m, the minimum in Kubernetes")
    if lifetime >= 1 << 32:
        raise ValueError("should be at most 1193046h, the maximum in Kubernetes")
    return lifetime


def _version(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"v1\.\d+\.\d+", value):
        raise ValueError("write a version such as v1.36.3")
    return value


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("write a SHA-256 as 64 lower-case hexadecimal digits, in quotes")
    return value


def _address(value: object) -> object:
    return _parsed(value, IPv4Address, form=_ADDRESS_FORM)


def _network(value: object) -> object:
    if isinstance(value, str) and "/" not in value:
        raise ValueError(_NETWORK_FORM)
    loose = _parsed(value, IPv4Interface, form=_NETWORK_FORM)
    if isinstance(loose, IPv4Interface) and loose.ip != loose.network.network_address:
        raise ValueError(f"{value} is not the first address of its network: write {loose.network}")
    return loose.network if isinstance(loose, IPv4Interface) else loose


def _interface(value: object) -> object:
    if isinstance(value, str) and "/" not in value:
        raise ValueError(_INTERFACE_FORM)
    return _parsed(value, IPv4Interface, form=_INTERFACE_FORM)


def _parsed(value: object, kind: type[IPv4Address], *, form: str) -> object:
    """Accepts text only: pydantic would also accept a number as an address."""
    if isinstance(value, (IPv4Address, IPv4Network)):
        return value
    if not isinstance(value, str):
        raise ValueError(form)
    try:
        return kind(value)
    except ValueError as exc:
        raise ValueError(form) from exc


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    """Expands `~`; resolves a relative path against the folder given as validation context, if any."""
    try:
        expanded = path.expanduser()
    except RuntimeError as exc:
        raise ValueError(f"no home folder for {path.parts[0]}") from exc
    return Path(info.context, expanded) if info.context else expanded


_LONGEST_FOLDER = 120


def _windows_folder(text: str) -> str:
    """Normalises to backslashes, without one at the end."""
    path = PureWindowsPath(text)
    parts = path.parts[1:]
    whole = re.fullmatch("[A-Za-z]:", path.drive) and path.is_absolute() and parts and ".." not in parts
    if not whole or set('"<>|?*:') & set("".join(parts)):
        raise ValueError(r"write a folder on a drive of the host, such as C:\ProgramData\vmproxy")
    if len(str(path)) > _LONGEST_FOLDER:
        raise ValueError(f"should have at most {_LONGEST_FOLDER} characters: Windows' paths end at 260")
    if len(parts) > 1 and parts[0].lower() == "clusterstorage":
        raise ValueError("should not be on a Cluster Shared Volume: other nodes use it, too")
    return str(path)


_HTTP_URL: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)


def _endpoint(value: object) -> str:
    """As it is written: AnyHttpUrl drops a port that is the scheme's own, which is not WinRM's."""
    try:
        _HTTP_URL.validate_python(value)
    except ValidationError as exc:
        raise ValueError(exc.errors()[0]["msg"]) from exc
    return str(value).strip()


def _node(text: str) -> str:
    for label in text.split("."):
        _label(label)
    return text


def _domain(text: str) -> str:
    labels = text.split(".")
    for label in labels:
        _label(label)
    if labels[-1] == "arpa" or any(len(label) > _LONGEST_LABEL for label in labels):
        raise ValueError("write the domain of the cluster's names, such as cluster.local")
    return text


Name = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_label)]
Domain = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_domain)]
NodeName = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_node)]
Text = Annotated[str, Field(min_length=1)]
Memory = Annotated[int, BeforeValidator(_memory, json_schema_input_type=str)]
Lifetime = Annotated[int, BeforeValidator(_lifetime, json_schema_input_type=str)]
BootTimeout = Annotated[int, BeforeValidator(_boot_timeout, json_schema_input_type=str)]
Sha256 = Annotated[str, BeforeValidator(_sha256, json_schema_input_type=str)]
Version = Annotated[str, BeforeValidator(_version, json_schema_input_type=str)]


def _clients(value: object) -> object:
    """An address is a network of one."""
    if value is None or value == "any":
        return value
    if not isinstance(value, list | tuple):
        raise ValueError("write any, or a list of networks and addresses, such as [192.168.10.0/24]")
    return [f"{item}/32" if isinstance(item, str) and "/" not in item else item for item in value]


Address = Annotated[IPv4Address, BeforeValidator(_address, json_schema_input_type=str)]
Cidr = Annotated[IPv4Network, BeforeValidator(_network, json_schema_input_type=str)]
Interface = Annotated[IPv4Interface, BeforeValidator(_interface, json_schema_input_type=str)]
WindowsFolder = Annotated[str, AfterValidator(_windows_folder)]
LocalPath = Annotated[Path, AfterValidator(_in_folder)]


def _api_server(url: AnyHttpUrl) -> AnyHttpUrl:
    """vmproxy sends the VM's token to this URL, and shows the URL in its output."""
    if url.scheme != "https" or url.username or url.password or url.query or url.fragment:
        raise ValueError("write it as https://host:6443, with nothing secret in it")
    if why := unreachable_from_a_vm((url.host or "").strip("[]")):
        raise ValueError(f"{why}: write the URL at which the VM reaches the API server")
    return url


def unreachable_from_a_vm(host: str) -> str | None:
    """Why no VM reaches a server at that name or address; None: one may."""
    try:
        address = ip_address(host)
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
        return "it is on this machine's loopback" if local else None
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback or mapped.is_unspecified:
        return "it is on this machine's loopback"
    return "it is an IPv6 address, and the VM has IPv4 only" if address.version == 6 else None


Endpoint = Annotated[str, BeforeValidator(_endpoint, json_schema_input_type=AnyHttpUrl)]
ApiServer = Annotated[AnyHttpUrl, AfterValidator(_api_server)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class SecretFromEnv(_Model):
    """A secret in an environment variable."""

    env: Text
    """The variable's name."""


class SecretFromFile(_Model):
    """A secret in a file."""

    file: LocalPath
    """The file's path, relative to the site file."""


SecretRef = SecretFromEnv | SecretFromFile


class Cluster(_Model):
    """The cluster. Omitted values come from the usual kubeconfig rules and from the cluster itself."""

    kubeconfig: LocalPath | None = None
    """The operator's kubeconfig; if omitted: $KUBECONFIG, then ~/.kube/config."""
    context: Text | None = None
    """The kubeconfig context; if omitted: the current context."""
    server: ApiServer | None = None
    """URL of the API server as the VM reaches it; if omitted: as in the kubeconfig, unless loopback."""
    service_cidrs: Annotated[tuple[Cidr, ...], Field(alias="serviceCIDRs")] = ()
    """The Service ranges; if omitted: read from the cluster."""
    pod_cidrs: Annotated[tuple[Cidr, ...], Field(alias="podCIDRs")] = ()
    """The pod ranges, for kube-proxy's clusterCIDR; if omitted: none, which a gateway does not need."""
    flannel_port: Annotated[int, Field(ge=1, le=65535, strict=True)] | None = None
    """The UDP port of flannel's VXLAN; if omitted: as in its ConfigMap, else 8472."""


class Binary(_Model):
    """A kube-proxy binary from another source: a mirror, or a file (file:///…)."""

    url: AnyUrl
    """URL of the binary: https://, http:// or file:///."""
    sha256: Sha256
    """The binary's SHA-256."""


class Proxy(_Model):
    """kube-proxy. `version` None: the cluster's, later kept while it fits. `token_ttl` is in seconds."""

    version: Version | None = None
    """kube-proxy's version, such as v1.36.3; if omitted: the cluster's, later kept while it fits."""
    mode: Literal["auto", "iptables", "nftables"] = "auto"
    """kube-proxy's mode; auto: nftables if version and kernel are new enough."""
    token_ttl: Annotated[Lifetime, Field(alias="tokenTTL")] = 86400
    """Lifetime of the VM's token, at least 10m; the VM renews the token after half of it."""
    binary: Binary | None = None
    """Where the binary comes from; if omitted: the release site."""


class Dns(_Model):
    """The cluster's names on the hosts."""

    domain: Domain | None = None
    """The domain of the cluster's names, such as cluster.local; if omitted: found in the cluster."""
    server: Address | None = None
    """The address of the cluster's DNS Service; if omitted: found in the cluster."""


class Image(_Model):
    """The base image: one of `name` (an image already built or fetched), `path`, or `url` with `sha256`."""

    name: Text | None = None
    """The name of a built or fetched image, as in `vmproxy image list`."""
    path: LocalPath | None = None
    """An image file: raw, qcow2 or VHDX."""
    url: AnyUrl | None = None
    """URL of an image to fetch; requires sha256."""
    sha256: Sha256 | None = None
    """SHA-256 of the file at url."""


class CloudInit(_Model):
    """The user's own cloud-init, merged over the built-in one."""

    user_data: LocalPath | None = None
    """A jinja2 template of a #cloud-config."""


class Ssh(_Model):
    """`identity` None: vmproxy generates a key and keeps it in its state folder."""

    identity: SecretFromFile | None = None
    """The private key with which vmproxy logs in to its VMs; if omitted: generated and kept."""


class Vm(_Model):
    """The VM's size; memory in bytes. `boot_timeout` in seconds, from power-on to SSH."""

    cpus: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Virtual CPUs."""
    memory: Memory = 512 << 20
    """Memory, such as 512MiB; at least 256MiB."""
    boot_timeout: BootTimeout = 420
    """How long the VM may take from power-on to SSH, such as 7m."""


class VmOverride(_Model):
    """A host's own VM size; None: the value from `defaults`."""

    cpus: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    """Virtual CPUs."""
    memory: Memory | None = None
    """Memory, such as 512MiB; at least 256MiB."""
    boot_timeout: BootTimeout | None = None
    """How long the VM may take from power-on to SSH, such as 7m."""


class Defaults(_Model):
    """Defaults for all hosts; a host may override them."""

    vm: Vm = Vm()
    """The VM's size."""


class Hyperv(_Model):
    """A Windows host with Hyper-V, managed over WinRM."""

    endpoint: Endpoint
    """The host's WinRM listener, such as https://win-01.corp.example:5986."""
    auth: Literal["ntlm", "kerberos", "certificate", "basic"] = "ntlm"
    """How vmproxy logs in; basic and certificate require https."""
    kerberos_service: Literal["HTTP", "WSMAN"] = "HTTP"
    """The service that a Kerberos ticket is for: WSMAN where HTTP belongs to another service's account."""
    username: Text | None = None
    """The account, such as CORP\\name; for ntlm and basic."""
    password: SecretRef | None = None
    """The account's password, by reference."""
    ca: LocalPath | None = None
    """PEM file of the CA that signed the host's certificate; if omitted: the system's CAs."""
    certificate: LocalPath | None = None
    """PEM file of the client certificate; for auth: certificate."""
    key: LocalPath | None = None
    """PEM file of the client certificate's private key; for auth: certificate."""
    directory: WindowsFolder = r"C:\ProgramData\vmproxy"
    """The folder on the host for images, disks and seeds."""


class Qemu(_Model):
    """The embedded host: this Linux machine, in the namespaces of the given lab."""

    lab: Name = "lab"
    """The lab's name."""


class Switch(_Model):
    """The virtual switch (QEMU: a bridge) to which the VM is connected: an existing one, or its own."""

    name: Text = "br0"
    """The exact name of an existing switch."""
    internal: Cidr | None = None
    """Instead of name: the network of an Internal switch that vmproxy makes, such as 172.30.255.0/29."""
    nat: Annotated[bool, Field(strict=True)] = True
    """With internal: the host translates the VM's address to its own; false: it only forwards."""


class StaticRoute(_Model):
    """A route in the guest, or on the host where the VM is on an internal switch."""

    to: Cidr
    """The network to reach."""
    via: Address
    """The next hop, in the VM's own network; with an internal switch, in one of the host's."""


class Network(_Model):
    """The VM's network configuration. `address` and `gateway` None: they follow from an internal switch."""

    address: Interface | None = None
    """The VM's own address with prefix length, such as 192.168.10.5/24."""
    gateway: Address | None = None
    """The VM's default gateway, in the same network."""
    dns: tuple[Address, ...] = ()
    """Name servers."""
    vlan: Annotated[int, Field(ge=0, le=4094, strict=True)] = 0
    """The VLAN of the VM's adapter, set on the switch; 0: untagged."""
    routes: tuple[StaticRoute, ...] = ()
    """Routes to pods that the VM's gateway has no route to."""
    pod_routes: Literal["none", "nodes", "endpoints", "flannel"] = "none"
    """nodes: one route for each Node's podCIDR via its InternalIP, if that is in the VM's network (with an
    internal switch: in one of the host's). endpoints: one for each endpoint via its Node's InternalIP, for
    any network plugin. flannel: over flannel's VXLAN to each Node's podCIDR, whatever network the Node is in.
    The last two are kept up to date in the VM, and are not for an internal switch."""
    clients: Annotated[Literal["any"] | tuple[Cidr, ...] | None, BeforeValidator(_clients)] = None
    """Who may use the gateway, beside the host itself: networks or addresses; any: everybody."""


class Cni(_Model):
    """The CNI configuration with which containers get the policies that they need."""

    plugin: Literal["win-bridge", "sdnbridge"] = "win-bridge"
    """The network plugin that makes the containers' adapters."""
    api: Literal["v1", "v2"] = "v2"
    """The version of HNS' interface that the plugin uses: v2 for containerd, v1 for Docker."""
    write: bool = False
    """Whether vmproxy puts the configuration into the runtime's folder on the host, and keeps it there."""
    directory: WindowsFolder = r"C:\Program Files\containerd\cni\conf"
    """The container runtime's folder of CNI configurations on the host."""


class Containers(_Model):
    """Windows containers that use Services by the VM: an existing HNS network of the host."""

    network: Text
    """The exact name of the HNS network, of type l2bridge or transparent; vmproxy never changes it."""
    subnet: Cidr
    """The subnet of that network, such as 10.244.9.0/24."""
    gateway: Literal["host", "vm"] = "host"
    """Whose address the containers' default gateway is, the subnet's second one: `host`, an endpoint of the
    host, which forwards to the VM; `vm` (experimental, l2bridge only), the VM itself."""
    host_address: Address | None = None
    """The host's own address on the VM's network (with an internal switch: on the LAN); if omitted: found on
    the host."""
    isolate: bool = False
    """Containers of this host are to reach one another by Services only: checked, and in what is rendered."""
    cni: Cni = Cni()
    """The CNI configuration that `vmproxy render` writes."""


class Host(_Model):
    """A machine that runs one proxy VM. Exactly one of `hyperv` and `qemu`."""

    name: Name
    """The host's name, part of the names of what vmproxy creates for it."""
    hyperv: Hyperv | None = None
    """A Windows host with Hyper-V."""
    qemu: Qemu | None = None
    """The embedded host: this Linux machine."""
    switch: Switch = Switch()
    """The virtual switch that the VM shares with the host's containers and VMs."""
    network: Network = Network()
    """The VM's address, gateway and routes."""
    containers: Containers | None = None
    """Windows containers of this host that use Services, too; if omitted: only the host itself does."""
    vm: VmOverride = VmOverride()
    """The VM's size, if it differs from the defaults."""
    acts_for: NodeName | None = None
    """The Node that the VM proxies for (Local traffic policies, topology); if omitted: a plain gateway."""


class Site(_Model):
    """The desired state of a site."""

    name: Name
    """The site's name, part of the names of what vmproxy creates in the cluster and on the hosts."""
    cluster: Cluster = Cluster()
    """The cluster and how to reach it."""
    proxy: Proxy = Proxy()
    """kube-proxy in the VM."""
    dns: Dns | None = None
    """The cluster's names on the hosts, such as web.demo.svc.cluster.local; if omitted: they have none."""
    image: Image = Image(name="debian-13")
    """The base image of the VMs."""
    cloud_init: CloudInit = CloudInit()
    """The user's own cloud-init."""
    ssh: Ssh = Ssh()
    """How vmproxy logs in to its VMs."""
    defaults: Defaults = Defaults()
    """Default values for all hosts."""
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]
    """The machines that run a VM."""

    def vm_size(self, host: Host) -> Vm:
        own, common = host.vm, self.defaults.vm
        return Vm.model_construct(
            cpus=own.cpus or common.cpus,
            memory=own.memory or common.memory,
            boot_timeout=own.boot_timeout or common.boot_timeout,
        )
