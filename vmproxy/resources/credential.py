"""The VM's identity in the cluster: a ServiceAccount, what it may read, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from vmproxy.errors import Conflict
from vmproxy.model.plan import ABSENT, Action, Drift
from vmproxy.model.seen import ClusterSeen, Unobservable
from vmproxy.site.model import Host, Site
from vmproxy.util import assets

NAMESPACE = "vmproxy"
OURS = ("app.kubernetes.io/managed-by", "vmproxy")
_OWNER = ("vmproxy.io/site", "vmproxy.io/host")
_COMPARED = ("rules", "roleRef", "subjects", "automountServiceAccountToken")

Object = dict[str, Any]


def wanted(site: Site, host: Host) -> dict[str, Object]:
    """The objects by "kind/name", in the order in which they are made."""
    return {key(item): item for item in _parsed(text(site, host))}


def text(site: Site, host: Host) -> str:
    """The objects as YAML."""
    return assets.render(
        "kubernetes/identity.yaml.j2",
        namespace=NAMESPACE,
        account=site.account(host),
        site=site.name,
        host=host.name,
        node=host.acts_for or site.vm_name(host),
    )


def documents(site: Site, host: Host) -> dict[str, str]:
    return {"identity.yaml": text(site, host)}


def key(item: Object) -> str:
    return f"{item['kind'].lower()}/{item['metadata']['name']}"


def plan(site: Site, host: Host, seen: ClusterSeen | Unobservable) -> tuple[Action, ...]:
    """Raises Conflict when an object of that name was not made by vmproxy, or is another site's."""
    if isinstance(seen, Unobservable):
        return ()
    actions = []
    for name, item in wanted(site, host).items():
        live = seen.identity.get(name)
        if live is None:
            drift: tuple[Drift, ...] = (Drift(name, "present", ABSENT),)
            actions.append(Action("cluster", "create", name, _WHY, drift, {"object": item}))
            continue
        if not is_ours(live):
            if item["kind"] == "Namespace":  # a namespace of that name that somebody else made will do
                continue
            raise _foreign(name, "it exists and was not made by vmproxy")
        if owner := _other_owner(item, live):
            raise _foreign(name, f"it is that of {owner}")
        drift = _differences(name, item, live)
        if drift:
            params = {"object": item, "live": live}
            actions.append(Action("cluster", "update", name, _WHY, drift, params))
    return tuple(actions)


def destroy_plan(
    site: Site, host: Host, seen: ClusterSeen | Unobservable, *, going: frozenset[str] = frozenset()
) -> tuple[Action, ...]:
    """In reverse; the namespace goes only when it is ours and no other account of ours is left in it.

    `going`: accounts that the same run removes, too.
    """
    if isinstance(seen, Unobservable):
        return ()
    actions = []
    for name, item in reversed(wanted(site, host).items()):
        live = seen.identity.get(name)
        keep = item["kind"] == "Namespace" and set(seen.other_accounts) - going
        if live is not None and is_ours(live) and not _other_owner(item, live) and not keep:
            drift = (Drift(name, ABSENT, "present"),)
            actions.append(
                Action(
                    "cluster", "delete", name, "nothing uses it then", drift, {"object": item, "live": live}
                )
            )
    return tuple(actions)


def is_ours(live: Mapping[str, Any]) -> bool:
    label, value = OURS
    return bool((live["metadata"].get("labels") or {}).get(label) == value)


def _other_owner(item: Object, live: Mapping[str, Any]) -> str | None:
    """The site and host that its labels name, when these are not ours: names can be put together to the
    same account. Labels that are missing name nobody."""
    labels = live["metadata"].get("labels") or {}
    for label in _OWNER:
        mine = item["metadata"]["labels"].get(label)
        if mine and labels.get(label, mine) != mine:
            return " of ".join(f"{name} {labels.get(f'vmproxy.io/{name}', '?')}" for name in ("host", "site"))
    return None


_WHY = "kube-proxy reads the cluster as this account"


def _differences(name: str, item: Object, live: Mapping[str, Any]) -> tuple[Drift, ...]:
    drift = []
    for part in _COMPARED:
        if part in item:
            drift += _compare(f"{name}: {part}", item[part], live.get(part))
    labels = live["metadata"].get("labels") or {}
    for label, value in item["metadata"]["labels"].items():
        if labels.get(label) != value:
            drift.append(Drift(f"{name}: labels.{label}", value, labels.get(label, ABSENT)))
    return tuple(drift)


def _compare(path: str, want: Any, got: Any) -> list[Drift]:
    """Down to the field that differs."""
    if isinstance(want, dict) and isinstance(got, dict):
        return [
            drift
            for part in dict.fromkeys((*want, *got))
            for drift in _compare(f"{path}.{part}", want.get(part), got.get(part))
        ]
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        pairs = enumerate(zip(want, got, strict=True))
        return [drift for index, pair in pairs for drift in _compare(f"{path}[{index}]", *pair)]
    if want == got:
        return []
    return [Drift(path, ABSENT if want is None else want, ABSENT if got is None else got)]


def _foreign(name: str, why: str) -> Conflict:
    return Conflict(
        f"cannot use {name} in the cluster: {why}",
        hint="remove it, or change the site's or the host's name",
    )


def _parsed(content: str) -> list[Object]:
    parsed: list[Object] = YAML(typ="safe").load(io.StringIO(content))
    return parsed
