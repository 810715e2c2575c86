"""Addresses and routes as values. Text is parsed and printed only where it enters or leaves vmproxy."""

from __future__ import annotations

import re
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
    collapse_addresses,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
_LENGTH = re.compile(r"/\d{1,3}$", re.ASCII)


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


def is_address(text: str) -> bool:
    """And no name."""
    return any(True for _ in addresses([text]))


def networks(texts: Iterable[str]) -> Iterator[Network]:
    """Of text that others wrote, as Go parses it: host bits are ignored, a length is needed and is a number.
    What is no network is left out."""
    for text in texts:
        if _LENGTH.search(text.strip()):
            with suppress(ValueError):
                yield ip_network(text.strip(), strict=False)


def summed(ranges: Iterable[Network]) -> tuple[Network, ...]:
    """The fewest networks that hold exactly these, IPv4 first: as many as there are is rarely of use."""
    listed = list(ranges)
    return (
        *collapse_addresses(item for item in listed if isinstance(item, IPv4Network)),
        *collapse_addresses(item for item in listed if isinstance(item, IPv6Network)),
    )


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
