"""What HNS keeps: networks, endpoints, lists of policies; and what of it is real at the moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from tests.undertaker import Undertaker
from tests.winhost.hns.errors import ENDPOINT_NOT_FOUND, NETWORK_NOT_FOUND, HnsError
from tests.winhost.hns.schema import Endpoint, Network, Policy, PolicyList
from tests.winhost.state import Host

Form = Literal["first", "second"]


@dataclass(frozen=True)
class Wired:
    """Where an endpoint is: a device in a namespace, and its port on the switch's bridge."""

    namespace: str
    device: str
    port: str
    container: str = ""
    """The container's id; empty: it is the host's own interface."""
    slot: int = 0
    """Of a container: no other has it. Says which of the host's ports OutBoundNAT uses for it."""


@dataclass
class Kept:
    """An endpoint, its policies as they were given, and as they are understood."""

    about: Endpoint
    given: list[dict[str, Any]]
    policies: list[Policy]
    second: bool
    """It was made by HCN."""
    wired: Wired | None = None

    @property
    def mac(self) -> str:
        """As Linux writes it."""
        return self.about.MacAddress.replace("-", ":").lower()


@dataclass
class Container:
    """As its runtime knows it. `programs` are those in its image."""

    id: str
    name: str
    runtime: Literal["containerd", "docker"]
    pod: str
    image: str
    programs: frozenset[str]
    endpoint: str
    namespace: str


@dataclass
class Store:
    """The part of `Host` about HNS and its containers."""

    networks: dict[str, Network] = field(default_factory=dict)
    endpoints: dict[str, Kept] = field(default_factory=dict)
    policy_lists: dict[str, PolicyList] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    shown: Form = "first"
    """How Get-HnsEndpoint shows policies that HCN was given: no source says which."""
    tables: set[str] = field(default_factory=set)
    """Of nftables, in the switch's namespace and in the host's."""
    undertaker: Undertaker | None = None
    """Takes away what is real, also when this process is killed."""

    def network(self, number: str) -> Network:
        found = self.networks.get(number.upper())
        if found is None:
            raise HnsError(NETWORK_NOT_FOUND)
        return found

    def endpoint(self, number: str) -> Kept:
        found = self.endpoints.get(number.upper())
        if found is None:
            raise HnsError(ENDPOINT_NOT_FOUND)
        return found

    def of_network(self, number: str) -> Iterator[Kept]:
        return (one for one in self.endpoints.values() if one.about.VirtualNetwork == number.upper())


def store(host: Host) -> Store:
    return host.part(Store)


def short(number: str, length: int = 10) -> str:
    """Digits for the name of a device, a table or a namespace."""
    return sha256(number.encode()).hexdigest()[:length]
