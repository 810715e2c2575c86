"""Where the kinds of objects that vmproxy makes are in the API."""

from __future__ import annotations

from vmproxy.model.names import ObjectName

RBAC = "rbac.authorization.k8s.io"
_KINDS = {
    "Namespace": ("", "namespaces"),
    "ServiceAccount": ("", "serviceaccounts"),
    "Secret": ("", "secrets"),
    "ClusterRole": (RBAC, "clusterroles"),
    "ClusterRoleBinding": (RBAC, "clusterrolebindings"),
    "Role": (RBAC, "roles"),
    "RoleBinding": (RBAC, "rolebindings"),
}


def resource(kind: str) -> tuple[str, str]:
    """API group and plural."""
    return _KINDS[kind]


def collection(kind: str, namespace: str = "") -> str:
    """The path of all objects of that kind; `namespace` empty: in all of them, or it has none."""
    group, plural = _KINDS[kind]
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{group}/v1{inside}/{plural}" if group else f"/api/v1{inside}/{plural}"


def path_of(item: ObjectName) -> str:
    return f"{collection(item.kind, item.namespace)}/{item.name}"
