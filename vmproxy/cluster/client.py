"""JSON over HTTPS to the API server, with the credentials of a kubeconfig.

The API's own JSON is used, no client library: their models and loaders change between major versions, the
JSON does not.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from urllib3 import BaseHTTPResponse, HTTPHeaderDict, PoolManager, ProxyManager, Retry, Timeout, make_headers
from urllib3.exceptions import HTTPError

from vmproxy.cluster import errors, login
from vmproxy.cluster.credentials import Fixed
from vmproxy.errors import Unreachable, UsageError

Object = dict[str, Any]
_TIMEOUT = Timeout(connect=5.0, read=30.0)
_LONGEST_WAIT = 10.0
_PAGE = 500
_RESTARTS = 3
_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_CONNECTIONS = 8


class _Retry(Retry):
    """429 was not processed, so that anything may be sent again; a wait is never longer than 10 s."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:  # noqa: FBT001, FBT002
        if status_code == errors.TOO_MANY:
            return bool(self.total)
        return super().is_retry(method, status_code, has_retry_after)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            wait = super().get_retry_after(response)
        except HTTPError:  # neither seconds nor a date
            return None
        return None if wait is None else min(wait, _LONGEST_WAIT)


_RETRY = _Retry(
    total=3, connect=1, redirect=0, backoff_factor=0.2, status_forcelist=(503,), raise_on_status=False
)


class Client:
    """Every call may raise Unreachable, Forbidden, Conflict, or VmproxyError with the API's message."""

    def __init__(self, session: login.Session) -> None:
        self.server = session.server
        self._session = session
        self._lock = Lock()
        self._pool: PoolManager | None = None
        self._certificate: str | None = None

    def close(self) -> None:
        """Its idle connections; it may be used again."""
        if self._pool is not None:
            self._pool.clear()

    def get(self, path: str, **query: str) -> Object:
        return self._call("GET", path, query=query)

    def find(self, path: str, **query: str) -> Object | None:
        """None: the object does not exist."""
        return self._call("GET", path, query=query, missing_ok=True) or None

    def items(self, path: str, **query: str) -> Iterator[Object]:
        """All objects of a collection, fetched in pages. A list that expires on the way begins again, and
        gives no object twice."""
        given: set[tuple[str, str]] = set()
        for _ in range(_RESTARTS):
            with suppress(errors.Expired):
                for item in self._pages(path, query):
                    if (key := _key(item)) not in given:
                        given.add(key)
                        yield item
                return
        yield from (item for item in self._pages(path, query) if _key(item) not in given)

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[Object]:
        token = ""
        while True:
            page = self.get(path, limit=str(_PAGE), **query, **({"continue": token} if token else {}))
            token = (page.get("metadata") or {}).get("continue") or ""
            yield from page.get("items") or ()
            if not token:
                return

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        return self._call("POST", path, query=query, body=body)

    def merge(self, path: str, body: Mapping[str, Any]) -> Object:
        """Set the fields of `body`; lists are replaced as a whole."""
        return self._call("PATCH", path, body=body, content=_MERGE)

    def delete(self, path: str, *, uid: str) -> None:
        """Delete exactly this object; it may already be gone."""
        self._call("DELETE", path, body={"preconditions": {"uid": uid}}, missing_ok=True)

    def takes(self, token: str) -> bool:
        """Whether the API server knows whose this bearer token is, with no other credentials beside it."""
        alone = Client(replace(self._session, credentials=Fixed(token=token), impersonate=()))
        answer = alone._send("GET", f"{self.server}/version", body=None, content=_JSON)
        alone.close()
        return answer.status != errors.UNAUTHORIZED

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
            return self._connected().request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=self._headers(content),
                timeout=_TIMEOUT,
                retries=_RETRY,
            )
        except (HTTPError, OSError, ValueError) as exc:
            raise errors.unreachable(self.server, exc, proxy=self._session.proxy) from exc

    def _headers(self, content: str) -> HTTPHeaderDict:
        """Credentials are asked on each call: a token may have been renewed. Groups repeat a header."""
        headers = HTTPHeaderDict({"Accept": _JSON, "Content-Type": content, "User-Agent": "vmproxy"})
        for name, value in (*self._session.credentials.headers(), *self._session.impersonate):
            headers.add(name, value)
        return headers

    def _connected(self) -> PoolManager:
        """A client certificate that a plugin renewed needs new connections."""
        certificate = self._session.credentials.certificate()
        with self._lock:
            if self._pool is None or certificate != self._certificate:
                self._pool, self._certificate = _pool(self._session, certificate), certificate
            return self._pool

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


def _key(item: Object) -> tuple[str, str]:
    return (item["metadata"].get("namespace", ""), item["metadata"]["name"])


def _pool(session: login.Session, certificate: str | None) -> PoolManager:
    settings: dict[str, Any] = {
        "maxsize": _CONNECTIONS,
        "ssl_context": _tls(session.ca, certificate, session.origin),
    }
    if session.tls_server_name:
        settings["server_hostname"] = session.tls_server_name
    if session.proxy is None:
        return PoolManager(**settings)
    parts = urlsplit(session.proxy)
    if parts.username:
        log_in = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        settings["proxy_headers"] = make_headers(proxy_basic_auth=log_in)
    return ProxyManager(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", **settings)


def _tls(ca: str, certificate: str | None, origin: str) -> ssl.SSLContext:
    """Chain, time and name are checked; key identifiers are not, which CAs made before Kubernetes 1.17 lack
    and Python 3.13 demands."""
    context = ssl.create_default_context(cadata=ca.encode("ascii", "replace").decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate:
        try:
            _load(context, certificate)
        except (ssl.SSLError, ValueError) as exc:
            raise UsageError(
                f"cannot use {origin}: its client certificate and key do not load: {exc}",
                hint="both must be PEM, belong together, and need no passphrase",
            ) from exc
    return context


def _load(context: ssl.SSLContext, certificate: str) -> None:
    """The library reads files only: this one exists for the moment of reading."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "client.pem")
        file.touch(mode=0o600)
        file.write_text(certificate, encoding="utf-8")
        context.load_cert_chain(file, password="")  # not asked for at the terminal
