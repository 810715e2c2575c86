"""The site file as frozen pydantic models: the desired state. Reading it: vmproxy/sitefile.py."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
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
    ValidationInfo,
)
from pydantic.alias_generators import to_camel

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ADDRESS_FORM = "write an IPv4 address, as 192.168.10.1"
_NETWORK_FORM = "write an IPv4 network, as 10.96.0.0/16"
_INTERFACE_FORM = "write an IPv4 address with its network's length, as 192.168.10.5/24"


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("use lower-case letters, digits and '-', with a letter or digit at both ends")
    return text


def _memory(value: object) -> int:
    """Text as 512MiB or 1GiB, to bytes."""
    match = re.fullmatch(r"(\d{1,9})\s*(MiB|GiB)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError("write a size with its unit, as 512MiB or 2GiB")
    size = int(match[1]) << {"MiB": 20, "GiB": 30}[match[2]]
    if not 256 << 20 <= size <= 1 << 40:
        raise ValueError("should be at least 256MiB and at most 1024GiB")
    return size


_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")


def _duration(value: object) -> int:
    """Text as 24h, 90m or 1h30m, to seconds."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match or not value:
        raise ValueError("write a duration as 24h, 90m or 1h30m")
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
        raise ValueError("should be at least 10m, which is the shortest that Kubernetes gives")
    if lifetime >= 1 << 32:
        raise ValueError("should be at most 1193046h, which is the longest that Kubernetes gives")
    return lifetime


def _version(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"v1\.\d+\.\d+", value):
        raise ValueError("write a version as v1.36.3")
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
    """Text only: pydantic would take a number for an address too."""
    if isinstance(value, (IPv4Address, IPv4Network)):
        return value
    if not isinstance(value, str):
        raise ValueError(form)
    try:
        return kind(value)
    except ValueError as exc:
        raise ValueError(form) from exc


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    """`~` expanded; a relative path starts at the folder given as the validation's context, if any."""
    try:
        expanded = path.expanduser()
    except RuntimeError as exc:
        raise ValueError(f"no home folder for {path.parts[0]}") from exc
    return Path(info.context, expanded) if info.context else expanded


def _windows_folder(text: str) -> str:
    """With backslashes, and none at the end."""
    path = PureWindowsPath(text)
    parts = path.parts[1:]
    whole = re.fullmatch("[A-Za-z]:", path.drive) and path.is_absolute() and parts and ".." not in parts
    if not whole or set('"<>|?*:') & set("".join(parts)):
        raise ValueError(r"write a folder on a drive of the host, as C:\ProgramData\vmproxy")
    return str(path)


def _node(text: str) -> str:
    for label in text.split("."):
        _label(label)
    return text


Name = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_label)]
NodeName = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_node)]
Text = Annotated[str, Field(min_length=1)]
Memory = Annotated[int, BeforeValidator(_memory, json_schema_input_type=str)]
Lifetime = Annotated[int, BeforeValidator(_lifetime, json_schema_input_type=str)]
BootTimeout = Annotated[int, BeforeValidator(_boot_timeout, json_schema_input_type=str)]
Sha256 = Annotated[str, BeforeValidator(_sha256, json_schema_input_type=str)]
Version = Annotated[str, BeforeValidator(_version, json_schema_input_type=str)]
Address = Annotated[IPv4Address, BeforeValidator(_address, json_schema_input_type=str)]
Cidr = Annotated[IPv4Network, BeforeValidator(_network, json_schema_input_type=str)]
Interface = Annotated[IPv4Interface, BeforeValidator(_interface, json_schema_input_type=str)]
WindowsFolder = Annotated[str, AfterValidator(_windows_folder)]
LocalPath = Annotated[Path, AfterValidator(_in_folder)]


def _api_server(url: AnyHttpUrl) -> AnyHttpUrl:
    """The VM's token goes there, and what stands in it is told to whoever looks."""
    if url.scheme != "https" or url.username or url.password or url.query or url.fragment:
        raise ValueError("write it as https://host:6443, with nothing secret in it")
    if url.host in {"localhost", "127.0.0.1", "[::1]"}:
        raise ValueError("is this machine: write the API server as the VM reaches it")
    return url


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
    """The file's path; relative to the site file."""


SecretRef = SecretFromEnv | SecretFromFile


class Cluster(_Model):
    """Where the cluster is. What is omitted is found: by the kubeconfig rules, and in the cluster."""

    kubeconfig: LocalPath | None = None
    """The kubeconfig of the one who runs vmproxy; omitted: $KUBECONFIG, then ~/.kube/config."""
    context: Text | None = None
    """The kubeconfig's context; omitted: its current one."""
    server: ApiServer | None = None
    """The API server as the VM reaches it; omitted: as the kubeconfig has it, unless that is loopback."""
    service_cidrs: Annotated[tuple[Cidr, ...], Field(alias="serviceCIDRs")] = ()
    """The Service ranges; omitted: asked of the cluster."""
    pod_cidrs: Annotated[tuple[Cidr, ...], Field(alias="podCIDRs")] = ()
    """The pod ranges; omitted: taken from the Nodes."""


class Binary(_Model):
    """A kube-proxy binary from elsewhere: a mirror, or a file (file:///…)."""

    url: AnyUrl
    """https://, http:// or file:///."""
    sha256: Sha256
    """The binary's checksum."""


class Proxy(_Model):
    """kube-proxy. `version` None: the cluster's own. `token_ttl` is in seconds."""

    version: Version | None = None
    """kube-proxy's version, as v1.36.3; omitted: the cluster's own."""
    mode: Literal["auto", "iptables", "nftables"] = "auto"
    """How it writes its rules; auto: nftables where version and kernel are new enough."""
    token_ttl: Annotated[Lifetime, Field(alias="tokenTTL")] = 86400
    """How long a token of the VM is good, at least 10m; the VM renews it at half its life."""
    binary: Binary | None = None
    """Where the binary comes from; omitted: the release site."""


class Image(_Model):
    """The base image: one of `name` (built or fetched before), `path`, or `url` with `sha256`."""

    name: Text | None = None
    """An image of `vmproxy image list`."""
    path: LocalPath | None = None
    """An image file: raw, qcow2 or VHDX."""
    url: AnyUrl | None = None
    """An image to fetch; needs sha256."""
    sha256: Sha256 | None = None
    """The checksum of what is at the url."""


class CloudInit(_Model):
    """The user's own cloud-init, merged over the built-in one."""

    user_data: LocalPath | None = None
    """A jinja2 template of a #cloud-config."""


class Ssh(_Model):
    """`identity` None: a key made and kept by vmproxy in its state folder."""

    identity: SecretFromFile | None = None
    """The private key with which vmproxy logs in to its VMs; omitted: one is made and kept."""


class Vm(_Model):
    """The VM's size; memory in bytes. `boot_timeout` in seconds, from power on to SSH."""

    cpus: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Virtual CPUs."""
    memory: Memory = 512 << 20
    """Memory, as 512MiB; at least 256MiB."""
    boot_timeout: BootTimeout = 420
    """How long the VM may take from power on to SSH, as 7m."""


class VmOverride(_Model):
    """A host's own VM size; what is None comes from `defaults`."""

    cpus: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    """Virtual CPUs."""
    memory: Memory | None = None
    """Memory, as 512MiB; at least 256MiB."""
    boot_timeout: BootTimeout | None = None
    """How long the VM may take from power on to SSH, as 7m."""


class Defaults(_Model):
    """What holds for every host that does not say otherwise."""

    vm: Vm = Vm()
    """The VM's size."""


class Hyperv(_Model):
    """A Windows host with Hyper-V, reached by WinRM."""

    endpoint: AnyHttpUrl
    """The host's WinRM listener, as https://win-01.corp.example:5986."""
    auth: Literal["ntlm", "kerberos", "certificate", "basic"] = "ntlm"
    """How vmproxy logs in; basic over https only."""
    username: Text | None = None
    """The account, as CORP\\name; for ntlm and basic."""
    password: SecretRef | None = None
    """The account's password, by reference."""
    ca: LocalPath | None = None
    """The CA that signed the host's certificate, PEM; omitted: the system's CAs."""
    certificate: LocalPath | None = None
    """The client certificate, PEM; for auth: certificate."""
    key: LocalPath | None = None
    """The client certificate's private key, PEM; for auth: certificate."""
    directory: WindowsFolder = r"C:\ProgramData\vmproxy"
    """The folder on the host for images, disks and seeds."""


class Qemu(_Model):
    """The embedded host: this Linux machine, in the namespaces of the lab of that name."""

    lab: Name = "lab"
    """The lab's name."""


class Switch(_Model):
    """An existing virtual switch (QEMU: a bridge) to which the VM is connected."""

    name: Text = "br0"
    """The switch's exact name."""


class StaticRoute(_Model):
    """How the guest reaches `to`."""

    to: Cidr
    """The network to reach."""
    via: Address
    """The next hop, on the VM's own network."""


class Network(_Model):
    """The VM's place in the network."""

    address: Interface
    """The VM's own address, with its network's length."""
    gateway: Address
    """The VM's default gateway."""
    dns: tuple[Address, ...] = ()
    """Name servers."""
    vlan: Annotated[int, Field(ge=0, le=4094, strict=True)] = 0
    """The VLAN of the VM's adapter, set at the switch; 0: untagged."""
    routes: tuple[StaticRoute, ...] = ()
    """How the VM reaches pods, where its gateway does not know."""
    pod_routes: Literal["none", "nodes"] = "none"
    """nodes: a route for each Node's podCIDR by its InternalIP, where that is on the VM's network."""


class Host(_Model):
    """A machine that carries one proxy VM. Exactly one of `hyperv` and `qemu`."""

    name: Name
    """Names what is made for this host."""
    hyperv: Hyperv | None = None
    """A Windows host with Hyper-V."""
    qemu: Qemu | None = None
    """The embedded host: this Linux machine."""
    switch: Switch = Switch()
    """The virtual switch that the VM shares with the host's workloads."""
    network: Network
    """Where the VM stands in the network."""
    vm: VmOverride = VmOverride()
    """The VM's size, where it differs from the defaults."""
    acts_for: NodeName | None = None
    """The Node it proxies for (Local traffic policies, topology); omitted: a plain gateway."""


class Site(_Model):
    """Everything desired."""

    name: Name
    """Names what is made, in the cluster and on the hosts."""
    cluster: Cluster = Cluster()
    """Where the cluster is."""
    proxy: Proxy = Proxy()
    """kube-proxy."""
    image: Image = Image(name="debian-13")
    """The base image of the VMs."""
    cloud_init: CloudInit = CloudInit()
    """The user's own cloud-init."""
    ssh: Ssh = Ssh()
    """How vmproxy logs in to its VMs."""
    defaults: Defaults = Defaults()
    """For every host that does not say otherwise."""
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]
    """The machines that carry a VM."""

    def vm_size(self, host: Host) -> Vm:
        own, common = host.vm, self.defaults.vm
        return Vm.model_construct(
            cpus=own.cpus or common.cpus,
            memory=own.memory or common.memory,
            boot_timeout=own.boot_timeout or common.boot_timeout,
        )
