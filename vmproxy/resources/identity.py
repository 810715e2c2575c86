"""The VM's identity in the cluster: a ServiceAccount, what it may read, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from vmproxy.errors import Conflict
from vmproxy.model.names import (
    EVENTS,
    HOST_LABEL,
    MANAGED_BY,
    NAMESPACE,
    SITE_LABEL,
    identity,
    key,
    renewal,
)
from vmproxy.model.seen import ClusterSeen, Grant, Unobservable
from vmproxy.model.steps import (
    ClusterStep,
    CreateObject,
    DeleteObject,
    Object,
    Step,
    UpdateObject,
    object_key,
)
from vmproxy.model.topology import Vm
from vmproxy.util import assets


def wanted(vm: Vm) -> dict[str, Object]:
    """The objects by "kind/name", in the order in which they are made."""
    return {object_key(item): item for item in _parsed(text(vm))}


def text(vm: Vm) -> str:
    """The objects as YAML."""
    return assets.render(
        "kubernetes/identity.yaml.j2",
        namespace=NAMESPACE,
        events=EVENTS,
        account=vm.account,
        renewal=renewal(vm.account),
        site=vm.site,
        host=vm.host,
        node=vm.node,
        watches_nodes=vm.network.pod_routes == "flannel",
    )


def secret(vm: Vm) -> Object:
    """That which holds the renewal account's token, without it."""
    return wanted(vm)[key("Secret", renewal(vm.account))]


def documents(vm: Vm) -> dict[str, str]:
    return {"identity.yaml": text(vm)}


def plan(vm: Vm, seen: ClusterSeen | Unobservable) -> tuple[ClusterStep, ...]:
    """Raises Conflict when an object of that name was not made by vmproxy, or is another site's."""
    if isinstance(seen, Unobservable):
        return ()
    steps: list[ClusterStep] = []
    for name, item in wanted(vm).items():
        live = seen.identity.get(name)
        if live is None:
            steps.append(CreateObject(item))
            continue
        if not is_ours(live):
            if item["kind"] == "Namespace":  # a namespace of that name that somebody else made will do
                continue
            raise _foreign(name, "it exists and was not made by vmproxy")
        if owner := _other_owner(item, live):
            raise _foreign(name, f"it is that of {owner}")
        update = UpdateObject(item, live)
        if update.drift:
            steps.append(update)
    return tuple(steps)


def destroy_plan(
    vm: Vm, seen: ClusterSeen | Unobservable, *, going: frozenset[str] = frozenset()
) -> tuple[ClusterStep, ...]:
    """In reverse; the namespace goes only when it is ours and no other account of ours is left in it.

    `going`: accounts of VMs that the same run removes, too.
    """
    if isinstance(seen, Unobservable):
        return ()
    steps = []
    leaving = {name for account in (*going, vm.account) for name in (account, renewal(account))}
    for name, item in reversed(wanted(vm).items()):
        live = seen.identity.get(name)
        keep = item["kind"] == "Namespace" and set(seen.accounts) - leaving
        if live is not None and is_ours(live) and not _other_owner(item, live) and not keep:
            steps.append(DeleteObject(item, live))
    return tuple(steps)


def after(seen: ClusterSeen, steps: Iterable[Step]) -> ClusterSeen:
    """When the steps are done: what a Secret holds that is made anew is not known."""
    made = {
        step.target for step in steps if isinstance(step, ClusterStep) and step.object["kind"] == "Secret"
    }
    return replace(seen, identity={name: item for name, item in seen.identity.items() if name not in made})


def warnings(vm: Vm, grants: Iterable[Grant]) -> Iterator[str]:
    """What else gives the VM's accounts rights, or holds their tokens. It is somebody else's: it stays."""
    own = {name.key for name in identity(vm.account)}
    accounts = {vm.account, renewal(vm.account)}
    for grant in grants:
        if grant.account in accounts and grant.name not in own:
            yield (
                f"{grant.name}, which vmproxy did not make, {grant.what} {grant.account}: "
                "remove it if nobody needs it"
            )


def is_ours(live: Mapping[str, Any]) -> bool:
    label, value = MANAGED_BY
    return bool((live["metadata"].get("labels") or {}).get(label) == value)


def _other_owner(item: Object, live: Mapping[str, Any]) -> str | None:
    """The site and host that its labels name, when these are not ours: names can be put together to the
    same account. Labels that are missing name nobody."""
    labels = live["metadata"].get("labels") or {}
    for label in (SITE_LABEL, HOST_LABEL):
        mine = item["metadata"]["labels"].get(label)
        if mine and labels.get(label, mine) != mine:
            return f"host {labels.get(HOST_LABEL, '?')} of site {labels.get(SITE_LABEL, '?')}"
    return None


def _foreign(name: str, why: str) -> Conflict:
    return Conflict(
        f"cannot use {name} in the cluster: {why}",
        hint="remove it, or change the site's or the host's name",
    )


@cache
def _parsed(content: str) -> tuple[Object, ...]:
    """Kept, as a run plans several times. Nothing changes the objects."""
    return tuple(YAML(typ="safe").load(io.StringIO(content)))
