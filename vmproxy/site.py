"""The site file as frozen pydantic models: the desired state. Reading it: vmproxy/sitefile.py."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AnyHttpUrl, AnyUrl, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("use lower-case letters, digits and '-', with a letter or digit at both ends")
    return text


def _size(value: object) -> object:
    """Text as 512MiB or 1GiB, to bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*(MiB|GiB)", value)
        if not match:
            raise ValueError("write a size as 512MiB or 2GiB")
        return int(match[1]) << {"MiB": 20, "GiB": 30}[match[2]]
    raise ValueError("write a size with its unit, as 512MiB or 2GiB")


def _duration(value: object) -> object:
    """Text as 24h, 90m or 1h30m, to seconds."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", value) if isinstance(value, str) else None
    if not match or not value:
        raise ValueError("write a duration as 24h, 90m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


Name = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_label)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=str)]
Duration = Annotated[int, BeforeValidator(_duration, json_schema_input_type=str)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^v1\.\d+\.\d+$")]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class SecretFromEnv(_Model):
    """A secret in an environment variable."""

    env: str


class SecretFromFile(_Model):
    """A secret in a file."""

    file: Path


SecretRef = SecretFromEnv | SecretFromFile


class Cluster(_Model):
    """Where the cluster is. What is omitted is found: by the kubeconfig rules, and in the cluster."""

    kubeconfig: Path | None = None
    context: str | None = None
    server: AnyHttpUrl | None = None
    service_cidrs: Annotated[tuple[IPv4Network, ...], Field(alias="serviceCIDRs")] = ()
    pod_cidrs: Annotated[tuple[IPv4Network, ...], Field(alias="podCIDRs")] = ()


class Binary(_Model):
    """A kube-proxy binary from elsewhere: a mirror, or a file (file:///…)."""

    url: AnyUrl
    sha256: Sha256


class Proxy(_Model):
    """kube-proxy. `version` None: the cluster's own. `token_ttl` is in seconds."""

    version: Version | None = None
    mode: Literal["auto", "iptables", "nftables"] = "auto"
    token_ttl: Annotated[Duration, Field(alias="tokenTTL", ge=600)] = 86400
    binary: Binary | None = None


class Image(_Model):
    """The base image: one of `name` (built or fetched before), `path`, or `url` with `sha256`."""

    name: str | None = None
    path: Path | None = None
    url: AnyUrl | None = None
    sha256: Sha256 | None = None


class CloudInit(_Model):
    """The user's own cloud-init, merged over the built-in one."""

    user_data: Path | None = None


class Ssh(_Model):
    """`identity` None: a key made and kept by vmproxy in its state folder."""

    identity: SecretFromFile | None = None


class Vm(_Model):
    """The VM's size; memory in bytes."""

    cpus: Annotated[int, Field(ge=1, le=64)] = 2
    memory: Annotated[Size, Field(ge=256 << 20)] = 512 << 20


class VmOverride(_Model):
    """A host's own VM size; what is None comes from `defaults`."""

    cpus: Annotated[int, Field(ge=1, le=64)] | None = None
    memory: Annotated[Size, Field(ge=256 << 20)] | None = None


class Defaults(_Model):
    """What holds for every host that does not say otherwise."""

    vm: Vm = Vm()


class Hyperv(_Model):
    """A Windows host with Hyper-V, reached by WinRM."""

    endpoint: AnyHttpUrl
    auth: Literal["ntlm", "kerberos", "certificate", "basic"] = "ntlm"
    username: str | None = None
    password: SecretRef | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    directory: str = r"C:\ProgramData\vmproxy"


class Qemu(_Model):
    """The embedded host: this Linux machine, in the namespaces of the lab of that name."""

    lab: Name = "lab"


class Switch(_Model):
    """An existing virtual switch (QEMU: a bridge) to which the VM is connected."""

    name: Annotated[str, Field(min_length=1)] = "br0"


class StaticRoute(_Model):
    """How the guest reaches `to`."""

    to: IPv4Network
    via: IPv4Address


class Network(_Model):
    """The VM's place in the network."""

    address: IPv4Interface
    gateway: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    vlan: Annotated[int, Field(ge=0, le=4094)] = 0
    routes: tuple[StaticRoute, ...] = ()
    pod_routes: Literal["none", "nodes"] = "none"


class Host(_Model):
    """A machine that carries one proxy VM. Exactly one of `hyperv` and `qemu`."""

    name: Name
    hyperv: Hyperv | None = None
    qemu: Qemu | None = None
    switch: Switch = Switch()
    network: Network
    vm: VmOverride = VmOverride()
    acts_for: Name | None = None


class Site(_Model):
    """Everything desired."""

    name: Name
    cluster: Cluster = Cluster()
    proxy: Proxy = Proxy()
    image: Image = Image(name="debian-13")
    cloud_init: CloudInit = CloudInit()
    ssh: Ssh = Ssh()
    defaults: Defaults = Defaults()
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]

    def vm_size(self, host: Host) -> Vm:
        return Vm(
            cpus=host.vm.cpus or self.defaults.vm.cpus, memory=host.vm.memory or self.defaults.vm.memory
        )

    def vm_name(self, host: Host) -> str:
        return f"vmproxy-{self.name}-{host.name}"

    def account(self, host: Host) -> str:
        """The ServiceAccount's name."""
        return f"{self.name}-{host.name}"
