"""Finds and renders the files of templates/ and cloud-init/: the only module that uses jinja2.

Names are "guest/x.j2", "kubernetes/y.yaml.j2", "powershell/z.ps1" (in templates/) and
"cloud-init/user-data". In a template every value goes through `tojson`, whose result is
valid as JSON and as YAML for any value. Using an undefined name is an error.
"""

from __future__ import annotations

import json
import re
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vmproxy.errors import BadArtifact, UsageError

_HERE = Path(__file__).resolve().parents[1]
_CLOUD_INIT = "cloud-init/"
_REINSTALL = "this installation of vmproxy is incomplete or damaged: reinstall it"
_LAYOUT: dict[str, Any] = {"keep_trailing_newline": True, "trim_blocks": True, "lstrip_blocks": True}
_TEXTUAL = (PurePath, IPv4Address, IPv4Interface, IPv4Network)


@cache
def text(name: str) -> str:
    """A file's content, not rendered; read once in a process."""
    try:
        return _find(name).read_text(encoding="utf-8")
    except OSError as exc:
        raise BadArtifact(f"cannot read {name}: {exc.strerror}", hint=_REINSTALL) from exc


def names(folder: str) -> list[str]:
    """The files of a folder, as names for `text`."""
    return sorted(f"{folder}/{path.name}" for path in _find(folder).iterdir() if path.is_file())


def render(name: str, /, **values: object) -> str:
    """A template filled with `values`."""
    try:
        return _environment().get_template(name).render(values)
    except TemplateError as exc:
        raise BadArtifact(f"cannot render {name}: {exc}", hint=_REINSTALL) from exc


def render_text(source: str, /, *, origin: Path, **values: object) -> str:
    """Render a user's own template, in jinja2's sandbox; errors name `origin`."""
    try:
        return _sandbox().from_string(source).render(values)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as exc:
        line = getattr(exc, "lineno", None)
        where = f"{origin}:{line}" if line else str(origin)
        known = ", ".join(sorted(values))
        raise UsageError(f"cannot render {where}: {exc}", hint=f"available variables: {known}") from exc


def tojson(value: object, *, indent: int | None = None) -> str:
    """JSON that a YAML parser reads as the same value.

    jinja2's own `tojson` writes & as \\u0026, and YAML treats some non-ASCII characters as line
    breaks: those are escaped. Characters that need a surrogate pair stay, because YAML has no pairs.
    """
    plain = json.dumps(value, ensure_ascii=False, default=_as_text, indent=indent)
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", plain)


def _source(name: str) -> str | None:
    return text(name) if _find(name).is_file() else None


def _find(name: str) -> Path:
    """The wheel has both folders in vmproxy/_assets; a checkout has them next to vmproxy/."""
    installed = _HERE / "_assets"
    root = installed if installed.is_dir() else _HERE.parent
    return root / name if name.startswith(_CLOUD_INIT) else root / "templates" / name


def _as_text(value: object) -> str:
    if isinstance(value, _TEXTUAL):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _environment() -> Environment:
    environment = Environment(  # noqa: S701  # YAML and units, not HTML
        loader=FunctionLoader(_source), undefined=StrictUndefined, **_LAYOUT
    )
    environment.filters["tojson"] = tojson
    return environment


@cache
def _sandbox() -> Environment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, **_LAYOUT)
    environment.filters["tojson"] = tojson
    return environment
