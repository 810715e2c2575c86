r"""Resolve-DnsName, Clear-DnsClientCache, Get-DnsClientNrptPolicy, the cmdlets of DnsClientNrptRule.

Rules are in the registry, as on Windows: the host's own below `LOCAL`, a policy's below `POLICY`. While the
latter key exists, also when it is empty, the former do not count (net/dns/nrpt_windows.go of Tailscale).
A policy of a test: `registry.set(rf"{POLICY}\{{…}}", Name=[".corp.example"], GenericDNSServers="10.0.0.1")`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.winhost.engine import Call, CimEnum, CmdletError, Item, UInt16, UInt32, emulates
from tests.winhost.net import resolver
from tests.winhost.net.cim import item, refuse
from tests.winhost.net.resolver import Lookup, NoAnswer, Rule
from tests.winhost.state import Host
from tests.winhost.system.stores import Registry

_MOST = 50
_OVERRIDES = 8
"""Of ConfigOptions: the rule names DNS servers."""
_NOT_HERE = (
    *("CimSession", "AsJob", "GpoName", "Server", "DAEnable", "DAIPsecEncryptionType", "DAIPsecRequired"),
    *("DANameServers", "DAProxyServerName", "DAProxyType", "DnsSecEnable", "DnsSecIPsecEncryptionType"),
    *("DnsSecIPsecRequired", "DnsSecValidationRequired", "IPsecTrustAuthority", "NameEncoding"),
)
_HOST_NOT_FOUND, _TRY_AGAIN = 11001, 11002
"""Of Winsock."""
_TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
_FAILED = {
    "NXDOMAIN": ("DNS_ERROR_RCODE_NAME_ERROR", "DNS name does not exist", "ResourceUnavailable"),
    "SERVFAIL": ("DNS_ERROR_RCODE_SERVER_FAILURE", "DNS server failure", "ResourceUnavailable"),
    "REFUSED": ("DNS_ERROR_RCODE_REFUSED", "DNS operation refused", "ResourceUnavailable"),
    "": (
        "ERROR_TIMEOUT",
        "This operation returned because the timeout period expired",
        "OperationTimeout",
    ),
}


@dataclass(frozen=True)
class _Place:
    registry: Registry

    def change(self, name: str, **values: Any) -> None:
        self.registry.set(rf"{resolver.LOCAL}\{name}", **values)


@emulates("Get-DnsClientNrptRule")
def get_rule(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, *_NOT_HERE)
    there = resolver.rules(host)
    for name in call.list("Name"):
        if not any(_is(rule, name) for rule in there):
            yield _not_found(name)
    wanted = call.list("Name")
    yield from (_rule(one) for one in there if not wanted or any(_is(one, name) for name in wanted))


@emulates("Add-DnsClientNrptRule")
def add_rule(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, *_NOT_HERE)
    name = f"{{{str(uuid.uuid4()).upper()}}}"
    _place(host).change(name, Version=2, ConfigOptions=_OVERRIDES, **_values(call))
    if call.switch("PassThru"):
        yield _rule(_named(host, name))


@emulates("Set-DnsClientNrptRule")
def set_rule(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, *_NOT_HERE)
    rule = _named(host, call.get("Name"))
    _place(host).change(rule.id, **_values(call))
    if call.switch("PassThru"):
        yield _rule(_named(host, rule.id))


@emulates("Remove-DnsClientNrptRule")
def remove_rule(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, *_NOT_HERE)
    rule = _named(host, call.get("Name"))
    _place(host).registry.remove(rf"{resolver.LOCAL}\{rule.id}")
    if call.switch("PassThru"):
        yield _rule(rule)


@emulates("Get-DnsClientNrptPolicy")
def get_policy(host: Host, call: Call) -> Iterator[Item]:
    """Without -Effective: what policies say."""
    refuse(call, "CimSession", "AsJob")
    there = resolver.effective(host) if call.switch("Effective") else resolver.rules(host, resolver.POLICY)
    wanted = str(call.get("Namespace", "")).lower()
    for rule in there:
        for name in rule.namespaces:
            if not wanted or resolver.fits(name, wanted.lstrip(".")):
                shown = {"Namespace": name, "NameServers": list(rule.servers), "NameEncoding": "Disable"}
                yield item("PS_DnsClientNrptPolicy", name, shown, namespace="ROOT/Microsoft/Windows/DNS")


@emulates("Clear-DnsClientCache")
def clear_cache(host: Host, call: Call) -> None:
    refuse(call, "CimSession", "AsJob")
    host.part(resolver.Names).cache.clear()


@emulates("Resolve-DnsName", alone=False)
def resolve(host: Host, call: Call) -> Iterator[Item]:
    not_here = ("LlmnrFallback", "LlmnrNetbiosOnly", "LlmnrOnly", "NetbiosFallback", "DnssecOk", "DnssecCd")
    refuse(call, *not_here, "CacheOnly", "NoRecursion", "NoIdn")
    name, kind = str(call.get("Name")), str(call.get("Type", "A"))
    if not call.switch("NoHostsFile") and kind == "A":
        for address in resolver.hosts_file(host).get(name.lower(), ()):
            yield _record(name, "A", 0, {"IPAddress": address, "IP4Address": address})
            return
    lookup = Lookup(name, kind, quick=call.switch("QuickTimeout"), tcp=call.switch("TcpOnly"))
    try:
        found = resolver.look_up(host, lookup, servers=call.list("Server"))
    except NoAnswer as exc:
        raise _failed(name, "") from exc
    if found.rcode not in ("NOERROR",):
        raise _failed(name, found.rcode)
    for owner, what, ttl, text in found.records:
        told = {"IPAddress": text, f"IP{'4' if what == 'A' else '6'}Address": text}
        yield _record(owner, what, ttl, told if what in ("A", "AAAA") else {"NameHost": text})


@emulates("[Net.Dns]::GetHostAddresses", alone=False)
def get_host_addresses(host: Host, call: Call) -> Iterator[str]:
    """Of .NET; the error's id is Winsock's number."""
    name = str(call.get("Name"))
    if by_file := resolver.hosts_file(host).get(name.lower()):
        yield from by_file
        return
    try:
        found = resolver.look_up(host, Lookup(name, "A"))
    except NoAnswer as exc:
        raise _not_resolved(_TRY_AGAIN) from exc
    addresses = [text for _, kind, _, text in found.records if kind == "A"]
    if not addresses:
        raise _not_resolved(_TRY_AGAIN if found.rcode == "SERVFAIL" else _HOST_NOT_FOUND)
    yield from addresses


def _not_resolved(number: int) -> CmdletError:
    return CmdletError("No such host is known", error_id=str(number))


def _values(call: Call) -> dict[str, Any]:
    """Those that are given, as the registry has them."""
    spaces = [str(one) for one in call.list("Namespace")]
    if len(spaces) > _MOST:
        raise CmdletError(
            f"The number of namespaces exceeds the limit of {_MOST}.",
            error_id="InvalidNamespace",
            category="InvalidArgument",
        )
    given = {
        "Name": spaces or None,
        "GenericDNSServers": "; ".join(map(str, call.list("NameServers"))) or None,
        "Comment": call.get("Comment"),
        "DisplayName": call.get("DisplayName"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _place(host: Host) -> _Place:
    registry = host.part(resolver.Names).registry
    assert registry is not None
    return _Place(registry)


def _named(host: Host, name: str) -> Rule:
    found = next((one for one in resolver.rules(host) if _is(one, name)), None)
    if found is None:
        raise _not_found(name)
    return found


def _is(rule: Rule, name: str) -> bool:
    return rule.id.lower() == str(name).lower()


def _not_found(name: str) -> CmdletError:
    return CmdletError(
        f"Failed to find the rule {name}.",
        exception="Microsoft.Management.Infrastructure.CimException",
        error_id="WIN32 1168",
        category="ObjectNotFound",
        target=name,
        terminating=False,
    )


def _rule(rule: Rule) -> Item:
    shown = {
        "Name": rule.id,
        "Version": UInt32(2),
        "Namespace": list(rule.namespaces),
        "IPsecCARestriction": None,
        "DirectAccessDnsServers": None,
        "DirectAccessEnabled": False,
        "DnsSecEnabled": False,
        "NameServers": list(rule.servers),
        "NameEncoding": "Disable",
        "DisplayName": rule.display,
        "Comment": rule.comment,
    }
    return item("PS_DnsClientNrptRule", rule.id, shown, namespace="ROOT/Microsoft/Windows/DNS")


def _record(name: str, kind: str, ttl: int, told: dict[str, Any]) -> Item:
    shown = {
        "Name": name,
        "Type": CimEnum(_TYPES.get(kind, 0), kind),
        "TTL": UInt32(ttl),
        "Section": CimEnum(1, "Answer"),
        "CharacterSet": CimEnum(1, "Unicode"),
        "DataLength": UInt16(4),
        **told,
    }
    return Item(f"Microsoft.DnsClient.Commands.DnsRecord_{kind}", f"{name}|{kind}", shown)


def _failed(name: str, rcode: str) -> CmdletError:
    error_id, text, category = _FAILED.get(rcode, (f"DNS_ERROR_RCODE_{rcode}", rcode, "ResourceUnavailable"))
    return CmdletError(
        f"{name} : {text}",
        exception="System.ComponentModel.Win32Exception",
        error_id=error_id,
        category=category,
        target=name,
        terminating=False,
    )
