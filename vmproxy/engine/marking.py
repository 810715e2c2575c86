"""The one rule of the marker: it names what is set on the host before that exists, and until it is gone.

A run that is killed at any moment leaves nothing behind that the next one does not know as ours.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any, assert_never

from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer, Connection, ContainersDriver, Drivers
from vmproxy.model.net import Address, Route
from vmproxy.model.seen import Marker
from vmproxy.model.steps import (
    ContainerStep,
    MarkRoutes,
    RemoveCni,
    RemoveRoute,
    ResetForwarding,
    RouteStep,
    SetForwarding,
    SetRoute,
    WriteCni,
)


class Marking:
    """`marker` is what is on the VM now; None: there is no VM of ours, and routes may only be removed."""

    def __init__(self, drivers: Drivers, marker: Marker | None) -> None:
        self._carrier = drivers.carrier
        self._client = drivers.client
        self._containers = drivers.containers
        self.marker = marker

    def do(self, step: RouteStep | ContainerStep) -> None:
        if isinstance(step, RouteStep):
            self._route(step)
        else:
            self._for_containers(step)

    def _route(self, step: RouteStep) -> None:
        match step:
            case SetRoute():
                self._mark(routes=(*self._known().routes, step.route))
                self._client.set_route(step.route, step.before)
            case RemoveRoute():
                self._client.remove_route(step.route)
            case MarkRoutes():
                pass
            case _:
                assert_never(step)
        if self.marker is not None:
            self._mark(routes=step.routes)

    def _for_containers(self, step: ContainerStep) -> None:
        match step:
            case SetForwarding():
                self._mark(forwarding=(*self._known().forwarding, step.alias))
                self._host_of_containers().set_forwarding(step.alias, on=True)
                self._mark(forwarding=step.marked)
            case ResetForwarding():
                self._host_of_containers().set_forwarding(step.alias, on=False)
                self._mark(forwarding=step.marked)
            case WriteCni():
                self._mark(cni=(*self._known().cni, step.file.path))
                self._host_of_containers().write_cni(step.file, step.content)
                self._mark(cni=step.marked)
            case RemoveCni():
                self._host_of_containers().remove_cni(step.file)
                self._mark(cni=step.marked)
            case _:
                assert_never(step)

    def trial(self, connection: Connection, via: Address) -> Answer:
        """Connect by way of a route to that one address, which is gone again afterwards."""
        before, route = self._known().routes, Route(ip_network(connection.address), via)
        self._mark(routes=(*before, route))
        try:
            return self._client.trial(connection, route)
        finally:
            self._mark(routes=before)

    def _known(self) -> Marker:
        if self.marker is None:
            raise VmproxyError("cannot set a route: the VM behind it is gone", hint="run it again")
        return self.marker

    def _host_of_containers(self) -> ContainersDriver:
        assert self._containers is not None  # the site file's check
        return self._containers

    def _mark(self, **parts: tuple[Route, ...] | tuple[str, ...]) -> None:
        """`parts` of the marker by name; each thing in them once."""
        known = self._known()
        changed: dict[str, Any] = {name: tuple(dict.fromkeys(value)) for name, value in parts.items()}
        marker = replace(known, **changed)
        if marker != known:
            self._carrier.mark(marker)
        self.marker = marker
