"""What gives vmproxy's accounts rights, or hands out their tokens, whoever made it: bindings and Secrets."""

from __future__ import annotations

from collections.abc import Iterator

from vmproxy.cluster.client import Client, Object
from vmproxy.cluster.paths import collection
from vmproxy.errors import Forbidden
from vmproxy.model.names import ACCOUNT_OF_SECRET, NAMESPACE, key
from vmproxy.model.seen import Grant

_TOKENS = "type=kubernetes.io/service-account-token"
_USER = f"system:serviceaccount:{NAMESPACE}:"


def found(client: Client) -> tuple[Grant, ...]:
    """In the whole cluster. A kind that may not be listed has none."""
    return (*_bindings(client, "ClusterRoleBinding"), *_bindings(client, "RoleBinding"), *_secrets(client))


def _bindings(client: Client, kind: str) -> Iterator[Grant]:
    for item in _listed(client, collection(kind)):
        metadata, role = item["metadata"], item["roleRef"]
        name = key(kind, metadata["name"], metadata.get("namespace", ""))
        for account in dict.fromkeys(_accounts(item)):
            yield Grant(account, name, f"gives the rights of {role['kind']} {role['name']} to")


def _accounts(binding: Object) -> Iterator[str]:
    """Those of vmproxy's namespace that it names, one by one: a group of accounts is not looked into."""
    for subject in binding.get("subjects") or ():
        kind, name = subject["kind"], str(subject["name"])
        if kind == "ServiceAccount" and subject.get("namespace") == NAMESPACE:
            yield name
        elif kind == "User" and name.startswith(_USER):
            yield name.removeprefix(_USER)


def _secrets(client: Client) -> Iterator[Grant]:
    """But for those that Kubernetes before 1.24, and OpenShift, make for each account by themselves."""
    automatic = {
        one["name"]
        for account in _listed(client, collection("ServiceAccount", NAMESPACE))
        for one in account.get("secrets") or ()
    }
    for item in _listed(client, collection("Secret", NAMESPACE), fieldSelector=_TOKENS):
        metadata = item["metadata"]
        if metadata["name"] in automatic:
            continue
        account = (metadata.get("annotations") or {}).get(ACCOUNT_OF_SECRET)
        if account:
            yield Grant(account, key("Secret", metadata["name"]), "holds a token, which does not expire, of")


def _listed(client: Client, path: str, **query: str) -> Iterator[Object]:
    try:
        yield from client.items(path, **query)
    except Forbidden:
        return
