"""The cmdlets of NetNat: nftables in the host's namespace translate as WinNAT does.

Behind NAT, Windows forwards whatever its interfaces' own setting is: so does the kernel then, and a chain
keeps the rest as the setting says.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.winhost.engine import Byte, Call, CmdletError, Item, UInt16, UInt32, emulates
from tests.winhost.net.cim import Filter, Instance, Query, enum, invalid, item, numbered, refuse, win32
from tests.winhost.net.state import Network, StaticMapping, interface, kernel, network
from tests.winhost.state import Host

CLASS = "MSFT_NetNat"
MAPPING = "MSFT_NetNatStaticMapping"
_ACTIVE = numbered(("False", "True"))
_STORE = numbered(("Local", "Persistent"))
_FILTERING = numbered(("EndpointIndependentFiltering", "AddressDependentFiltering"))
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_SETTINGS: dict[str, Any] = {
    "IcmpQueryTimeout": 30,
    "TcpEstablishedConnectionTimeout": 1800,
    "TcpTransientConnectionTimeout": 120,
    "TcpFilteringBehavior": "AddressDependentFiltering",
    "UdpFilteringBehavior": "AddressDependentFiltering",
    "UdpIdleSessionTimeout": 120,
    "UdpInboundRefresh": False,
}
_BY_NAME = Query(CLASS, [Filter("Name", "Name", globs=True)])
_BY_NAT = Query(MAPPING, [Filter("NatName", "NatName"), Filter("StaticMappingID", "StaticMappingID")])
_TABLE = "ip winnat"


@emulates("Get-NetNat")
def get_net_nat(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in _BY_NAME.select(call, _nats(host)):
        yield one.item if isinstance(one, Instance) else one


@emulates("New-NetNat")
def new_net_nat(host: Host, call: Call) -> Iterator[Item]:
    """Windows has room for one."""
    refuse(call, "CimSession", "AsJob", "ExternalIPInterfaceAddressPrefix", "InternalRoutingDomainId")
    name, part = str(call.get("Name")), network(host)
    text = str(call.get("InternalIPInterfaceAddressPrefix", ""))
    try:
        prefix = ipaddress.IPv4Network(text)
    except ValueError:
        invalid(CLASS, "InternalIPInterfaceAddressPrefix", text)
    if any(one == name for one, _ in part.nats):
        raise win32(183, "Cannot create a file when that file already exists.", CLASS)
    if part.nats:
        raise win32(87, "The parameter is incorrect.", CLASS)
    part.nats.append((name, str(prefix)))
    start(host)
    yield _nats(host)[-1].item


@emulates("Set-NetNat")
def set_net_nat(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    """Kept, without an effect here."""
    refuse(call, "CimSession", "AsJob")
    for one in list(_named(host, call, _BY_NAME, _nats(host), CLASS)):
        if isinstance(one, CmdletError):
            yield one
            continue
        for setting in (name for name in _SETTINGS if call.has(name)):
            network(host).nat_settings[one.raw["Name"], setting] = call.get(setting)
        if call.switch("PassThru"):
            yield next(now.item for now in _nats(host) if now.raw["Name"] == one.raw["Name"])


@emulates("Remove-NetNat")
def remove_net_nat(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    """With its mappings."""
    refuse(call, "CimSession", "AsJob")
    part = network(host)
    for one in list(_named(host, call, _BY_NAME, _nats(host), CLASS)):
        if isinstance(one, CmdletError):
            yield one
            continue
        name = one.raw["Name"]
        part.nats = [nat for nat in part.nats if nat[0] != name]
        part.mappings = [mapping for mapping in part.mappings if mapping.nat != name]
        start(host)
        if call.switch("PassThru"):
            yield one.item


@emulates("Get-NetNatStaticMapping")
def get_net_nat_static_mapping(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    for one in _BY_NAT.select(call, _mappings(host)):
        yield one.item if isinstance(one, Instance) else one


@emulates("Add-NetNatStaticMapping")
def add_net_nat_static_mapping(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, "CimSession", "AsJob", "InternalRoutingDomainId")
    part, made = network(host), _wanted(host, call)
    taken = {(one.protocol, one.external_port) for one in part.mappings}
    if (made.protocol, made.external_port) in taken:
        raise win32(52, "You were not connected because a duplicate name exists on the network.", MAPPING)
    part.mapped = made.number
    part.mappings.append(made)
    start(host)
    yield _mappings(host)[-1].item


def _wanted(host: Host, call: Call) -> StaticMapping:
    part, name, internal = network(host), str(call.get("NatName")), str(call.get("InternalIPAddress"))
    prefix = next((prefix for nat, prefix in part.nats if nat.lower() == name.lower()), None)
    if prefix is None:
        raise win32(1168, "Element not found.", MAPPING)
    try:
        inside = ipaddress.IPv4Address(internal) in ipaddress.IPv4Network(prefix)
    except ValueError:
        invalid(MAPPING, "InternalIPAddress", internal)
    if not inside:
        raise win32(87, "The parameter is incorrect.", MAPPING)
    external = _prefix(call, "ExternalIPAddress", "0.0.0.0/0")
    port = int(call.get("ExternalPort"))
    return StaticMapping(
        number=part.mapped + 1,
        nat=next(nat for nat, _ in part.nats if nat.lower() == name.lower()),
        protocol=str(call.get("Protocol")).upper(),
        external=str(external.network_address),
        external_port=port,
        remote=str(_prefix(call, "RemoteExternalIPAddressPrefix", "0.0.0.0/0")),
        internal=internal,
        internal_port=int(call.get("InternalPort", port)),
    )


def _prefix(call: Call, parameter: str, default: str) -> ipaddress.IPv4Network:
    text = str(call.get(parameter, default))
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        invalid(MAPPING, parameter, text)


@emulates("Remove-NetNatStaticMapping")
def remove_net_nat_static_mapping(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    part = network(host)
    for one in list(_named(host, call, _BY_NAT, _mappings(host), MAPPING)):
        if isinstance(one, CmdletError):
            yield one
            continue
        part.mappings = [kept for kept in part.mappings if kept.number != one.raw["StaticMappingID"]]
        start(host)
        if call.switch("PassThru"):
            yield one.item


def _named(
    host: Host, call: Call, query: Query, pool: list[Instance], name: str
) -> Iterator[Instance | CmdletError]:
    if not call.has("InputObject"):
        yield from query.select(call, pool)
        return
    there = {one.item.id: one for one in pool}
    for ref in call.list("InputObject"):
        yield there.get(ref.id) or win32(1168, "Element not found.", name)


def _nats(host: Host) -> list[Instance]:
    return [_nat(network(host), name, prefix) for name, prefix in network(host).nats]


def _nat(part: Network, name: str, prefix: str) -> Instance:
    kept = {
        setting: part.nat_settings.get((name, setting), default) for setting, default in _SETTINGS.items()
    }
    shown = {
        "Name": name,
        "InternalIPInterfaceAddressPrefix": prefix,
        "ExternalIPInterfaceAddressPrefix": "",
        "InternalRoutingDomainId": "{00000000-0000-0000-0000-000000000000}",
        "Store": enum(_STORE, "Local"),
        "Active": enum(_ACTIVE, "True"),
        **{
            setting: enum(_FILTERING, value)
            if setting.endswith("Behavior")
            else value
            if isinstance(value, bool)
            else UInt32(value)
            for setting, value in kept.items()
        },
    }
    return Instance(item(CLASS, name, shown), {"Name": name})


def _mappings(host: Host) -> list[Instance]:
    return [_mapping(one) for one in network(host).mappings]


def _mapping(one: StaticMapping) -> Instance:
    shown = {
        "StaticMappingID": UInt32(one.number),
        "NatName": one.nat,
        "Protocol": enum(_PROTOCOLS, one.protocol),
        "RemoteExternalIPAddressPrefix": one.remote,
        "ExternalIPAddress": one.external,
        "ExternalPort": UInt16(one.external_port),
        "InternalIPAddress": one.internal,
        "InternalPort": UInt16(one.internal_port),
        "InternalRoutingDomainId": "{00000000-0000-0000-0000-000000000000}",
        "Active": Byte(1),
    }
    key = f"{one.nat};{one.number}"
    return Instance(item(MAPPING, key, shown), {"NatName": one.nat, "StaticMappingID": one.number})


# What packets meet.


def forwards(host: Host, link: str) -> bool:
    """Whether an interface's own setting says that it forwards IPv4."""
    if not host.part(Network).translates:
        return kernel(host).sysctl(_forwarding(link)) == "1"
    return bool(interface(host, link).settings.get((4, "Forwarding")) == "Enabled")


def set_forwarding(host: Host, link: str, *, on: bool) -> None:
    if not host.part(Network).translates:
        kernel(host).set_sysctl(_forwarding(link), "1" if on else "0")
        return
    interface(host, link).settings[4, "Forwarding"] = "Enabled" if on else "Disabled"
    _load_rules(host)


def _forwarding(link: str) -> str:
    return f"ipv4/conf/{link}/forwarding"


def start(host: Host) -> None:
    """Bring the kernel to what is set; nothing for a host without a namespace."""
    part = network(host)
    if host.namespace is None or not (part.nats or part.translates):
        return
    if part.translates != bool(part.nats):
        _change_over(host)
    _load_rules(host)


def _change_over(host: Host) -> None:
    """With NAT the kernel forwards everything, and the interfaces' own settings are kept beside it."""
    part, on = network(host), _forwarding_links(host)
    part.translates = bool(part.nats)
    for one in part.interfaces.values():
        one.settings.pop((4, "Forwarding"), None)
    kernel(host).set_sysctl("ipv4/ip_forward", "1" if part.translates else "0")
    for link in on:
        set_forwarding(host, link, on=True)


def close(host: Host) -> None:
    """Take the rules away with the host; its namespace may go on."""
    part = host.part(Network)
    if part.nats:
        part.nats, part.mappings = [], []
        start(host)


def _forwarding_links(host: Host) -> list[str]:
    return [one.name for one in kernel(host).links() if forwards(host, one.name)]


def _load_rules(host: Host) -> None:
    part = network(host)
    rules = _rules(part, _forwarding_links(host)) if part.nats else []
    _load(str(host.namespace), [f"add table {_TABLE}", f"delete table {_TABLE}", *rules])


def _rules(part: Network, on: list[str]) -> list[str]:
    nat, chain = "type nat hook", f"add chain {_TABLE}"
    return [
        f"add table {_TABLE}",
        f"{chain} prerouting {{ {nat} prerouting priority dstnat; }}",
        f"{chain} postrouting {{ {nat} postrouting priority srcnat; }}",
        f"{chain} forward {{ type filter hook forward priority filter; }}",
        *(f"add rule {_TABLE} prerouting {_translated(one)}" for one in part.mappings),
        f"add rule {_TABLE} forward ct state established,related accept",
        f"add rule {_TABLE} forward ct status dnat accept",
        *(f"add rule {_TABLE} forward iifname {link} accept" for link in on),
        *(rule for _, prefix in part.nats for rule in _inside(prefix)),
        f"add rule {_TABLE} forward drop",
    ]


def _inside(prefix: str) -> list[str]:
    return [
        f"add rule {_TABLE} postrouting ip saddr {prefix} ip daddr != {prefix} masquerade",
        f"add rule {_TABLE} forward ip saddr {prefix} accept",
    ]


def _translated(one: StaticMapping) -> str:
    outside = "" if one.external == "0.0.0.0" else f"ip daddr {one.external} "
    port = f"{one.protocol.lower()} dport {one.external_port}"
    to = f"{one.internal}:{one.internal_port}"
    return f"ip saddr {one.remote} {outside}fib daddr type local {port} dnat to {to}"


def _load(namespace: str, rules: list[str]) -> None:
    command = ["ip", "netns", "exec", namespace, "nft", "-f", "-"]
    subprocess.run(command, input="\n".join(rules) + "\n", text=True, check=True, capture_output=True)
