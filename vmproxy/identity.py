"""Which objects in the cluster are a host's identity, and how they are known as ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmproxy.site import Host, Site

NAMESPACE = "vmproxy"
MANAGED = {"app.kubernetes.io/managed-by": "vmproxy"}
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ROOTS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": _RBAC + "/clusterroles",
    "ClusterRoleBinding": _RBAC + "/clusterrolebindings",
    "Role": _RBAC + "/namespaces/{namespace}/roles",
    "RoleBinding": _RBAC + "/namespaces/{namespace}/rolebindings",
}


@dataclass(frozen=True)
class Ref:
    """Names one object."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"

    @property
    def collection(self) -> str:
        """The API's path of all objects of this kind, in our namespace where the kind has one."""
        return _ROOTS[self.kind].format(namespace=NAMESPACE)

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"


def labels(site: Site, host: Host) -> dict[str, str]:
    """What every object but the shared namespace carries."""
    return {**MANAGED, "vmproxy.io/site": site.name, "vmproxy.io/host": host.name}


def node_name(site: Site, host: Host) -> str:
    """The name under which kube-proxy runs: the Node it proxies for, or one that no Node has."""
    return host.acts_for or site.vm_name(host)


def namespace() -> Ref:
    return Ref("Namespace", NAMESPACE)


def account(site: Site, host: Host) -> Ref:
    return Ref("ServiceAccount", site.account(host))


def refs(site: Site, host: Host) -> tuple[Ref, ...]:
    """In the order in which they are made."""
    everywhere = f"vmproxy-{site.account(host)}"
    return (
        namespace(),
        account(site, host),
        Ref("ClusterRole", everywhere),
        Ref("ClusterRoleBinding", everywhere),
        Ref("Role", site.account(host)),
        Ref("RoleBinding", site.account(host)),
    )


def compared(live: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what the API server adds: its labels and what it says itself."""
    own = {name: value for name, value in live.items() if name not in {"apiVersion", "kind", "metadata"}}
    return {**own, "labels": dict(live["metadata"].get("labels") or {})}
