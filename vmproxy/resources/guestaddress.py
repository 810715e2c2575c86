"""The guest's address in the containers' subnet, where the VM is their gateway: beside its own, which is the
seed's. One that vmproxy added carries a label, by which it is known and goes again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from vmproxy.model.names import ADDRESSES
from vmproxy.model.net import Interface
from vmproxy.model.seen import GuestSeen
from vmproxy.model.steps import Follow, ManagedFile, SetGuestAddress
from vmproxy.model.topology import Vm


def wanted(vm: Vm) -> tuple[Interface, ...]:
    return () if vm.inside is None else (vm.inside,)


def files(addresses: Sequence[Interface]) -> dict[str, ManagedFile]:
    listed = json.dumps([str(address) for address in addresses]) + "\n"
    return {ADDRESSES: ManagedFile.of(listed, follow=Follow(setup=("addresses",)))}


def plan(
    addresses: Sequence[Interface], seen: GuestSeen, follows: Sequence[Follow]
) -> Iterator[SetGuestAddress]:
    """A wanted one may be there without the label: then it stays when it is not wanted any more."""
    if any("addresses" in follow.setup for follow in follows):
        return
    for address in addresses:
        if address not in seen.addresses:
            yield SetGuestAddress(address, wanted=True)
    for address in seen.added:
        if address not in addresses:
            yield SetGuestAddress(address, wanted=False)
