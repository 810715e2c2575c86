"""What all hosts of one run share: observed once, by whichever host asks first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

from vmproxy.engine.links import ClusterLink, Links
from vmproxy.model.seen import ClusterSeen, Grant, ServiceSeen
from vmproxy.model.topology import Member, Topology

T = TypeVar("T")


class Once(Generic[T]):
    """A value that is made by the first who asks; the others wait, and get the same value or error."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = Lock()
        self._future: Future[T] = Future()

    def __call__(self) -> T:
        with self._lock:
            if not self._future.done():
                try:
                    self._future.set_result(self._make())
                except Exception as exc:
                    self._future.set_exception(exc)
        return self._future.result()


class SiteRun:
    """One run on `members` of a site, over these connections.

    The number of lists asked of the API server does not grow with the hosts: `cluster_seen`, `services` and
    `grants` are what the first look found.
    """

    def __init__(self, topology: Topology, members: tuple[Member, ...], links: Links) -> None:
        self.topology = topology
        self.members = members
        self.links = links
        self._cluster = Once(links.cluster)
        self._seen = Once(self._look)
        self._services = Once(self._list_services)
        self._grants = Once(self._list_grants)

    @property
    def cluster(self) -> ClusterLink:
        return self._cluster()

    def cluster_seen(self) -> ClusterSeen:
        """Without anybody's identity. Raises VmproxyError, the same for each member."""
        return self._seen()

    def services(self) -> list[ServiceSeen]:
        return self._services()

    def grants(self) -> tuple[Grant, ...]:
        return self._grants()

    def _look(self) -> ClusterSeen:
        return self.cluster.observe()

    def _list_services(self) -> list[ServiceSeen]:
        return self.cluster.services()

    def _list_grants(self) -> tuple[Grant, ...]:
        return self.cluster.grants()
