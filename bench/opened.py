"""The VM of a world, through the product's own connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.world import World
from vmproxy.cli.hosts import one_host
from vmproxy.engine.scope import Scope
from vmproxy.util.events import Reporter


@contextmanager
def opened(world: World) -> Iterator[Scope]:
    site, member = one_host(world.site_file, None)
    with Scope(site, member, Reporter(lambda _host, _event: None)) as scope:
        yield scope
