"""What a kubeconfig's user logs in with: headers, and a client certificate with its key as PEM."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from vmproxy.cluster.kubeconfig import AuthProvider, Chosen, ClusterEntry, Exec, UserEntry
from vmproxy.errors import ToolFailed, UsageError, VmproxyError
from vmproxy.util import run

Header = tuple[str, str]
_PLUGIN_SECONDS = 180.0
_EARLY = 10.0
"""Seconds before its expiry at which a plugin's token is renewed."""
_PLUGIN_VERSIONS = re.compile(r"client\.authentication\.k8s\.io/(v1|v1beta1)")
_IN_HEADER_NAMES = "!#$&'*+-.^_`|~"


class Credentials(Protocol):
    """Asked before each request: either may change during a run."""

    def headers(self) -> tuple[Header, ...]: ...

    def certificate(self) -> str | None:
        """None: none."""


@dataclass(frozen=True)
class Fixed:
    """`token_file` is read anew for each request; the last token that it had stays valid without it."""

    pem: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    basic: str | None = field(default=None, repr=False)

    def headers(self) -> tuple[Header, ...]:
        token = (_readable(self.token_file) if self.token_file else None) or self.token
        if token:
            return (("Authorization", f"Bearer {token}"),)
        return (("Authorization", f"Basic {self.basic}"),) if self.basic else ()

    def certificate(self) -> str | None:
        return self.pem


def of(chosen: Chosen) -> Credentials:
    """Raises UsageError for what kubectl refuses, too, and for what vmproxy cannot do."""
    user, origin = chosen.user, chosen.origin
    _refuse_two(user, origin)
    pem = _client_certificate(user, origin)
    if user.token or user.token_file:
        file = Path(user.token_file) if user.token_file else None
        if file and not user.token and _readable(file) is None:
            raise UsageError(f"cannot use {origin}: the tokenFile {file} cannot be read, or is empty")
        return Fixed(pem, _header_value(user.token, "token", origin), file)
    if user.username:
        login = f"{user.username}:{user.password or ''}".encode()
        return Fixed(pem, basic=base64.b64encode(login).decode())
    if user.exec:
        return Plugin(user.exec, chosen.cluster, origin, pem)
    if user.auth_provider:
        return Fixed(pem, _of_provider(user.auth_provider, origin))
    return Fixed(pem)


def impersonation(chosen: Chosen) -> tuple[Header, ...]:
    """The headers of `as`, `as-uid`, `as-groups` and `as-user-extra`."""
    user = chosen.user
    more = [("Impersonate-Uid", user.as_uid)] if user.as_uid else []
    more += [("Impersonate-Group", group) for group in user.as_groups]
    for key, values in user.as_user_extra.items():
        name = f"Impersonate-Extra-{quote(key.lower(), safe=_IN_HEADER_NAMES)}"
        more += [(name, value) for value in values]
    if more and not user.as_:
        raise UsageError(
            f"cannot use {chosen.origin}: it impersonates a group, uid or extra without a user",
            hint="set `as` beside as-groups, as-uid and as-user-extra",
        )
    if not user.as_:
        return ()
    headers = (("Impersonate-User", user.as_), *more)
    for name, value in headers:
        _header_value(value, name, chosen.origin)
    return headers


class Plugin:
    """An exec plugin: run when first needed, and again when its token expires. One that fails is not run
    again: requests go out side by side, and each run may ask a person something."""

    def __init__(
        self, wanted: Exec, cluster: ClusterEntry, origin: str, pem: str | None, run: Runner | None = None
    ) -> None:
        self._wanted = wanted
        self._cluster = cluster
        self._origin = origin
        self._pem = pem
        self._run = run or _run
        self._lock = threading.Lock()
        self._found: _PluginAnswer | None = None
        self._error: VmproxyError | None = None
        _refuse_plugin(wanted, origin)

    def headers(self) -> tuple[Header, ...]:
        token = self._current().token
        return (("Authorization", f"Bearer {token}"),) if token else ()

    def certificate(self) -> str | None:
        return self._current().pem or self._pem

    def _current(self) -> _PluginAnswer:
        with self._lock:
            if self._error:
                raise self._error
            if self._found is None or self._found.expires - _EARLY <= time.time():
                self._found = self._asked()
            return self._found

    def _asked(self) -> _PluginAnswer:
        try:
            return self._ask()
        except VmproxyError as exc:
            self._error = exc
            raise

    def _ask(self) -> _PluginAnswer:
        wanted = self._wanted
        info = json.dumps(_exec_info(wanted, self._cluster))
        env = {**os.environ, **{entry.name: entry.value for entry in wanted.env}}
        try:
            told = self._run([wanted.command, *wanted.args], {**env, "KUBERNETES_EXEC_INFO": info})
        except ToolFailed as exc:
            raise self._failed(exc.message, exc.details) from exc
        except OSError as exc:
            raise self._failed(f"{wanted.command}: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise self._failed(f"{wanted.command} wrote no text, or cannot be run: {exc}") from exc
        try:
            return _answer(json.loads(told), wanted.api_version, self._origin)
        except (ValueError, TypeError, LookupError, AttributeError) as exc:
            raise self._failed(f"{wanted.command} did not write a valid ExecCredential") from exc

    def _failed(self, why: str, details: tuple[str, ...] = ()) -> VmproxyError:
        hint = "run the exec plugin's command from that kubeconfig by hand, or log in again"
        if self._wanted.install_hint:
            hint = f"{hint}; {' '.join(self._wanted.install_hint.split())}"
        return VmproxyError(
            f"cannot log in to the cluster with {self._origin}: exec plugin: {why}",
            hint=hint,
            details=details,
        )


@dataclass(frozen=True)
class _PluginAnswer:
    """`expires` is in seconds since the epoch."""

    token: str | None = field(repr=False)
    pem: str | None = field(repr=False)
    expires: float


Runner = Callable[[list[str], Mapping[str, str]], str]


def _run(command: list[str], env: Mapping[str, str]) -> str:
    return run.run(command, stdin="", env=env, timeout=_PLUGIN_SECONDS).stdout


def _answer(told: dict[str, Any], version: str, origin: str) -> _PluginAnswer:
    """Raises ValueError and the like for what is no ExecCredential of that version."""
    status = told["status"]
    if told["kind"] != "ExecCredential" or told["apiVersion"] != version:
        raise ValueError(told["kind"])
    token, certificate, key = (
        status.get(name) or None for name in ("token", "clientCertificateData", "clientKeyData")
    )
    if not token and not (certificate and key):
        raise ValueError("neither a token nor a certificate")
    until = status.get("expirationTimestamp")
    expires = datetime.fromisoformat(until).timestamp() if until else float("inf")
    pem = f"{certificate}\n{key}\n" if certificate and key else None
    return _PluginAnswer(_header_value(token, "the exec plugin's token", origin), pem, expires)


def _exec_info(wanted: Exec, cluster: ClusterEntry) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if wanted.provide_cluster_info:
        spec["cluster"] = _cluster_info(cluster)
    return {"apiVersion": wanted.api_version, "kind": "ExecCredential", "spec": spec}


def _cluster_info(cluster: ClusterEntry) -> dict[str, Any]:
    data = cluster.certificate_authority_data
    if not data and cluster.certificate_authority:
        data = base64.b64encode(Path(cluster.certificate_authority).read_bytes()).decode()
    config = next(
        (
            entry.get("extension")
            for entry in cluster.extensions
            if entry.get("name") == "client.authentication.k8s.io/exec"
        ),
        None,
    )
    told = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "certificate-authority-data": data,
        "proxy-url": cluster.proxy_url,
        "config": config,
    }
    return {key: value for key, value in told.items() if value}


def _refuse_plugin(wanted: Exec, origin: str) -> None:
    if not _PLUGIN_VERSIONS.fullmatch(wanted.api_version):
        raise UsageError(
            f"cannot use {origin}: its exec plugin {wanted.command} speaks {wanted.api_version}",
            hint="update the plugin: it must speak client.authentication.k8s.io/v1 or v1beta1",
        )
    if wanted.interactive_mode == "Always":
        raise UsageError(
            f"cannot use {origin}: its exec plugin {wanted.command} has interactiveMode: Always",
            hint="vmproxy gives a plugin no terminal: log in by hand first, or use another context",
        )


def _refuse_two(user: UserEntry, origin: str) -> None:
    """Combinations that kubectl refuses."""
    given = {
        "token": bool(user.token or user.token_file),
        "username": bool(user.username),
        "exec": bool(user.exec),
        "auth-provider": bool(user.auth_provider),
    }
    for one, other in (("token", "username"), ("exec", "auth-provider")):
        if given[one] and given[other]:
            raise UsageError(f"cannot use {origin}: its user has both {one} and {other}: keep one")


def _client_certificate(user: UserEntry, origin: str) -> str | None:
    certificate = pem("client-certificate", user.client_certificate, user.client_certificate_data, origin)
    key = pem("client-key", user.client_key, user.client_key_data, origin)
    if bool(certificate) != bool(key):
        missing = "client-key" if certificate else "client-certificate"
        raise UsageError(f"cannot use {origin}: its user's {missing} is missing")
    return f"{certificate}\n{key}\n" if certificate else None


def pem(name: str, file: str | None, data: str | None, origin: str) -> str | None:
    """`data` is base64 and goes before `file`. Raises UsageError for one that cannot be read."""
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True).decode("utf-8", "replace")
        except ValueError as exc:
            raise UsageError(f"cannot use {origin}: {name}-data is not base64") from exc
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise UsageError(f"cannot use {origin}: cannot read its {name} {file}: {exc.strerror}") from exc


def _of_provider(provider: AuthProvider, origin: str) -> str:
    """The ID token of `oidc`, while it lives: kubectl renews it, vmproxy does not."""
    if provider.name != "oidc":
        raise UsageError(
            f"cannot use {origin}: auth-provider {provider.name} is not supported, nor by kubectl since 1.26",
            hint="use its exec plugin, such as gke-gcloud-auth-plugin or kubelogin",
        )
    token = provider.config.get("id-token") or ""
    if _expiry(token) - _EARLY <= time.time():
        raise UsageError(
            f"cannot use {origin}: the ID token of its auth-provider oidc is missing or has expired",
            hint="kubectl renews it: run kubectl version; or use an exec plugin such as kubelogin",
        )
    return token


def _expiry(token: str) -> float:
    """Of a JWT, in seconds since the epoch; 0: it is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, LookupError, TypeError):
        return 0.0


def _readable(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _header_value(text: str | None, what: str, origin: str) -> str | None:
    """Raises UsageError for what no header can carry."""
    if text and not (text.isprintable() and text.isascii()):
        raise UsageError(f"cannot use {origin}: {what} has characters that no HTTP header can carry")
    return text
