"""The host's network namespace: links, addresses, routes and neighbours, read and changed with `ip`."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Family = Literal[4, 6]
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
FAMILIES: tuple[Family, ...] = (4, 6)


class Refused(Exception):
    """The kernel says no; `reason` in its words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Link:
    """A network device of the namespace."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    loopback: bool


@dataclass(frozen=True)
class Address:
    link: str
    interface: IPInterface
    dynamic: bool


@dataclass(frozen=True)
class KernelRoute:
    """A route as the kernel has it; `via` is None for what is on the link.

    `kind` is unicast, local, broadcast or multicast.
    """

    link: str
    to: IPNetwork
    via: str | None
    metric: int
    protocol: str
    kind: str


@dataclass(frozen=True)
class Chosen:
    """What the kernel answers for one destination."""

    link: str
    source: str
    via: str | None


@dataclass(frozen=True)
class Neighbor:
    link: str
    address: str
    mac: str | None
    state: str


@dataclass(frozen=True)
class Kernel:
    """The namespace of that name."""

    namespace: str

    def links(self) -> list[Link]:
        return [_link(one) for one in self._read("link", "show")]

    def addresses(self) -> list[Address]:
        return [
            Address(
                entry["ifname"],
                ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}"),
                bool(one.get("dynamic")),
            )
            for entry in self._read("address", "show")
            for one in entry.get("addr_info", [])
            if "local" in one
        ]

    def routes(self, family: Family, *, table: Literal["main", "local"] = "main") -> list[KernelRoute]:
        told = self._read(f"-{family}", "route", "show", "table", table)
        every = [{**one, **hop} for one in told for hop in one.get("nexthops", [{}])]
        return [_route(one, family) for one in every if "dev" in one]

    def choose(self, destination: str, *, source: str | None = None, link: str | None = None) -> Chosen:
        """The way that a packet to there would take. Raises Refused when there is none."""
        query = ["route", "get", destination]
        query += ["from", source] if source else []
        query += ["oif", link] if link else []
        (one,) = self._read(*query)
        return Chosen(one["dev"], one.get("prefsrc") or one.get("src") or source or "", one.get("gateway"))

    def neighbors(self) -> list[Neighbor]:
        told = [one for family in FAMILIES for one in self._read(f"-{family}", "neighbor", "show")]
        return [
            Neighbor(one["dev"], one["dst"], one.get("lladdr"), (one.get("state") or ["NONE"])[0])
            for one in told
        ]

    def add_route(self, route: KernelRoute) -> None:
        self.run(f"-{route.to.version}", "route", "append", *_words(route))

    def delete_route(self, route: KernelRoute) -> None:
        self.run(f"-{route.to.version}", "route", "del", *_words(route))

    def sysctl(self, name: str) -> str:
        return self._proc("cat", f"/proc/sys/net/{name}").strip()

    def set_sysctl(self, name: str, value: str) -> None:
        self._proc("sh", "-c", f'printf %s "$1" > /proc/sys/net/{name}', "sh", value)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            ["ip", "-n", self.namespace, *words], capture_output=True, text=True, timeout=20, check=False
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def _read(self, *words: str) -> list[dict[str, Any]]:
        told = self.run("-j", *words)
        return [one for one in json.loads(told or "[]") if one]

    def _proc(self, *command: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout


def exists(namespace: str) -> bool:
    return Path("/run/netns", namespace).exists()


def _link(one: Mapping[str, Any]) -> Link:
    flags = one["flags"]
    return Link(
        index=one["ifindex"],
        name=one["ifname"],
        mac=one.get("address", ""),
        mtu=one["mtu"],
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        loopback="LOOPBACK" in flags,
    )


def _route(one: Mapping[str, Any], family: Family) -> KernelRoute:
    everything = "0.0.0.0/0" if family == 4 else "::/0"
    return KernelRoute(
        link=one["dev"],
        to=ipaddress.ip_network(everything if one["dst"] == "default" else one["dst"]),
        via=one.get("gateway"),
        metric=one.get("metric", 0),
        protocol=one.get("protocol", ""),
        kind=one.get("type", "unicast"),
    )


def _words(route: KernelRoute) -> Sequence[str]:
    via = ["via", route.via] if route.via else []
    return [str(route.to), *via, "dev", route.link, "metric", str(route.metric)]
