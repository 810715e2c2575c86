"""Kubeconfig files, as kubectl reads them: merged, one context chosen, every path absolute.

Of all files, the first that sets a cluster, user, context or current-context wins. A key that nobody knows
is ignored, as kubectl does; one that is known and is not valid is a UsageError.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vmproxy.errors import UsageError

_LISTS = {"clusters": "cluster", "users": "user", "contexts": "context"}
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class _Entry(BaseModel):
    """A value that is empty counts as one that is missing, as in Go."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, hide_input_in_errors=True, alias_generator=_kebab
    )

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if value is not None and value not in ("", [], {})}


class ClusterEntry(_Entry):
    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool = False
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    extensions: list[dict[str, Any]] = []


class Variable(_Entry):
    name: str
    value: str = ""


class Exec(_Entry):
    """An exec plugin."""

    model_config = ConfigDict(alias_generator=to_camel)
    api_version: str
    command: str
    args: list[str] = []
    env: list[Variable] = []
    install_hint: str | None = None
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"


class AuthProvider(_Entry):
    name: str
    config: dict[str, str] = {}


class UserEntry(_Entry):
    """`as_` and its companions impersonate."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = Field(None, alias="tokenFile")
    username: str | None = None
    password: str | None = None
    exec: Exec | None = None
    auth_provider: AuthProvider | None = None
    as_: str | None = Field(None, alias="as")
    as_uid: str | None = None
    as_groups: list[str] = []
    as_user_extra: dict[str, list[str]] = {}


class _ContextEntry(_Entry):
    cluster: str
    user: str | None = None


E = TypeVar("E", bound=_Entry)


@dataclass(frozen=True)
class Chosen:
    """The cluster and the user of one context. `origin` is what messages call the files."""

    cluster: ClusterEntry
    user: UserEntry
    origin: str


def choose(paths: Sequence[Path], context: str | None) -> Chosen:
    """`context` None: the current one. Raises UsageError."""
    origin = f"the kubeconfig {os.pathsep.join(map(str, paths))}"
    merged = _merged([path for path in paths if path.exists()])
    name = context or merged.current
    if not name:
        _refuse(origin, "it has no current-context", _SELECT)
    if name not in merged.lists["contexts"]:
        _refuse(origin, f"it has no context {name}", _CONTEXTS)
    about = _parsed(_ContextEntry, merged.lists["contexts"][name], f"context {name}", origin)
    cluster = _find(merged, "clusters", about.cluster, name, origin)
    user = _find(merged, "users", about.user, name, origin) if about.user else {}
    return Chosen(
        _parsed(ClusterEntry, cluster, f"cluster {about.cluster}", origin),
        _parsed(UserEntry, user, f"user {about.user}", origin),
        origin,
    )


_SELECT = "set cluster.context in the site file, or run: kubectl config use-context"
_CONTEXTS = "kubectl config get-contexts lists them; correct cluster.context in the site file"
_VIEW = "kubectl config view shows what is in it"


@dataclass(frozen=True)
class _Merged:
    """`lists`: the entries of each list by name."""

    lists: Mapping[str, dict[str, object]]
    current: str


def _merged(paths: Sequence[Path]) -> _Merged:
    lists: dict[str, dict[str, object]] = {name: {} for name in _LISTS}
    current = ""
    for path in paths:
        document = _read(path)
        current = current or str(document.get("current-context") or "")
        for plural, singular in _LISTS.items():
            for name, entry in _named(document, plural, singular, path):
                lists[plural].setdefault(name, _absolute(entry, path.absolute().parent))
    return _Merged(lists, current)


def _read(path: Path) -> Mapping[str, Any]:
    """An empty file is one without entries."""
    origin = f"the kubeconfig {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = YAML(typ="safe").load(io.StringIO(text))
    except YAMLError as exc:
        raise UsageError(f"cannot read {origin}: not YAML: {' '.join(str(exc).split())}") from exc
    except OSError as exc:
        raise UsageError(f"cannot read {origin}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"cannot read {origin}: not a text of YAML: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        _refuse(origin, "it is not a kubeconfig: not a mapping", _VIEW)
    if (kind := document.get("kind") or "Config") != "Config":
        _refuse(origin, f"it is not a kubeconfig but a {kind}", _VIEW)
    return document


def _named(
    document: Mapping[str, Any], plural: str, singular: str, path: Path
) -> Iterator[tuple[str, object]]:
    origin = f"the kubeconfig {path}"
    listed = document.get(plural) or []
    if not isinstance(listed, list):
        _refuse(origin, f"{plural} is not a list", _VIEW)
    known = set()
    for item in listed:
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            _refuse(origin, f"an entry of {plural} has no name", _VIEW)
        if item["name"] in known:
            _refuse(origin, f"{plural} has two entries named {item['name']}", _VIEW)
        known.add(item["name"])
        yield item["name"], item.get(singular) or {}


def _absolute(entry: object, folder: Path) -> object:
    """Paths are relative to the file that has them; so is a plugin's command with a slash in it."""
    if not isinstance(entry, Mapping):
        return entry
    found = {
        key: str(folder / value) if key in _PATHS and isinstance(value, str) and value else value
        for key, value in entry.items()
    }
    plugin = found.get("exec")
    if isinstance(plugin, Mapping) and "/" in str(plugin.get("command")):
        found["exec"] = {**plugin, "command": str(folder / str(plugin["command"]))}
    return found


def _find(merged: _Merged, plural: str, name: str, context: str, origin: str) -> object:
    if name not in merged.lists[plural]:
        _refuse(origin, f"context {context} names {_LISTS[plural]} {name}, which it does not have", _VIEW)
    return merged.lists[plural][name]


def _parsed(kind: type[E], entry: object, what: str, origin: str) -> E:
    try:
        return kind.model_validate(entry)
    except ValidationError as exc:
        mistake = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, mistake["loc"]))
        _refuse(origin, f"{what}{f', {where}' if where else ''}: {mistake['msg'].lower()}", _VIEW)


def _refuse(origin: str, why: str, hint: str) -> NoReturn:
    raise UsageError(f"cannot use {origin}: {why}", hint=hint)
