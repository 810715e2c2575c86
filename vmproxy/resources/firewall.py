"""The guest's guard table: it drops what kube-proxy does not know, and closes the VM's ports except SSH."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmproxy.model.names import GUARD
from vmproxy.model.net import Network
from vmproxy.model.seen import GuestSeen
from vmproxy.model.steps import Follow, LoadGuard, ManagedFile
from vmproxy.util import assets


def file(service_cidrs: Sequence[Network]) -> ManagedFile:
    ranges = [cidr for cidr in service_cidrs if cidr.version == 4]
    return ManagedFile.of(
        assets.render("guest/guard.nft.j2", service_cidrs=ranges), follow=Follow(setup=("guard",))
    )


def files(guard: ManagedFile) -> dict[str, ManagedFile]:
    return {GUARD: guard}


def plan(guard: ManagedFile, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[LoadGuard]:
    """The table is known by the hash of the file that it was loaded from."""
    if seen.guard != guard.sha256 and not any("guard" in follow.setup for follow in follows):
        yield LoadGuard(missing=not seen.guard)
