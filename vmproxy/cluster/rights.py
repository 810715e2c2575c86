"""The operator's rights in the cluster: those that a run needs, and those that it uses where it has them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vmproxy.cluster.client import Client
from vmproxy.cluster.paths import RBAC, resource
from vmproxy.model.names import NAMESPACE, identity

_DISCOVERY = "discovery.k8s.io"


@dataclass(frozen=True)
class Right:
    """To do `verb` to a resource of an API group. `namespace` empty: in every one, or it has none; `name`
    empty: to any, or RBAC cannot name it."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" in {self.namespace}" if self.namespace else "")


def needed(account: str) -> tuple[Right, ...]:
    """What apply, plan, verify and destroy cannot do without, for the VM with that account."""
    return tuple(dict.fromkeys((*_of_identity(account), *_SHARED, _minting(account))))


OPTIONAL = (
    Right("list", "networking.k8s.io", "servicecidrs"),
    Right("get", "", "configmaps"),
    Right("list", "", "pods"),
    Right("get", "config.openshift.io", "networks"),
    Right("create", "", "services"),
    Right("list", RBAC, "clusterrolebindings"),
    Right("list", RBAC, "rolebindings"),
    Right("list", "", "secrets", NAMESPACE),
)
"""By which ranges, the cluster's own CA, the domain of its names, flannel's port and others' grants to
vmproxy's accounts are found; each has another way, or a run goes without. Services: a dry run only."""

_SHARED = (
    Right("list", "", "serviceaccounts", NAMESPACE),
    Right("list", "", "nodes"),
    Right("get", "", "services", "default", "kubernetes"),
    Right("list", "", "services"),
    Right("list", _DISCOVERY, "endpointslices"),
)


def missing(client: Client, account: str) -> tuple[str, ...]:
    """Which of the needed ones these credentials do not have, as "create clusterroles"."""
    with ThreadPoolExecutor(8) as pool:
        rights = needed(account)
        allowed = pool.map(lambda right: _allowed(client, right), rights)
        lacking = [str(right) for right, has in zip(rights, allowed, strict=True) if not has]
    return tuple(dict.fromkeys(lacking))


def _of_identity(account: str) -> Iterator[Right]:
    """A Secret is replaced, never changed. What is created has no name yet for RBAC."""
    for item in identity(account):
        group, plural = resource(item.kind)
        yield Right("create", group, plural, item.namespace)
        for verb in ("get", "delete") if item.kind == "Secret" else ("get", "patch", "delete"):
            yield Right(verb, group, plural, item.namespace, item.name)


def _minting(account: str) -> Right:
    return Right("create", "", "serviceaccounts/token", NAMESPACE, account)


def _allowed(client: Client, right: Right) -> bool:
    plural, _, subresource = right.resource.partition("/")
    attributes = {
        "verb": right.verb,
        "group": right.group,
        "resource": plural,
        "subresource": subresource,
        "namespace": right.namespace,
        "name": right.name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = client.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
