"""The JSON that HNS takes: networks, endpoints, policies; the first version's and HCN's (the second).

Fields and types are those of hcsshim's structs (hnsnetwork.go, hnsendpoint.go, hnspolicy.go, hcn/*.go), and
the few more that hns.psm1 sends. Nothing else is taken. Both versions become the first one's form, in which
the cmdlets show them. A policy without an effect in this emulation is "not emulated", unless it has none on
packets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tests.winhost.engine import not_emulated
from tests.winhost.hns.errors import INVALID_JSON, INVALID_POLICY, HnsError


def _prefix(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _prefixes(text: str) -> str:
    for one in filter(None, text.split(",")):
        ipaddress.ip_network(one.strip(), strict=False)
    return text


def _ports(text: str) -> str:
    for one in filter(None, text.split(",")):
        first, _, last = one.partition("-")
        if not 0 < int(first) <= int(last or first) < 1 << 16:
            raise ValueError(f"{one} is no range of ports")
    return text


def _numbers(text: str) -> str:
    for one in filter(None, text.split(",")):
        if not 0 <= int(one) <= 256:
            raise ValueError(f"{one} is no protocol's number")
    return text


Prefix = Annotated[str, AfterValidator(_prefix)]
Address = Annotated[str, AfterValidator(_address)]
Prefixes = Annotated[str, AfterValidator(_prefixes)]
Ports = Annotated[str, AfterValidator(_ports)]
Numbers = Annotated[str, AfterValidator(_numbers)]
Short = Annotated[int, Field(ge=0, lt=1 << 16)]
Kind = Annotated[
    str, Field(pattern="(?i)^(NAT|ICS|Transparent|L2Bridge|L2Tunnel|Overlay|Private|Internal|Layered)$")
]


class Strict(BaseModel):
    """A document: unknown fields, missing ones and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Document = TypeVar("Document", bound=Strict)


class OutBoundNat(Strict):
    Type: Literal["OutBoundNAT"]
    VIP: Address | None = None
    ExceptionList: list[Prefix] = []
    Destinations: list[Prefix] = []


class Route(Strict):
    Type: Literal["ROUTE"]
    DestinationPrefix: Prefix
    NextHop: Address | None = None
    NeedEncap: bool = False


class Acl(Strict):
    Type: Literal["ACL"]
    Action: Literal["Allow", "Block"]
    Direction: Literal["In", "Out"]
    Id: str = ""
    Protocol: Annotated[int, Field(ge=0, le=256)] | None = None
    Protocols: Numbers = ""
    LocalAddresses: Prefixes = ""
    RemoteAddresses: Prefixes = ""
    LocalPorts: Ports = ""
    RemotePorts: Ports = ""
    LocalPort: Short | None = None
    RemotePort: Short | None = None
    InternalPort: Short | None = None
    RuleType: Literal["Switch", "Host"] = "Switch"
    Priority: Short = 0
    ServiceName: str = ""


class L2Driver(Strict):
    Type: Literal["L2Driver"]


class Qos(Strict):
    Type: Literal["QOS"]
    MaximumOutgoingBandwidthInBytes: int


class PortName(Strict):
    Type: Literal["PortName"]
    Name: str


class EncapOverhead(Strict):
    Type: Literal["EncapOverhead"]
    Overhead: Short


Policy = OutBoundNat | Route | Acl | L2Driver | Qos | PortName | EncapOverhead
_POLICY: TypeAdapter[Policy] = TypeAdapter(Annotated[Policy, Field(discriminator="Type")])
_ELSEWHERE = {
    *("NAT", "PA", "VLAN", "VSID", "VNET", "Isolation", "PROXY", "PortMapping", "L4Proxy", "L4WFPPROXY"),
    *("ProviderAddress", "InterfaceConstraint", "TierAcl", "IPSET", "NetworkACL"),
}
"""Known types that would change packets: this emulation does not."""
_RENAMED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "SDNRoute": ("ROUTE", {}),
    "OutBoundNAT": ("OutBoundNAT", {"VirtualIP": "VIP", "Exceptions": "ExceptionList"}),
}
_OLD_NAMES = {
    "VIP",
    "ExceptionList",
    "Id",
    "Protocol",
    "LocalPort",
    "RemotePort",
    "InternalPort",
    "ServiceName",
}
"""Fields of policies that only the first version has."""


class MacPool(Strict):
    StartMacAddress: str
    EndMacAddress: str


class Subnet(Strict):
    AddressPrefix: Prefix
    GatewayAddress: Address | None = None
    Policies: list[dict[str, Any]] = []


class Network(Strict):
    """A network of the first version's form."""

    ID: str = ""
    Name: Annotated[str, Field(min_length=1)]
    Type: Kind
    NetworkAdapterName: str = ""
    SourceMac: str = ""
    Policies: list[dict[str, Any]] = []
    MacPools: list[MacPool] = []
    Subnets: list[Subnet] = []
    DNSSuffix: str = ""
    DNSServerList: str = ""
    DNSServerCompartment: int = 0
    ManagementIP: str = ""
    AutomaticDNS: bool = False
    IPv6: bool = False
    AdditionalParams: dict[str, Any] = {}


class Hop(Strict):
    """A route in the container's own table; only HCN's endpoints have them."""

    NextHop: Address
    DestinationPrefix: Prefix
    Metric: Short = 0


class Endpoint(Strict):
    """An endpoint of the first version's form, and HCN's routes."""

    ID: str = ""
    Name: str = ""
    VirtualNetwork: str
    VirtualNetworkName: str = ""
    Policies: list[dict[str, Any]] = []
    MacAddress: str = ""
    IPAddress: Address | None = None
    IPv6Address: Address | None = None
    DNSSuffix: str = ""
    DNSServerList: str = ""
    DNSDomain: str = ""
    GatewayAddress: Address | None = None
    GatewayAddressV6: Address | None = None
    EnableInternalDNS: bool = False
    DisableICC: bool = False
    PrefixLength: Annotated[int, Field(ge=0, le=32)] | None = None
    IPv6PrefixLength: int | None = None
    IsRemoteEndpoint: bool = False
    EnableLowMetric: bool = False
    EncapOverhead: Short | None = None
    AdditionalParams: dict[str, Any] = {}
    Routes: list[Hop] = []


class _IpConfig(Strict):
    IpAddress: Address
    PrefixLength: Annotated[int, Field(ge=0, le=32)]


class _Dns(Strict):
    Suffix: str = ""
    Domain: str = ""
    Search: list[str] = []
    ServerList: list[str] = []
    Options: list[str] = []


class _Schema(Strict):
    Major: Literal[2]
    Minor: int


class _ComputeEndpoint(Strict):
    ID: str = ""
    Name: str = ""
    HostComputeNetwork: str
    HostComputeNamespace: str = ""
    Policies: list[dict[str, Any]] = []
    IpConfigurations: list[_IpConfig] = []
    Dns: _Dns = _Dns()
    Routes: list[Hop] = []
    MacAddress: str = ""
    Flags: Literal[0, 1] = 0
    SchemaVersion: _Schema


class _ComputeSubnet(Strict):
    IpAddressPrefix: Prefix
    Policies: list[dict[str, Any]] = []
    Routes: list[Hop] = []


class _Ipam(Strict):
    Type: Literal["Static", "DHCP", "Dhcp", ""] = ""
    Subnets: list[_ComputeSubnet] = []


class _MacPool(Strict):
    Ranges: list[MacPool] = []


class _ComputeNetwork(Strict):
    ID: str = ""
    Name: str
    Type: Kind
    Policies: list[dict[str, Any]] = []
    MacPool: _MacPool = _MacPool()
    Dns: _Dns = _Dns()
    Ipams: list[_Ipam] = []
    Flags: int = 0
    SchemaVersion: _Schema


class Attach(Strict):
    """The request to attach an endpoint, or to detach it."""

    SystemType: Literal["Container", "Host", "VirtualMachine"]
    ContainerId: str = ""
    CompartmentId: Short = 0
    VirtualNicName: str = ""


class PolicyList(Strict):
    """Load balancers (ELB) and routes for several endpoints. Kept and shown; without an effect on packets."""

    ID: str = ""
    References: list[str] = []
    Policies: list[dict[str, Any]]


def is_second(document: Mapping[str, Any]) -> bool:
    """Whether it is HCN's."""
    return bool({"SchemaVersion", "HostComputeNetwork", "Ipams"} & set(document))


def network(document: Mapping[str, Any]) -> Network:
    """A request to make a network, of either version. Raises HnsError."""
    if not is_second(document):
        return read(Network, document)
    second = read(_ComputeNetwork, document)
    adapter = [one for one in second.Policies if one.get("Type") == "NetAdapterName"]
    return Network(
        ID=second.ID,
        Name=second.Name,
        Type=second.Type,
        NetworkAdapterName=adapter[0]["Settings"]["NetworkAdapterName"] if adapter else "",
        MacPools=second.MacPool.Ranges,
        Subnets=[_subnet(one) for ipam in second.Ipams for one in ipam.Subnets],
        DNSSuffix=second.Dns.Suffix,
        DNSServerList=",".join(second.Dns.ServerList),
    )


def _subnet(second: _ComputeSubnet) -> Subnet:
    return Subnet(
        AddressPrefix=second.IpAddressPrefix,
        GatewayAddress=_default_hop(second.Routes),
        Policies=second.Policies,
    )


def endpoint(document: Mapping[str, Any]) -> Endpoint:
    """A request to make an endpoint, of either version; its policies are not looked at. Raises HnsError."""
    if not is_second(document):
        return read(Endpoint, document)
    second = read(_ComputeEndpoint, document)
    first = next(iter(second.IpConfigurations), None)
    return Endpoint(
        ID=second.ID,
        Name=second.Name,
        VirtualNetwork=second.HostComputeNetwork,
        Policies=second.Policies,
        MacAddress=second.MacAddress,
        IPAddress=first.IpAddress if first else None,
        PrefixLength=first.PrefixLength if first else None,
        GatewayAddress=_default_hop(second.Routes),
        DNSSuffix=second.Dns.Suffix,
        DNSServerList=",".join(second.Dns.ServerList),
        IsRemoteEndpoint=second.Flags == 1,
        Routes=[one for one in second.Routes if one.DestinationPrefix != "0.0.0.0/0"],
    )


def _default_hop(routes: list[Hop]) -> str | None:
    return next((one.NextHop for one in routes if one.DestinationPrefix == "0.0.0.0/0"), None)


def policy(document: Mapping[str, Any], *, second: bool) -> Policy:
    """An endpoint's policy. Raises HnsError, and CmdletError for a type that is not emulated."""
    kind = str(document.get("Type", ""))
    if kind in _ELSEWHERE:
        raise not_emulated(f"HNS's policy {kind}")
    try:
        read_one: Policy = _POLICY.validate_python(_first_form(document, kind) if second else dict(document))
    except ValidationError as exc:
        raise HnsError(INVALID_POLICY, _about(exc)) from exc
    if isinstance(read_one, Route) and read_one.NextHop:
        raise not_emulated("HNS's route policy with NextHop")
    if isinstance(read_one, Acl) and _lacks_protocol(read_one):
        raise HnsError(INVALID_POLICY, "{{Protocols}}")
    return read_one


def _first_form(document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """HCN's policy: its own fields are in Settings."""
    settings = document.get("Settings", {})
    if kind == "ROUTE" or set(document) - {"Type", "Settings"} or not isinstance(settings, Mapping):
        raise HnsError(INVALID_POLICY, "{{Policies.Settings}}")
    if unknown := sorted(_OLD_NAMES & set(settings)):
        raise HnsError(INVALID_POLICY, f"{{{{Policies.Settings.{unknown[0]},UnknownField}}}}")
    name, renamed = _RENAMED.get(kind) or (kind, {})
    return {"Type": name, **{renamed.get(key, key): value for key, value in settings.items()}}


def _lacks_protocol(acl: Acl) -> bool:
    """Ports are of TCP and UDP."""
    ports = acl.LocalPorts or acl.RemotePorts or acl.LocalPort or acl.RemotePort or acl.InternalPort
    return bool(ports) and (not protocols(acl) or not set(protocols(acl)) <= {6, 17})


def protocols(acl: Acl) -> list[int]:
    """By number; empty for any."""
    told = [int(one) for one in acl.Protocols.split(",") if one] or [acl.Protocol or 256]
    return [] if {0, 256} & set(told) else told


def read(kind: type[Document], document: Mapping[str, Any]) -> Document:
    """A document of that kind. Raises HnsError with the first field that is wrong."""
    try:
        return kind.model_validate(dict(document))
    except ValidationError as exc:
        raise HnsError(INVALID_JSON, _about(exc)) from exc


def _about(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(one) for one in first["loc"])
    words = {"extra_forbidden": "UnknownField", "missing": "MissingField"}
    return f"{{{{{where},{words.get(first['type'], 'UnexpectedType')}}}}}"
