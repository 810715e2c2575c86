"""What others have put into a namespace: asked before it is deleted, as that deletes everything in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from vmproxy.cluster.client import Client, Object
from vmproxy.errors import NotReady, VmproxyError
from vmproxy.model.names import MANAGED_BY

_ENOUGH = 5
_OF_KUBERNETES = {
    "configmaps/kube-root-ca.crt",
    "configmaps/openshift-service-ca.crt",
    "serviceaccounts/default",
    "serviceaccounts/builder",
    "serviceaccounts/deployer",
    "rolebindings/system:deployers",
    "rolebindings/system:image-builders",
    "rolebindings/system:image-pullers",
}
"""What Kubernetes and OpenShift put into each namespace."""
_PASSING = {"events", "leases", "endpoints", "endpointslices"}
"""Made beside other things, never by themselves."""


def found(client: Client, namespace: str) -> list[str]:
    """As "configmaps/theirs", a few; also what these credentials may not look at."""
    with ThreadPoolExecutor(8) as pool:
        each = pool.map(lambda kind: list(_of_kind(client, kind[0], kind[1], namespace)), _kinds(client))
        others = sorted(name for names in each for name in names)
    more = len(others) - _ENOUGH
    return others if more <= 0 else [*others[:_ENOUGH], f"and {more} more"]


def _kinds(client: Client) -> Iterator[tuple[str, str]]:
    """Path and plural of every kind of object that is kept in namespaces."""
    listed = [group["preferredVersion"]["groupVersion"] for group in client.get("/apis").get("groups") or ()]
    for path in ("/api/v1", *(f"/apis/{version}" for version in listed)):
        for resource in _resources(client, path):
            if resource["namespaced"] and {"list", "delete"} <= set(resource.get("verbs") or ()):
                yield path, resource["name"]


def _resources(client: Client, path: str) -> list[Object]:
    """None of an API whose own server is down."""
    try:
        return list((client.find(path) or {}).get("resources") or ())
    except NotReady:
        return []


def _of_kind(client: Client, path: str, plural: str, namespace: str) -> Iterator[str]:
    if "/" in plural or plural in _PASSING:
        return
    try:
        for item in client.items(f"{path}/namespaces/{namespace}/{plural}"):
            name = f"{plural}/{item['metadata']['name']}"
            if name not in _OF_KUBERNETES and not _ours(item):
                yield name
    except VmproxyError:  # not knowing is no leave to delete
        yield f"{plural} (these cannot be listed)"


def _ours(item: Object) -> bool:
    """Made by vmproxy, or by Kubernetes for an account, as its Secrets on OpenShift."""
    label, value = MANAGED_BY
    metadata = item["metadata"]
    of_account = "kubernetes.io/service-account.name" in (metadata.get("annotations") or {})
    return of_account or (metadata.get("labels") or {}).get(label) == value
