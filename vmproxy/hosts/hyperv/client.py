"""The routes of a Windows host, its rules for names, and connections from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmproxy.hosts.hyperv.probe import answers_of, question, resolved
from vmproxy.hosts.hyperv.seen import client_seen
from vmproxy.hosts.hyperv.session import Session
from vmproxy.hosts.protocols import Answer, Connection, Resolved
from vmproxy.model.net import Route, sample
from vmproxy.model.seen import ClientSeen, NameRule

_LOOK_UP_SECONDS = 30.0
"""That both ways may take for a name that nobody answers for."""


class WindowsClient:
    def __init__(self, session: Session) -> None:
        self._session = session

    def observe(self) -> ClientSeen:
        return client_seen(self._session.run("routes.ps1", "look at the routes"))

    def set_route(self, route: Route, before: Sequence[Route]) -> None:
        add = {**_plain(route), "sample": str(sample(route.prefix))}
        change = {"remove": [_removed(item) for item in before], "add": add}
        self._session.run("route.ps1", f"set route {route.prefix}", change)

    def remove_route(self, route: Route) -> None:
        change = {"remove": [_removed(route)], "add": None}
        self._session.run("route.ps1", f"remove route {route.prefix}", change)

    def set_names(self, rule: NameRule, before: Sequence[NameRule]) -> None:
        add = {"namespaces": list(rule.namespaces), "servers": list(map(str, rule.servers))}
        self._change_names(rule, f"set {rule.namespaces[0]}", before, add)

    def remove_names(self, rule: NameRule) -> None:
        self._change_names(rule, f"remove the rule {rule.id} for names", [rule], None)

    def _change_names(
        self, rule: NameRule, what: str, before: Sequence[NameRule], add: dict[str, list[str]] | None
    ) -> None:
        display = rule.comment.replace(":", " ", 1).replace(":", "/")
        change = {
            "comment": rule.comment,
            "display": display,
            "remove": [item.id for item in before],
            "add": add,
        }
        self._session.run("names.ps1", what, change)

    def resolve(self, names: Sequence[str]) -> list[Resolved]:
        found: list[Any] = []
        if names:
            seconds = 60.0 + _LOOK_UP_SECONDS * len(names)
            self._session.run(
                "resolve.ps1", "look names up", {"names": list(names)}, timeout=seconds, each=found.append
            )
        return [resolved(line) for line in found]

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        return self._probe(connections, None)

    def trial(self, connection: Connection, route: Route) -> Answer:
        return self._probe([connection], _plain(route))[0]

    def _probe(self, connections: Sequence[Connection], trial: dict[str, str] | None) -> list[Answer]:
        data = {"connections": [question(item) for item in connections], "trial": trial}
        answers: list[Any] = []
        seconds = 60.0 + 6 * len(connections)
        self._session.run("probe.ps1", "try connections", data, timeout=seconds, each=answers.append)
        return answers_of(answers)


def _removed(route: Route) -> dict[str, str]:
    """With what route.exe takes."""
    network = {"network": str(route.prefix.network_address), "mask": str(route.prefix.netmask)}
    return {**_plain(route), **network}


def _plain(route: Route) -> dict[str, str]:
    return {"prefix": str(route.prefix), "via": str(route.via or "")}
