"""Finds and renders the files of templates/ and cloud-init/: the only door to jinja2.

Names are "guest/x.j2", "kubernetes/y.yaml.j2", "powershell/z.ps1" (in templates/) and
"cloud-init/user-data". In a template every value goes through `tojson`, which yields text that is
both JSON and YAML, whatever the value holds. A name that is not given is an error.
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


def text(name: str) -> str:
    """A file as it is."""
    try:
        return _find(name).read_text(encoding="utf-8")
    except OSError as exc:
        raise BadArtifact(f"cannot read {name}: {exc.strerror}", hint=_REINSTALL) from exc


def names(folder: str) -> list[str]:
    """The files of a folder, as `text` takes them."""
    return sorted(f"{folder}/{path.name}" for path in _find(folder).iterdir() if path.is_file())


def render(name: str, /, **values: object) -> str:
    """A template filled with `values`."""
    try:
        return _environment().get_template(name).render(values)
    except TemplateError as exc:
        raise BadArtifact(f"cannot render {name}: {exc}", hint=_REINSTALL) from exc


def render_text(source: str, /, *, origin: Path, **values: object) -> str:
    """A user's own template. It runs in jinja2's sandbox; `origin` is named in errors."""
    try:
        return _sandbox().from_string(source).render(values)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as exc:
        line = getattr(exc, "lineno", None)
        where = f"{origin}:{line}" if line else str(origin)
        known = ", ".join(sorted(values))
        raise UsageError(f"cannot render {where}: {exc}", hint=f"a template may use: {known}") from exc


def tojson(value: object, *, indent: int | None = None) -> str:
    """JSON that a YAML parser reads as the same value.

    jinja2's own `tojson` writes & as \\u0026, and YAML takes some characters past ASCII for line
    breaks: those are escaped. What needs a surrogate pair is left as it is, as YAML knows no pairs.
    """
    plain = json.dumps(value, ensure_ascii=False, default=_as_text, indent=indent)
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", plain)


def _source(name: str) -> str | None:
    return text(name) if _find(name).is_file() else None


def _find(name: str) -> Path:
    """The wheel carries both folders in vmproxy/_assets; a checkout has them beside vmproxy/."""
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
