r"""The host's DNS client: names are asked of the servers of the rule with the longest suffix, else of the
network card's; by UDP, and by TCP where the answer is cut. GetAddrInfo, which has the hosts file too, is a
DNS server on the namespace's loopback: programs find it in the resolv.conf that `ip netns exec` gives them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.winhost.net.state import interface, kernel, network
from tests.winhost.state import Host
from tests.winhost.system.stores import Registry
from vmproxy.util import netns

LOCAL = r"HKLM:\SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig"
POLICY = r"HKLM:\SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig"
_ADDRESS = "127.0.0.53"
_QUICK, _PATIENT = 2.0, 10.0
"""Seconds; about what Windows waits for a server with and without -QuickTimeout."""
_NEGATIVE = 5
_CUT = 512


@dataclass(frozen=True)
class Rule:
    """As the registry has it: a namespace with a leading dot is a suffix."""

    id: str
    namespaces: tuple[str, ...]
    servers: tuple[str, ...]
    comment: str = ""
    display: str = ""


@dataclass(frozen=True)
class Lookup:
    name: str
    kind: str
    quick: bool = False
    tcp: bool = False


@dataclass(frozen=True)
class Found:
    """`records` are (owner, type, TTL, text)."""

    rcode: str
    records: tuple[tuple[str, str, int, str], ...]
    message: dns.message.Message


@dataclass(frozen=True)
class Asked:
    """A question that went out. `tcp`: the answer came by TCP."""

    name: str
    kind: str
    server: str
    tcp: bool


@dataclass
class Names:
    """`asked` is every question that went out, in order; `cache` by name and type, until a time."""

    registry: Registry | None = None
    asked: list[Asked] = field(default_factory=list)
    cache: dict[tuple[str, str], tuple[float, Found]] = field(default_factory=dict)
    pool: ThreadPoolExecutor | None = None


class NoAnswer(Exception):
    """Of no server in time, or there is no server."""


def rules(host: Host, base: str = LOCAL) -> list[Rule]:
    registry = host.part(Names).registry
    found = registry.below(base) if registry else {}
    return [
        Rule(
            name,
            tuple(values.get("Name", ())),
            tuple(filter(None, str(values.get("GenericDNSServers", "")).replace(";", " ").split())),
            str(values.get("Comment", "")),
            str(values.get("DisplayName", "")),
        )
        for name, values in found.items()
    ]


def effective(host: Host) -> list[Rule]:
    registry = host.part(Names).registry
    return rules(host, POLICY if registry and registry.exists(POLICY) else LOCAL)


def fits(space: str, name: str) -> bool:
    space, name = space.lower(), name.lower().rstrip(".")
    if space == ".":
        return True
    return f".{name}".endswith(space) and name != space[1:] if space.startswith(".") else name == space


def servers_for(host: Host, name: str) -> tuple[str, ...]:
    """Those of the most specific rule, else of the network cards."""
    fitting = [
        (len(space) + (0 if space.startswith(".") else 1000), rule)
        for rule in effective(host)
        for space in rule.namespaces
        if fits(space, name)
    ]
    if fitting:
        return max(fitting, key=lambda pair: pair[0])[1].servers
    network(host)
    links = [one.name for one in kernel(host).links() if not one.loopback]
    return tuple(server for link in links for server in interface(host, link).servers)


def look_up(host: Host, lookup: Lookup, servers: Sequence[str] = ()) -> Found:
    """By the rules, unless `servers` are given: these bypass them, and the cache. Raises NoAnswer."""
    part, key = host.part(Names), (lookup.name.lower().rstrip("."), lookup.kind)
    if not servers and (kept := part.cache.get(key)) and kept[0] > time.monotonic():
        return kept[1]
    for server in servers or servers_for(host, lookup.name):
        assert part.pool is not None, "the host has no network namespace"
        with contextlib.suppress(dns.exception.DNSException, OSError):
            found = part.pool.submit(_ask, part, lookup, server).result()
            if not servers:
                seconds = min([ttl for _, _, ttl, _ in found.records] or [_NEGATIVE])
                part.cache[key] = (time.monotonic() + seconds, found)
            return found
    raise NoAnswer(lookup.name)


def _ask(part: Names, lookup: Lookup, server: str) -> Found:
    """In a thread of the namespace."""
    query = dns.message.make_query(lookup.name, lookup.kind, use_edns=0, payload=1232)
    timeout = _QUICK if lookup.quick else _PATIENT
    if lookup.tcp:
        answer, tcp = dns.query.tcp(query, server, timeout=timeout), True
    else:
        answer, tcp = dns.query.udp_with_fallback(query, server, timeout=timeout)
    part.asked.append(Asked(lookup.name, lookup.kind, server, tcp))
    records = tuple(
        (
            rrset.name.to_text(omit_final_dot=True),
            dns.rdatatype.to_text(rrset.rdtype),
            rrset.ttl,
            data.to_text(),
        )
        for rrset in answer.answer
        for data in rrset
    )
    return Found(dns.rcode.to_text(answer.rcode()), records, answer)


def hosts_file(host: Host) -> dict[str, list[str]]:
    """IPv4 addresses by name."""
    found: dict[str, list[str]] = {}
    try:
        text = host.local(r"C:\Windows\System32\drivers\etc\hosts").read_text()
    except FileNotFoundError:
        return found
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            if "." in address:
                found.setdefault(name.lower(), []).append(address)
    return found


@contextmanager
def serving(host: Host, registry: Registry) -> Iterator[None]:
    """The host's DNS client, while it is up."""
    part = host.part(Names)
    part.registry = registry
    if host.namespace is None or not netns.exists(host.namespace):
        yield
        return
    with ThreadPoolExecutor(16, initializer=netns.enter, initargs=(host.namespace,)) as pool:
        part.pool = pool
        with _listening(host, host.namespace), _configured(host.namespace):
            yield


@contextmanager
def _configured(namespace: str) -> Iterator[None]:
    """Programs of the namespace ask this server; afterwards whom they asked before."""
    file = Path("/etc/netns", namespace, "resolv.conf")
    before = file.read_text() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"nameserver {_ADDRESS}\noptions timeout:12 attempts:1\n")
    try:
        yield
    finally:
        if before is not None:
            file.write_text(before)
        else:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else is in it
                file.parent.rmdir()


@contextmanager
def _listening(host: Host, namespace: str) -> Iterator[None]:
    kernel(host).run("link", "set", "lo", "up")
    with netns.open_socket(namespace, "udp") as udp, netns.open_socket(namespace, "tcp") as tcp:
        for one in (udp, tcp):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((_ADDRESS, 53))
        tcp.listen(16)
        over = threading.Event()
        loops = [
            threading.Thread(target=loop, args=(host, server, over), daemon=True)
            for loop, server in ((_datagrams, udp), (_connections, tcp))
        ]
        for one in loops:
            one.start()
        try:
            yield
        finally:
            over.set()
            for one in loops:
                one.join()


def _datagrams(host: Host, server: socket.socket, over: threading.Event) -> None:
    server.settimeout(0.2)
    while not over.is_set():
        with contextlib.suppress(OSError):
            wire, sender = server.recvfrom(4096)
            work = (host, wire, server, sender)
            threading.Thread(target=_reply, args=work, daemon=True).start()


def _reply(host: Host, wire: bytes, server: socket.socket, sender: object) -> None:
    with contextlib.suppress(OSError, dns.exception.DNSException):
        server.sendto(_answer(host, wire, most=_CUT), sender)  # type: ignore[call-overload]


def _connections(host: Host, server: socket.socket, over: threading.Event) -> None:
    server.settimeout(0.2)
    while not over.is_set():
        with contextlib.suppress(OSError):
            channel, _ = server.accept()
            threading.Thread(target=_converse, args=(host, channel), daemon=True).start()


def _converse(host: Host, channel: socket.socket) -> None:
    with channel, contextlib.suppress(OSError, struct.error, dns.exception.DNSException):
        channel.settimeout(_PATIENT)
        with channel.makefile("rb") as stream:
            while head := stream.read(2):  # two at once: for both families
                (length,) = struct.unpack(">H", head)
                told = _answer(host, stream.read(length), most=65535)
                channel.sendall(struct.pack(">H", len(told)) + told)


def _answer(host: Host, wire: bytes, *, most: int) -> bytes:
    """Cut to that size, with the flag that says so."""
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query, recursion_available=True)
    (question,) = query.question
    name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
    if (addresses := hosts_file(host).get(name.lower())) and kind in ("A", "AAAA"):
        if kind == "A":
            response.answer = [dns.rrset.from_text(question.name, 0, "IN", "A", *addresses)]
    else:
        try:
            found = look_up(host, Lookup(name, kind))
            response.set_rcode(found.message.rcode())
            response.answer, response.authority = found.message.answer, found.message.authority
        except NoAnswer:
            response.set_rcode(dns.rcode.SERVFAIL)
    told = response.to_wire(max_size=65535)
    if len(told) <= most:
        return told
    response.answer, response.authority, response.additional = [], [], []
    response.flags |= dns.flags.TC
    return response.to_wire()
