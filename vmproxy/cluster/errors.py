"""Translates errors of the API server into vmproxy's own; the only place that does."""

from __future__ import annotations

import re
import ssl
from typing import Any

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from vmproxy.errors import Conflict, Forbidden, NotReady, Unreachable, UsageError, VmproxyError

BAD = 400
NOT_FOUND = 404
UNAUTHORIZED = 401
_FORBIDDEN, _CONFLICT, _GONE = 403, 409, 410
TOO_MANY = 429
_BUSY = {TOO_MANY, 500, 502, 503, 504}
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_RESOURCE = re.compile(
    r"^/(?:api|apis/[^/]+)/[^/]+/(?:namespaces/[^/]+/(?=[^/]))?([^/]+)(?:/([^/]+))?(?:/([^/]+))?"
)


class Expired(NotReady):
    """A list took so long that the API server has forgotten where it was."""


def refused(method: str, path: str, status: int, body: dict[str, Any], *, reason: str) -> VmproxyError:
    """The error for a response of the API server. `body` is its Status object, or its text as message."""
    said = " ".join(str(body.get("message") or reason).split())
    doing = _doing(method, path)
    if status == UNAUTHORIZED:
        return Unreachable(
            f"cannot {doing} in the cluster: the API server refuses the login ({said})",
            hint="the kubeconfig's credentials are wrong or expired; test them with: kubectl auth whoami",
        )
    message = f"cannot {doing} in the cluster: {said}"
    if status == _FORBIDDEN:
        return Forbidden(message, hint=_rights_hint(doing, said))
    if status == _CONFLICT:
        return Conflict(message, hint="another client changed it at the same time: run it again")
    if status == _GONE:
        return Expired(message, hint="the cluster changes too fast for a list: try again")
    if status in _BUSY:
        return NotReady(message, hint="the API server is not ready or is overloaded: try again")
    return VmproxyError(message)


def unreachable(server: str, exc: Exception, *, proxy: str | None = None) -> VmproxyError:
    """The error if the API server does not answer at all. `proxy` is the URL of the one on the way."""
    cause: BaseException = exc
    while isinstance(cause, MaxRetryError) and cause.reason is not None:
        cause = cause.reason
    if isinstance(cause, LocationValueError):
        return UsageError(
            f"cannot use {server!r} as the API server: {cause}", hint="correct server in the kubeconfig"
        )
    if proxy and isinstance(cause, ProxyError):
        return _proxy_failed(server, proxy.rpartition("@")[2].rpartition("://")[2], cause.original_error)
    why, hint = _why(cause)
    return Unreachable(f"cannot reach the API server {server}: {why}", hint=hint)


def _proxy_failed(server: str, proxy: str, cause: BaseException) -> VmproxyError:
    return Unreachable(
        f"cannot reach the API server {server}: HTTP proxy {proxy}: {_why(cause)[0]}",
        hint="correct proxy-url in the kubeconfig, or $HTTPS_PROXY; $NO_PROXY lists servers that need none",
    )


def _doing(method: str, path: str) -> str:
    """Such as "create clusterroles"."""
    found = _RESOURCE.match(path)
    if not found:
        return f"{_VERBS[method]} {path}"
    resource, name, subresource = found.groups()
    verb = "list" if method == "GET" and not name else _VERBS[method]
    return f"{verb} {resource}" + (f"/{subresource}" if subresource else "")


def _rights_hint(doing: str, said: str) -> str:
    if "system:anonymous" in said:
        return "the kubeconfig has no credentials for this cluster: choose another context, or log in"
    if "attempting to grant" in said:
        return (
            "users can grant only rights that they have: run it as cluster-admin, or get the verbs escalate "
            "and bind on roles and clusterroles"
        )
    return (
        f"ask the cluster's administrator for the right to {doing}; vmproxy doctor lists all required rights"
    )


def _why(cause: BaseException) -> tuple[str, str]:
    inner = cause.args[0] if isinstance(cause, SSLError) and cause.args else cause
    if isinstance(inner, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {inner.verify_message or inner}",
            "the kubeconfig's certificate-authority is not the one of this server, or the server's name "
            "is not in its certificate",
        )
    if isinstance(cause, SSLError):
        return (f"no TLS connection: {inner}", "check server and the certificates in the kubeconfig")
    if isinstance(cause, NameResolutionError):
        return (
            "its name cannot be resolved",
            "correct server in the kubeconfig, or this machine's DNS configuration",
        )
    if isinstance(cause, NewConnectionError):  # a child of ConnectTimeoutError in some versions
        return (
            str(cause).rpartition(": ")[2],
            "check that the API server is up, and server in the kubeconfig",
        )
    if isinstance(cause, (ConnectTimeoutError, ReadTimeoutError)):
        return ("no answer in time", "check that the API server is up and that no firewall blocks it")
    if isinstance(cause, HTTPError):
        return (str(cause), "check that it is a Kubernetes API server and the network is stable")
    return (str(cause), "check server and the certificates in the kubeconfig")
