"""The cluster's names on a client: rules by which its resolver asks the cluster's DNS.

A rule is ours when its comment says so. A foreign rule for one of our namespaces, or for names below it, is
refused: it would decide in place of ours. A wider one, such as a VPN's for all names, is less specific.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network

from vmproxy.errors import Conflict
from vmproxy.model.net import Network
from vmproxy.model.seen import ClientSeen, DnsSeen, NameRule
from vmproxy.model.steps import NameStep, RemoveNames, SetNames

MOST_NAMESPACES = 50
"""That a rule of Windows may have: net/dns/nrpt_windows.go of Tailscale."""
PORT = 53
"""Always: a rule of Windows cannot name another one."""


def wanted(dns: DnsSeen, service_cidrs: Iterable[Network], *, comment: str) -> tuple[NameRule, ...]:
    """One rule, or more where the Service ranges have more reverse zones than one may have."""
    zones = [f".{zone}" for cidr in service_cidrs for zone in reverse_zones(cidr)]
    spaces = list(dict.fromkeys([f".{dns.domain}", *zones]))
    return tuple(
        NameRule(tuple(spaces[start : start + MOST_NAMESPACES]), (dns.server,), comment)
        for start in range(0, len(spaces), MOST_NAMESPACES)
    )


def reverse_zones(cidr: Network) -> Iterator[str]:
    """The zones of whole octets that hold exactly that network; one inside a /24 has none of its own."""
    if not isinstance(cidr, IPv4Network) or cidr.prefixlen > 24:
        return
    octets = max(1, -(-cidr.prefixlen // 8))
    for zone in cidr.subnets(new_prefix=8 * octets):
        yield ".".join([*reversed(str(zone.network_address).split(".")[:octets]), "in-addr.arpa"])


def plan(rules: tuple[NameRule, ...], seen: ClientSeen, *, comment: str, client: str) -> tuple[NameStep, ...]:
    """Raises Conflict when a foreign rule stands in the way."""
    _refuse_foreign(rules, seen, comment=comment, client=client)
    left, missing = list(ours(seen, comment)), []
    for rule in rules:
        there = next((item for item in left if _same(item, rule)), None)
        if there is None:
            missing.append(rule)
        else:
            left.remove(there)
    steps: list[NameStep] = []
    for rule in missing:
        steps.append(SetNames(rule, tuple(left)))
        left = []
    why = "there is another one for the same names" if rules else "the site file has no dns"
    return (*steps, *(RemoveNames(rule, why) for rule in left))


def remove_plan(seen: ClientSeen, *, comment: str) -> tuple[NameStep, ...]:
    """Take away every rule of ours, before the routes to its server go."""
    return tuple(RemoveNames(rule, "before the way to its server goes") for rule in ours(seen, comment))


def ours(seen: ClientSeen, comment: str) -> tuple[NameRule, ...]:
    return tuple(rule for rule in seen.rules if rule.comment == comment)


def in_place(rules: Sequence[NameRule], seen: ClientSeen, *, comment: str) -> int:
    """How many of these rules the client has."""
    there = ours(seen, comment)
    return sum(any(_same(rule, item) for item in there) for rule in rules)


def question(name: str) -> bytes:
    """A DNS query for that name's IPv4 address (RFC 1035, section 4.1), which any server answers somehow."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", 0x7670, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 1, 1)


def _same(one: NameRule, other: NameRule) -> bool:
    return _folded(one) == _folded(other) and one.servers == other.servers


def _folded(rule: NameRule) -> list[str]:
    return sorted(name.lower() for name in rule.namespaces)


def _refuse_foreign(rules: Iterable[NameRule], seen: ClientSeen, *, comment: str, client: str) -> None:
    spaces = [space for rule in rules for space in rule.namespaces]
    foreign = [
        f"rule {rule.id}: {name} is asked of {', '.join(map(str, rule.servers)) or 'no server'}"
        + (f" (comment: {rule.comment})" if rule.comment else "")
        for rule in seen.rules
        if rule.comment != comment
        for name in rule.namespaces
        if any(_below(name, space) for space in spaces)
    ]
    if foreign:
        raise Conflict(
            f"cannot set the cluster's names on {client}: rules of others are for the same names",
            details=foreign,
            hint="find out who set them (another site, a VPN); Remove-DnsClientNrptRule -Name RULE removes "
            "one; or take dns out of the site file",
        )


def _below(name: str, space: str) -> bool:
    """Whether what a rule says of `name` decides on names in our namespace."""
    return f".{name.lower().strip('.')}".endswith(space.lower())
