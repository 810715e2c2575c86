"""JSON over HTTPS to the API server, with the credentials of a kubeconfig.

From the kubernetes library, only the kubeconfig loader and the connection pool are used: its models and
call signatures change between major versions, the API's own JSON does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from vmproxy.cluster import errors, login
from vmproxy.errors import Unreachable

Object = dict[str, Any]
_TIMEOUT = Timeout(connect=5.0, read=30.0)
_RETRY = Retry(total=3, connect=1, backoff_factor=0.2, status_forcelist=(429, 503), raise_on_status=False)
_PAGE = 500
_JSON = "application/json"
_MERGE = "application/merge-patch+json"


class Client:
    """Every call may raise Unreachable, Forbidden, Conflict, or VmproxyError with the API's message."""

    def __init__(self, session: login.Session) -> None:
        from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415  # slow, and not always needed

        self.server: str = session.configuration.host
        self._configuration = session.configuration
        self._pool: PoolManager = RESTClientObject(session.configuration).pool_manager

    def get(self, path: str, **query: str) -> Object:
        return self._call("GET", path, query=query)

    def find(self, path: str, **query: str) -> Object | None:
        """None: the object does not exist."""
        return self._call("GET", path, query=query, missing_ok=True) or None

    def items(self, path: str, **query: str) -> Iterator[Object]:
        """All objects of a collection, fetched in pages, as large clusters require."""
        page: Object = {"metadata": {"continue": ""}}
        while page:
            token = page["metadata"].get("continue", "")
            page = self.get(path, limit=str(_PAGE), **query, **({"continue": token} if token else {}))
            yield from page.get("items") or ()
            page = page if page["metadata"].get("continue") else {}

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        return self._call("POST", path, query=query, body=body)

    def merge(self, path: str, body: Mapping[str, Any]) -> Object:
        """Set the fields of `body`; lists are replaced as a whole."""
        return self._call("PATCH", path, body=body, content=_MERGE)

    def delete(self, path: str, *, uid: str) -> None:
        """Delete exactly this object; it may already be gone."""
        self._call("DELETE", path, body={"preconditions": {"uid": uid}}, missing_ok=True)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = _JSON,
        missing_ok: bool = False,
    ) -> Object:
        """The response's JSON; empty if `missing_ok` and the object does not exist."""
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        answer = self._send(method, url, body=body, content=content)
        if missing_ok and answer.status == errors.NOT_FOUND:
            return {}
        answered = self._json(answer)
        if answer.status >= errors.BAD:
            raise errors.refused(method, path, answer.status, answered, reason=answer.reason or "")
        return answered

    def _send(
        self, method: str, url: str, *, body: Mapping[str, Any] | None, content: str
    ) -> BaseHTTPResponse:
        try:
            return self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers={"Accept": _JSON, "Content-Type": content, **self._authorization()},
                timeout=_TIMEOUT,
                retries=_RETRY,
            )
        except (HTTPError, OSError, ValueError) as exc:
            raise errors.unreachable(self.server, exc) from exc

    def _authorization(self) -> dict[str, str]:
        """Read on each call: an exec plugin's token may need to be renewed."""
        return {setting["key"]: setting["value"] for setting in self._configuration.auth_settings().values()}

    def _json(self, answer: BaseHTTPResponse) -> Object:
        """An error response that is not a JSON object becomes a message; any other raises Unreachable."""
        try:
            answered = json.loads(answer.data)
        except ValueError:
            answered = None
        if isinstance(answered, dict):
            return answered
        if answer.status < errors.BAD:
            raise Unreachable(
                f"cannot use {self.server}: its response is not from a Kubernetes API server",
                hint=f"check whether another program listens on {urlsplit(self.server).netloc}",
            )
        return {"message": answer.data.decode(errors="replace")[:200].strip()}
