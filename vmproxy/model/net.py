"""Addresses and routes as values. Text is parsed and printed only where it enters or leaves vmproxy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Route:
    """`via` is the next hop; None: on-link.

    `flaw` says what is wrong with a route that is set only in part; "" when it is whole.
    """

    prefix: Network
    via: Address | None
    flaw: str = ""

    def __str__(self) -> str:
        return f"{self.prefix} via {self.via or 'its own interface'}"


def addresses(texts: Iterable[str]) -> Iterator[Address]:
    """Of text that others wrote: what is no address is left out."""
    for text in texts:
        with suppress(ValueError):
            yield ip_address(text)


def networks(texts: Iterable[str]) -> Iterator[Network]:
    """Of text that others wrote, whose host bits Kubernetes ignores: what is no network is left out."""
    for text in texts:
        with suppress(ValueError):
            yield ip_network(text.strip(), strict=False)


def is_default(network: Network) -> bool:
    """Whether it holds every address of its family."""
    return network.prefixlen == 0


def overlap(one: Network, other: Network) -> bool:
    """Networks of different families never do."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def sample(network: Network) -> Address:
    """An address inside it that is not the network's own, where there is one."""
    return network[1] if network.num_addresses > 2 else network[0]
