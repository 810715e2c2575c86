"""A network namespace as the machine whose traffic goes through the VM."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network

from vmproxy.errors import ToolFailed
from vmproxy.hosts.linux.names import NamespaceNames
from vmproxy.hosts.linux.probe import try_connection
from vmproxy.hosts.protocols import Answer, Connection, Resolved
from vmproxy.model.net import Address, Interface, Network, Route
from vmproxy.model.seen import ClientSeen, NameRule
from vmproxy.util import netns
from vmproxy.util.run import run


class NamespaceClient:
    """`name` is the machine's in messages."""

    def __init__(self, name: str, *, namespace: str) -> None:
        self._name = name
        self._namespace = namespace
        self._names = NamespaceNames(name, namespace=namespace)

    def observe(self) -> ClientSeen:
        return ClientSeen(self._routes(), self._addresses(), self._names.rules())

    def set_route(self, route: Route, before: Sequence[Route]) -> None:  # noqa: ARG002 (all others go)
        run(["ip", "-n", self._namespace, "route", "replace", str(route.prefix), "via", str(route.via)])
        for other in self._routes():
            if other.prefix == route.prefix and other != route:
                self.remove_route(other)
        if route not in self._routes():
            raise ToolFailed(f"cannot route {route.prefix} on {self._name}: the route is not there")

    def remove_route(self, route: Route) -> None:
        via = ["via", str(route.via)] if route.via else []
        run(["ip", "-n", self._namespace, "route", "del", str(route.prefix), *via], ok=(0, 2))

    def set_names(self, rule: NameRule, before: Sequence[NameRule]) -> None:
        self._names.set(rule, before)

    def remove_names(self, rule: NameRule) -> None:
        self._names.remove(rule)

    def resolve(self, names: Sequence[str]) -> list[Resolved]:
        return self._names.resolve(names)

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        return [try_connection(item, self._socket, via=self._via(item.address)) for item in connections]

    def trial(self, connection: Connection, route: Route) -> Answer:
        run(["ip", "-n", self._namespace, "route", "replace", str(route.prefix), "via", str(route.via)])
        try:
            return self.probe([connection])[0]
        finally:
            self.remove_route(route)

    def _addresses(self) -> tuple[Interface, ...]:
        shown = run(["ip", "-n", self._namespace, "-j", "-4", "address", "show", "scope", "global"])
        found = [item for link in json.loads(shown.stdout or "[]") for item in link.get("addr_info", ())]
        return tuple(ip_interface(f"{item['local']}/{item['prefixlen']}") for item in found)

    def _routes(self) -> tuple[Route, ...]:
        shown = run(["ip", "-n", self._namespace, "-j", "-4", "route", "show"])
        routes = [entry for entry in json.loads(shown.stdout or "[]") if entry.get("protocol") != "kernel"]
        found = (Route(_prefix(entry["dst"]), _address(entry.get("gateway"))) for entry in routes)
        return tuple(dict.fromkeys(found))

    def _via(self, address: Address) -> Address | None:
        shown = run(["ip", "-n", self._namespace, "-j", "route", "get", str(address)], ok=(0, 2))
        entries = json.loads(shown.stdout or "[]")
        return _address(entries[0].get("gateway")) if entries else None

    def _socket(self, connection: Connection) -> socket.socket:
        return netns.open_socket(self._namespace, connection.protocol)


def _prefix(destination: str) -> Network:
    """`ip` writes "default" and leaves out /32."""
    return ip_network("0.0.0.0/0" if destination == "default" else destination)


def _address(text: str | None) -> Address | None:
    return ip_address(text) if text else None
