"""The one rule of the marker: it names a route before the route exists, and until it is gone.

A run that is killed at any moment leaves no route behind that the next one does not know as ours.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import assert_never

from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer, CarrierDriver, ClientDriver, Connection
from vmproxy.model.net import Address, Route
from vmproxy.model.seen import Marker
from vmproxy.model.steps import MarkRoutes, RemoveRoute, RouteStep, SetRoute


class Marking:
    """`marker` is what is on the VM now; None: there is no VM of ours, and routes may only be removed."""

    def __init__(self, carrier: CarrierDriver, client: ClientDriver, marker: Marker | None) -> None:
        self._carrier = carrier
        self._client = client
        self.marker = marker

    def do(self, step: RouteStep) -> None:
        match step:
            case SetRoute():
                self._mark((*self._routes(), step.route))
                self._client.set_route(step.route, step.before)
            case RemoveRoute():
                self._client.remove_route(step.route)
            case MarkRoutes():
                pass
            case _:
                assert_never(step)
        if self.marker is not None:
            self._mark(step.routes)

    def trial(self, connection: Connection, via: Address) -> Answer:
        """Connect by way of a route to that one address, which is gone again afterwards."""
        before, route = self._routes(), Route(ip_network(connection.address), via)
        self._mark((*before, route))
        try:
            return self._client.trial(connection, route)
        finally:
            self._mark(before)

    def _routes(self) -> tuple[Route, ...]:
        if self.marker is None:
            raise VmproxyError("cannot set a route: the VM behind it is gone", hint="run it again")
        return self.marker.routes

    def _mark(self, routes: tuple[Route, ...]) -> None:
        assert self.marker is not None
        marker = replace(self.marker, routes=tuple(dict.fromkeys(routes)))
        if marker != self.marker:
            self._carrier.mark(marker)
        self.marker = marker
