"""What commands that only look see of a member: each thing once, when the first phase asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vmproxy.engine.endpoints import Ways, ways
from vmproxy.engine.links import GuestLink
from vmproxy.engine.scope import Scope, without_guest
from vmproxy.engine.site import Once
from vmproxy.errors import Unreachable, VmproxyError
from vmproxy.model.net import Interface
from vmproxy.model.seen import ClientSeen, ContainersSeen, GuestSeen, Unobservable

T = TypeVar("T")


class Look:
    """Each method raises VmproxyError where it cannot look, the same one each time."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.carrier = Once(scope.look_at_carrier)
        self.client = Once(self._client)
        self.containers = Once(self._containers)
        self.cluster = Once(scope.cluster_seen)
        self.link = Once(self._link)
        self.guest = Once(self._guest)
        self.ways = Once(self._ways)

    def _client(self) -> ClientSeen:
        return self.scope.client.observe()

    def _containers(self) -> ContainersSeen | None:
        """None: the site file has none."""
        return self.scope.look_at_containers()

    def _link(self) -> GuestLink:
        """Raises Unreachable, too, when there is no VM of ours that runs."""
        if why := without_guest(self.carrier()):
            raise Unreachable(why)
        return self.scope.guest()

    def _guest(self) -> GuestSeen:
        """Without the cluster only what does not depend on it."""
        self.link()
        return self.scope.look_at_guest(or_why(self.cluster))

    def _ways(self) -> Ways:
        return ways(self.scope.member.vm, self.scope.site.cluster_seen(), self.host_addresses())

    def host_addresses(self) -> tuple[Interface, ...]:
        """The host is asked for them only where its routes are the VM's way to pods."""
        return self.client().addresses if self.scope.member.vm.carrier.own else ()


def or_why(look: Callable[[], T]) -> T | Unobservable:
    """What is seen, or why it cannot be."""
    try:
        return look()
    except VmproxyError as exc:
        return Unobservable(exc.message)
