"""The Secret with the renewal account's token, which Kubernetes fills by itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from vmproxy.cluster.client import Client, Object
from vmproxy.model import names
from vmproxy.util import wait

_FILL_SECONDS = 60.0
_NOT_FILLED = (
    "kube-controller-manager fills it: check that it runs, with --service-account-private-key-file and the "
    "controller serviceaccount-token-controller"
)
_UID = "kubernetes.io/serviceaccount/service-account.uid"
"""The claim that names the account."""


def sealed(found: Mapping[str, Object], account: str) -> dict[str, Object]:
    """An identity by "kind/name", its Secret without content: `data.token` is the token's SHA-256, and there
    only when it is one of the account as it is now."""
    own = names.renewal(account)
    key, owner = names.key("Secret", own), found.get(names.key("ServiceAccount", own))
    if key not in found:
        return dict(found)
    token = _token(found[key])
    mine = owner is not None and _uid(token) == owner["metadata"]["uid"]
    data = {"token": hashlib.sha256(token.encode()).hexdigest()} if mine else {}
    return {**found, key: {**found[key], "data": data}}


def is_being_filled(wanted: Object, live: Object | None) -> bool:
    """Whether it is as wanted, but for the token that Kubernetes is still to put into it."""
    if live is None or live.get("type") != wanted["type"] or _token(live):
        return False
    there = live["metadata"].get("annotations") or {}
    name = names.ACCOUNT_OF_SECRET
    return bool(there.get(name) == wanted["metadata"]["annotations"][name])


def filled(client: Client, name: str, path: str) -> str:
    """The token in the Secret `name`, as soon as it is there. Raises NotReady."""

    def probe() -> tuple[str] | str:
        token = _token(client.find(path) or {})
        return (token,) if token else "it has none yet"

    return wait.until(f"a token in {name}", probe, timeout=_FILL_SECONDS, every=0.2, hint=_NOT_FILLED)[0]


def _token(secret: Object) -> str:
    """Empty: it has none."""
    try:
        return base64.b64decode((secret.get("data") or {}).get("token") or "").decode()
    except ValueError:
        return ""


def _uid(token: str) -> str | None:
    """Of the account that it says it is of; None: it is no such token."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(claims[_UID])
    except (LookupError, TypeError, ValueError):
        return None
