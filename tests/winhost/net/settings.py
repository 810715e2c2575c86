"""Get- and Set-NetIPv4Protocol, Get-NetFirewallProfile, Get-DnsClientServerAddress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.winhost.engine import Call, CmdletError, Item, UInt16, UInt32, emulates
from tests.winhost.net.cim import Filter, Instance, Query, enum, item, numbered, refuse
from tests.winhost.net.naming import FAMILY, places
from tests.winhost.net.state import interface, kernel, network
from tests.winhost.state import Host

SWITCH = numbered(("Disabled", "Enabled"))
_PROTOCOL: dict[str, tuple[dict[str, int], str]] = {
    "IcmpRedirects": (SWITCH, "Enabled"),
    "SourceRoutingBehavior": (numbered(("Forward", "DontForward", "Drop")), "DontForward"),
    "DhcpMediaSense": (SWITCH, "Enabled"),
    "MediaSenseEventLog": (SWITCH, "Disabled"),
    "MulticastForwarding": (SWITCH, "Disabled"),
    "GroupForwardedFragments": (SWITCH, "Disabled"),
    "RandomizeIdentifiers": (SWITCH, "Enabled"),
    "AddressMaskReply": (SWITCH, "Disabled"),
    "IGMPLevel": (numbered(("None", "SendOnly", "All")), "All"),
    "IGMPVersion": (numbered(("Version1", "Version2", "Version3"), 2), "Version3"),
}
_LIMITS = {
    "DefaultHopLimit": 128,
    "NeighborCacheLimitEntries": 256,
    "RouteCacheLimitEntries": 128,
    "ReassemblyLimitBytes": 267748640,
    "MinimumMtu": 576,
}
_ENABLED = numbered(("False", "True", "NotConfigured"))
_ACTIONS = {"NotConfigured": 0, "Allow": 2, "Block": 4}


@emulates("Get-NetIPv4Protocol")
def get_net_ipv4_protocol(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", "DeadGatewayDetection")
    filters = [
        Filter(name, name, numbers=_PROTOCOL.get(name, ({}, ""))[0]) for name in (*_PROTOCOL, *_LIMITS)
    ]
    for one in Query("MSFT_NetIPv4Protocol", filters).select(call, [_protocol(host)]):
        yield one.item if isinstance(one, Instance) else one


@emulates("Set-NetIPv4Protocol")
def set_net_ipv4_protocol(host: Host, call: Call) -> Iterator[Item]:
    """Whether redirects are believed is the namespace's setting, the others are kept."""
    refuse(call, "CimSession", "AsJob", "DeadGatewayDetection")
    for name in (*_PROTOCOL, *_LIMITS):
        if not call.has(name):
            continue
        if name == "IcmpRedirects":
            value = "1" if call.get(name) == "Enabled" else "0"
            for scope in ("all", "default", *(one.name for one in kernel(host).links())):
                kernel(host).set_sysctl(f"ipv4/conf/{scope}/accept_redirects", value)
        else:
            network(host).protocol[name] = call.get(name)
    if call.switch("PassThru"):
        yield _protocol(host).item


@emulates("Get-NetFirewallProfile")
def get_net_firewall_profile(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    associations = [f"AssociatedNet{kind}" for kind in ("FirewallRule", "IPsecRule", "IPsecMainModeRule")]
    refuse(call, "CimSession", "AsJob", "GPOSession", *associations)
    if str(call.get("PolicyStore", "PersistentStore")).lower() not in ("persistentstore", "activestore"):
        refuse(call, "PolicyStore")
    query = Query("MSFT_NetFirewallProfile", [Filter("Name", "Name", globs=True)])
    pool = [_profile(name, on=on) for name, on in network(host).firewall.items()]
    for one in query.select(call, pool):
        yield one.item if isinstance(one, Instance) else one


@emulates("Get-DnsClientServerAddress")
def get_dns_client_server_address(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob")
    network(host)
    filters = (
        Filter("InterfaceAlias", "InterfaceAlias", globs=True),
        Filter("InterfaceIndex", "InterfaceIndex"),
        Filter("AddressFamily", "AddressFamily", numbers=FAMILY),
    )
    query = Query("MSFT_DNSClientServerAddress", filters)
    for one in query.select(call, servers(host)):
        yield one.item if isinstance(one, Instance) else one


def servers(host: Host) -> list[Instance]:
    """The DNS servers of each interface and family."""
    return [
        _servers(one.alias, one.index, family, interface(host, one.link).servers)
        for one in places(host)
        for family in FAMILY
    ]


def _servers(alias: str, number: int, family: str, all_servers: list[str]) -> Instance:
    mine = [one for one in all_servers if (":" in one) == (family == "IPv6")]
    raw = {"InterfaceAlias": alias, "InterfaceIndex": number, "AddressFamily": family}
    shown = {
        "AddressFamily": UInt16(FAMILY[family]),
        "InterfaceAlias": alias,
        "InterfaceIndex": UInt32(number),
        "ServerAddresses": mine,
        "Address": mine,
        "ElementName": alias,
    }
    return Instance(item("MSFT_DNSClientServerAddress", f"{alias}|{family}", shown), raw)


def _protocol(host: Host) -> Instance:
    kept = network(host).protocol
    believed = kernel(host).sysctl("ipv4/conf/all/accept_redirects") == "1"
    raw: dict[str, Any] = {name: kept.get(name, default) for name, (_, default) in _PROTOCOL.items()}
    raw |= {name: int(kept.get(name, default)) for name, default in _LIMITS.items()}
    raw["IcmpRedirects"] = "Enabled" if believed else "Disabled"
    shown: dict[str, Any] = {name: enum(numbers, raw[name]) for name, (numbers, _) in _PROTOCOL.items()}
    shown |= {
        "DefaultHopLimit": UInt32(raw["DefaultHopLimit"]),
        "NeighborCacheLimit": UInt32(raw["NeighborCacheLimitEntries"]),
        "RouteCacheLimit": UInt32(raw["RouteCacheLimitEntries"]),
        "ReassemblyLimit": UInt32(raw["ReassemblyLimitBytes"]),
        "MinimumMtu": UInt32(raw["MinimumMtu"]),
    }
    return Instance(item("MSFT_NetIPv4Protocol", "IPv4", shown), raw)


def _profile(name: str, *, on: bool) -> Instance:
    shown = {
        "Name": name,
        "Profile": name,
        "Enabled": enum(_ENABLED, "True" if on else "False"),
        "DefaultInboundAction": enum(_ACTIONS, "NotConfigured"),
        "DefaultOutboundAction": enum(_ACTIONS, "NotConfigured"),
        "AllowInboundRules": enum(_ENABLED, "NotConfigured"),
        "AllowLocalFirewallRules": enum(_ENABLED, "NotConfigured"),
        "NotifyOnListen": enum(_ENABLED, "False"),
        "LogFileName": r"%systemroot%\system32\LogFiles\Firewall\pfirewall.log",
        "InstanceID": f"MSFT|FW|FirewallProfile|{name}",
    }
    return Instance(item("MSFT_NetFirewallProfile", name, shown), {"Name": name})
