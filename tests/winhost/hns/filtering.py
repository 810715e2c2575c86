"""What the virtual filtering platform does to packets, in nftables; docs/emulated-host.md has the guesses.

A network of type l2bridge is a table of the bridge family in the switch's namespace. A source is rewritten
when a frame leaves the bridge: earlier, the bridge would take the host's address for one behind the
container's port. There the port that it came by is not known any more, therefore what comes from an endpoint
is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses
from typing import TypeVar

from tests.winhost.hns import wiring
from tests.winhost.hns.schema import Acl, OutBoundNat, Policy, Route, protocols
from tests.winhost.hns.store import Kept, Wired, short, store
from tests.winhost.state import Host
from vmproxy.util import netns
from vmproxy.util.run import run

Kind = TypeVar("Kind", OutBoundNat, Route, Acl)
_MARK = 0x686E73
_PROTOCOLS = {6: "tcp", 17: "udp"}
_FIRST_PORT, _PORTS = 61000, 64


@dataclass(frozen=True)
class Ground:
    """What the rules of one network are about."""

    host_address: str
    host_mac: str
    gateway_mac: str | None
    """None: it does not answer."""
    inner: str
    """Every port of the bridge that is the host's or an endpoint's: behind the others is the wire."""
    subnets: tuple[str, ...]
    endpoints: tuple[Kept, ...]

    @property
    def hosts(self) -> list[Kept]:
        """The host's own endpoints."""
        return [one for one in self.endpoints if one.wired and not one.wired.container]

    @property
    def host_macs(self) -> str:
        """Of all interfaces of the host that are on this bridge."""
        return _set([self.host_mac, *(one.mac for one in self.hosts)])

    @property
    def way_in(self) -> str:
        """By which interface packets enter the host: that of its own endpoint, where it has one."""
        return next((one.mac for one in self.hosts), self.host_mac)

    def behind_host(self, one: Kept) -> bool:
        """Whether the host is the container's gateway, and so the way back to it."""
        return one.about.GatewayAddress in {other.about.IPAddress for other in self.hosts}


def apply(host: Host) -> None:
    """Bring the rules in line with all endpoints: of one network they also say which ports are others'."""
    bridged = {number for number, one in store(host).networks.items() if one.Type.lower() == "l2bridge"}
    wired = [one for one in store(host).endpoints.values() if one.wired]
    used = {one.about.VirtualNetwork for one in wired}
    for number in used & bridged:
        _apply_bridged(host, _ground(host, number), _table(number))
    for one in wired:
        if one.about.VirtualNetwork not in bridged:
            _load_port(host, one, [])
    for name in store(host).tables - {_table(number) for number in used & bridged}:
        _drop(host, name)


def _apply_bridged(host: Host, ground: Ground, name: str) -> None:
    """One transaction for each namespace."""
    store(host).tables.add(name)
    _load(host, str(host.switch_namespace), f"bridge {name}", _platform(ground))
    _load(host, str(host.namespace), f"ip {name}", _inside(ground))
    for one in ground.endpoints:
        if one.wired and one.wired.container:
            _load_port(host, one, _at_port(one, one.wired, ground))


def _load_port(host: Host, one: Kept, more: list[str]) -> None:
    """Rules in a container's own namespace, which end with it."""
    assert one.wired is not None
    if one.wired.container:
        table = f"inet {_table(one.about.VirtualNetwork)}"
        _load(host, one.wired.namespace, table, [*_acl(one.policies), *more], lasting=False)


def _table(number: str) -> str:
    return f"hns_{short(number)}"


def _ground(host: Host, number: str) -> Ground:
    mac, port = wiring.host_port(host)
    subnets = tuple(one.AddressPrefix for one in store(host).network(number).Subnets)
    ports = [one.wired.port for one in store(host).endpoints.values() if one.wired]
    return Ground(
        host_address=wiring.management_address(host),
        host_mac=mac,
        gateway_mac=wiring.gateway_mac(host),
        inner=_set(map(_quoted, [port, *ports])),
        subnets=subnets,
        endpoints=tuple(one for one in store(host).of_network(number) if one.wired),
    )


def _platform(ground: Ground) -> list[str]:
    """The bridge's table: frames from endpoints, to endpoints, and what leaves for the wire."""
    mac = ground.host_mac
    wire = f"!= {ground.inner}"
    return [
        "chain from { type filter hook prerouting priority -300; policy accept;",
        *(f"  iifname {_quoted(one.wired.port)} jump {_chain(one)}" for one in ground.endpoints if one.wired),
        *(line for one in ground.endpoints for line in _inbound(one, ground, wire)),
        "}",
        *(line for one in ground.endpoints for line in _outbound(one, ground)),
        "chain masked {",
        f"  ether type arp arp saddr ether set {mac}",
        f"  ether saddr set {mac}",
        "}",
        "chain to_wire { type filter hook postrouting priority 0; policy accept;",
        f"  meta mark {_MARK} oifname {wire} jump masked",
        "}",
        "chain to_bridge { type filter hook input priority 0; policy accept;",
        f"  meta mark {_MARK} jump masked",
        "}",
    ]


def _inbound(one: Kept, ground: Ground, wire: str) -> Iterator[str]:
    """A neighbour knows the host's MAC address for it; answers to what was translated come to the host.

    Where the host is the container's gateway, it also forwards what comes from elsewhere.
    """
    arrived = f"  iifname {wire} ether daddr {ground.host_mac}"
    to = f"ether daddr set {one.mac} accept"
    near = f"ip saddr {_networks(ground.subnets)} " if ground.behind_host(one) else ""
    yield f"{arrived} {near}ip daddr {one.about.IPAddress} {to}"
    yield f"{arrived} arp daddr ip {one.about.IPAddress} arp daddr ether set {one.mac} {to}"
    if one.wired and one.wired.container and any(_of(one.policies, OutBoundNat)):
        for name in _PROTOCOLS.values():
            yield f"{arrived} ip daddr {ground.host_address} {name} dport {_ports(one.wired)} {to}"


def _outbound(one: Kept, ground: Ground) -> Iterator[str]:
    """Its own subnet is on the bridge; what needs encapsulation goes into the host, the rest to the wire."""
    yield f"chain {_chain(one)} {{"
    yield f"  meta mark set {_MARK}"
    yield "  ether type != ip return"
    if ground.subnets:
        yield f"  ip daddr {_networks(ground.subnets)} return"
    for route in (each for each in _of(one.policies, Route) if each.NeedEncap):
        to_itself = f"ip daddr {ground.host_address} " if ground.host_address else ""
        yield f"  ip daddr {route.DestinationPrefix} {to_itself}ether daddr set {ground.host_mac} return"
        yield f"  ip daddr {route.DestinationPrefix} ether daddr set {ground.way_in} return"
    if one.wired and one.wired.container:
        lost = (
            "drop"
            if ground.gateway_mac is None
            else f"ether daddr set {ground.gateway_mac} meta pkttype set host"
        )
        yield f"  ether daddr {ground.host_macs} {lost}"
    yield "}"


def _inside(ground: Ground) -> list[str]:
    """OutBoundNAT of what crosses the host."""
    lines = ["chain leaving { type nat hook postrouting priority srcnat; policy accept;"]
    for one in ground.endpoints:
        for chosen in _translated(one, ground, ()):
            lines.append(f"  ip saddr {one.about.IPAddress} {chosen} masquerade")
    return [*lines, "}"]


def _at_port(one: Kept, wired: Wired, ground: Ground) -> list[str]:
    """OutBoundNAT of what goes to the wire: with ports of the host's that nothing else uses."""
    to = f"{ground.host_address}:{_ports(wired)}"
    encapsulated = [route.DestinationPrefix for route in _of(one.policies, Route) if route.NeedEncap]
    return [
        "chain leaving { type nat hook postrouting priority srcnat; policy accept;",
        *(f"  {chosen} snat ip to {to}" for chosen in _translated(one, ground, encapsulated)),
        "}",
    ]


def _translated(one: Kept, ground: Ground, besides: Iterable[str]) -> Iterator[str]:
    """TCP and UDP to where the source becomes the host's address."""
    for policy in _of(one.policies, OutBoundNat):
        kept = _networks([*policy.ExceptionList, *ground.subnets, *besides])
        meant = f"ip daddr {_networks(policy.Destinations)} " if policy.Destinations else ""
        yield f"meta l4proto {{ tcp, udp }} {meant}ip daddr != {kept}"


def _ports(wired: Wired) -> str:
    """Above those that Linux gives to a socket of the host's own."""
    first = _FIRST_PORT + wired.slot * _PORTS
    return f"{first}-{first + _PORTS - 1}"


def _acl(policies: Sequence[Policy]) -> list[str]:
    """Rules of a container's port, in its namespace: those of the switch, then those of Windows' firewall.

    A packet has to be let through by both; the answers of what was let through are.
    """
    rules = sorted(_of(policies, Acl), key=lambda one: one.Priority)
    lines = []
    for level, kind in enumerate(("Switch", "Host")):
        for direction, hook in (("In", "input"), ("Out", "output")):
            chosen = [one for one in rules if (one.RuleType, one.Direction) == (kind, direction)]
            lines += [
                f"chain {kind.lower()}_{hook} {{ type filter hook {hook} priority {level}; policy accept;",
                '  iifname "lo" accept' if hook == "input" else '  oifname "lo" accept',
                "  ct state established,related accept",
                *(line for one in chosen for line in _rule(one)),
                "}",
            ]
    return lines


def _rule(acl: Acl) -> Iterator[str]:
    """One line for each protocol."""
    local, remote = ("daddr", "saddr") if acl.Direction == "In" else ("saddr", "daddr")
    near, far = ("dport", "sport") if acl.Direction == "In" else ("sport", "dport")
    where = _addresses(local, acl.LocalAddresses) + _addresses(remote, acl.RemoteAddresses)
    verdict = "accept" if acl.Action == "Allow" else "drop"
    nearby = acl.LocalPorts or str(acl.LocalPort or acl.InternalPort or "")
    distant = acl.RemotePorts or str(acl.RemotePort or "")
    for number in protocols(acl) or [0]:
        name = _PROTOCOLS.get(number, "")
        which = f"meta l4proto {number} " if number else ""
        ports = _port(name, near, nearby) + _port(name, far, distant)
        yield f"  {where}{which}{ports}{verdict}"


def _addresses(side: str, told: str) -> str:
    return f"ip {side} {_networks(told.split(','))} " if told else ""


def _port(protocol: str, side: str, told: str) -> str:
    return f"{protocol} {side} {_set(one.strip() for one in told.split(','))} " if told else ""


def _load(host: Host, namespace: str, table: str, lines: Iterable[str], *, lasting: bool = True) -> None:
    if lasting:
        wiring.keep(host, f"{namespace} {table}", _nft(namespace, "delete", "table", *table.split()))
    text = "\n".join([f"table {table} {{ }}", f"delete table {table}", f"table {table} {{", *lines, "}", ""])
    run(_nft(namespace, "-f", "-"), stdin=text)


def _drop(host: Host, name: str) -> None:
    for namespace, family in ((host.switch_namespace, "bridge"), (host.namespace, "ip")):
        run(_nft(str(namespace), "delete", "table", family, name), ok=(0, 1))
        wiring.forget(host, f"{namespace} {family} {name}")
    store(host).tables.discard(name)


def _nft(namespace: str, *words: str) -> list[str]:
    return netns.run_in(namespace, ["nft", *words])


def _chain(one: Kept) -> str:
    return f"from_{short(one.about.ID)}"


def _of(policies: Iterable[Policy], kind: type[Kind]) -> Iterator[Kind]:
    return (one for one in policies if isinstance(one, kind))


def _quoted(name: str) -> str:
    return f'"{name}"'


def _set(members: Iterable[str]) -> str:
    return "{ " + ", ".join(members) + " }"


def _networks(prefixes: Iterable[str]) -> str:
    """Merged, as a set takes no prefix that is in another."""
    found = [IPv4Network(one.strip(), strict=False) for one in prefixes]
    merged = [str(one) for one in collapse_addresses(found)]
    return merged[0] if len(merged) == 1 else _set(merged)
