"""The containers of a Windows host: what HNS shows of them, and connections from inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from vmproxy.errors import UsageError
from vmproxy.hosts.hyperv.facts import items
from vmproxy.hosts.hyperv.probe import answers_of, question
from vmproxy.hosts.hyperv.session import Session
from vmproxy.hosts.protocols import Answer, Connection
from vmproxy.model.net import Address, Network, addresses, networks
from vmproxy.model.seen import (
    AccessRule,
    CniSeen,
    ContainersSeen,
    HnsEndpoint,
    HnsNetwork,
    InterfaceSeen,
)
from vmproxy.model.steps import CniFile
from vmproxy.site.model import Containers

Facts = Mapping[str, Any]
_SECONDS = 12.0
"""Starting a program in a container, and its own five seconds."""


class WindowsContainers:
    def __init__(self, session: Session) -> None:
        self._session = session

    def observe(self, asked: Containers, network: Network, cni: CniFile | None) -> ContainersSeen:
        facts = self._session.run("containers.ps1", "look at the containers", {"network": asked.network})
        found = seen(facts, asked, network)
        return replace(found, cni=_cni(self._of_cni("observe", "look at", cni))) if cni else found

    def write_cni(self, file: CniFile, content: bytes) -> None:
        self._of_cni("write", "write", file, content=content.decode())

    def remove_cni(self, file: CniFile) -> None:
        self._of_cni("remove", "remove", file)

    def _of_cni(self, action: str, verb: str, file: CniFile, **more: str) -> Any:
        data = {"action": action, "path": file.path, "labels": dict(file.labels), **more}
        return self._session.run("cni.ps1", f"{verb} {file.path}", data)

    def set_forwarding(self, alias: str, *, on: bool) -> None:
        data = {"alias": alias, "forwarding": "Enabled" if on else "Disabled"}
        self._session.run("forwarding.ps1", f"set forwarding on {alias}", data)

    def probe(self, container: str, connections: Sequence[Connection]) -> list[Answer]:
        lines: list[Any] = []
        data = {"container": container, "connections": [question(item) for item in connections]}
        seconds = 60.0 + _SECONDS * len(connections)
        self._session.run(
            "container.ps1", f"connect from container {container}", data, timeout=seconds, each=lines.append
        )
        if lines and "running" in lines[0]:
            running = ", ".join(str(name) for name in items(lines[0]["running"])) or "none"
            raise UsageError(
                f"no container {container} runs on {self._session.name}",
                hint=f"give the name or the ID of one that runs: {running}",
            )
        return answers_of(lines, container=container)


def seen(facts: Facts, asked: Containers, network: Network) -> ContainersSeen:
    """From containers.ps1's answer. Endpoints of the host itself are no containers."""
    own = {address for item in items(facts["interfaces"]) for address in addresses(items(item["addresses"]))}
    found = [_endpoint(item) for item in items(facts["endpoints"])]
    rivals = [str(name) for name in items(facts["rivals"])]
    every = facts["networks"]
    return ContainersSeen(
        networks=tuple(map(_network, items(every["items"]))) if every else None,
        endpoints=tuple(item for item in found if item is not None and item.address not in own),
        interfaces=tuple(_interfaces(items(facts["interfaces"]), (network, asked.subnet))),
        rival=rivals[0] if rivals else None,
    )


def _cni(facts: Facts) -> CniSeen:
    file = facts["file"]
    others = tuple(str(name) for name in items(facts["others"]))
    sha256 = str(file["sha256"]) if file else None
    return CniSeen(sha256, bool(file and file["ours"]), others, bool(facts["folder"]))


def _network(item: Facts) -> HnsNetwork:
    subnets = {
        prefix: _gateway(subnet["gateway"])
        for subnet in items(item["subnets"])
        for prefix in networks([str(subnet["prefix"])])
    }
    gateways = {prefix: gateway for prefix, gateway in subnets.items() if gateway is not None}
    return HnsNetwork(str(item["name"]), str(item["type"]).lower(), tuple(subnets), gateways)


def _interfaces(found: Iterable[Facts], inside: Iterable[Network]) -> Iterator[InterfaceSeen]:
    some = list(inside)
    for item in found:
        own = tuple(addresses(map(str, items(item["addresses"]))))
        if any(address in network for address in own for network in some):
            yield InterfaceSeen(str(item["alias"]), own, str(item["forwarding"]) == "Enabled")


def _endpoint(item: Facts) -> HnsEndpoint | None:
    """None: one that has no IPv4 address yet, or is another machine's."""
    address = next(addresses([str(item["address"])]), None)
    if address is None or item["remote"]:
        return None
    policies = [_flat(policy) for policy in items(item["policies"])]
    return HnsEndpoint(
        name=str(item["name"]),
        address=address,
        gateway=_gateway(item["gateway"]),
        encapsulated=tuple(_encapsulated(policies)),
        exceptions=_exceptions(policies),
        rules=tuple(_rules(policies)),
    )


def _gateway(text: Any) -> Address | None:
    found = next(addresses([str(text or "")]), None)
    return None if found is None or found.is_unspecified else found


def _flat(policy: Facts) -> dict[str, Any]:
    """Of both versions of HNS' interface: the second has what the first has, in `Settings`."""
    inner = policy.get("Settings")
    known = {**policy, **(inner if isinstance(inner, dict) else {})}
    return {str(name).lower(): value for name, value in known.items()}


def _encapsulated(policies: Iterable[Mapping[str, Any]]) -> Iterator[Network]:
    for policy in policies:
        if str(policy.get("type")).lower() in {"route", "sdnroute"} and policy.get("needencap") is True:
            yield from networks([str(policy.get("destinationprefix"))])


def _exceptions(policies: Iterable[Mapping[str, Any]]) -> tuple[Network, ...] | None:
    found: list[Network] | None = None
    for policy in policies:
        if str(policy.get("type")).lower() == "outboundnat":
            listed = [*items(policy.get("exceptionlist")), *items(policy.get("exceptions"))]
            found = [*(found or []), *networks(map(str, listed))]
    return None if found is None else tuple(found)


def _rules(policies: Iterable[Mapping[str, Any]]) -> Iterator[AccessRule]:
    for policy in policies:
        if str(policy.get("type")).lower() != "acl":
            continue
        action, direction = str(policy.get("action")).lower(), str(policy.get("direction")).lower()
        listed = str(policy.get("remoteaddresses") or "").split(",")
        yield AccessRule(
            "block" if action == "block" else "allow",
            _direction(direction),
            tuple(networks(text if "/" in text else f"{text}/32" for text in listed if text)),
        )


def _direction(text: str) -> Literal["in", "out"]:
    return "in" if text == "in" else "out"
