"""The user's own cloud-config: load it, check it against cloud-init's schema, merge it over ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml import MarkedYAMLError, YAMLError

from vmproxy.errors import SiteError, UsageError
from vmproxy.util import assets, text

if TYPE_CHECKING:
    from jsonschema import Draft4Validator
    from jsonschema.exceptions import ValidationError

_HEADER = "#cloud-config"
_OWN_TEMPLATE = re.compile(r"\A\s*##\s*template:\s*jinja\s*\n", re.IGNORECASE)
"""cloud-init's mark of a template; vmproxy renders it before."""
_MERGE = "tag:yaml.org,2002:merge"
_SECRET = re.compile(r"passw|secret|token|private|credential|validation_key|activation.key", re.IGNORECASE)
_HIDDEN = frozenset({"chpasswd", "ssh_keys", "content"})  # whatever is below; content: of files and tunnels
_HOST_KEY = "vmproxy generates the guest's SSH host key, to verify the first login too"
_LOGIN = "vmproxy logs in as root with its key"
PROTECTED = {
    "ssh_keys": _HOST_KEY,
    "ssh_deletekeys": _HOST_KEY,
    "ssh_genkeytypes": _HOST_KEY,
    "disable_root": _LOGIN,
    "ssh_pwauth": "the VM accepts logins by key only",
    "hostname": "the VM's name comes from the site file",
    "merge_how": "vmproxy merges mappings key by key, and appends lists to its own",
    "merge_type": "vmproxy merges mappings key by key, and appends lists to its own",
}


def load(path: Path | None, offered: Mapping[str, Any]) -> dict[str, Any]:
    """The cloud-config in the template at `path`, rendered with `offered`; empty if None."""
    if path is None:
        return {}
    try:
        source = text.read(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read cloudInit.userData {path}: {exc}") from exc
    rendered = assets.render_text(_OWN_TEMPLATE.sub("", source), origin=path, **offered)
    if rendered.split("\n", 1)[0].strip() != _HEADER:
        raise UsageError(
            f"cannot use {path}: its first line is not {_HEADER}",
            hint="put scripts into runcmd or write_files of a cloud-config",
        )
    config = _parsed(rendered, path)
    _check(config, path)
    return config


def merged(ours: str, custom: Mapping[str, Any]) -> str:
    """`custom` merged over `ours`: mappings key by key, lists appended, anything else replaced."""
    return f"{_HEADER}\n{assets.tojson(_merge(parse(ours), custom), indent=2)}\n"


def parse(document: str) -> Any:
    """Parse with cloud-init's own reader: 0644 is octal, `yes` is true, and `y` is text. Raises YAMLError,
    ValueError."""
    try:
        return _jsonable(yaml.load(document, Loader=_Loader))  # noqa: S506 (a SafeLoader)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


class _Loader(yaml.SafeLoader):
    """Says that a key is given twice, where cloud-init would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE):
            if key.value in seen:
                raise MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def redacted(config: Any) -> Any:
    """The same without what may be a secret, by the names of cloud-init's keys."""
    if isinstance(config, Mapping):
        return {
            key: "(redacted)" if key in _HIDDEN or _SECRET.search(key) else redacted(value)
            for key, value in config.items()
        }
    return [redacted(item) for item in config] if isinstance(config, list) else config


def _parsed(rendered: str, path: Path) -> dict[str, Any]:
    try:
        config = parse(rendered)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown line"
        raise UsageError(f"cannot parse {path}: {exc.problem} at {where} of the rendered text") from exc
    except (YAMLError, ValueError) as exc:
        raise UsageError(f"cannot parse {path}: {exc}") from exc
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise UsageError(f"cannot use {path}: it is not a mapping of cloud-config keys")
    return config


def _check(config: Mapping[str, Any], path: Path) -> None:
    """Raises one error with all mistakes."""
    found = [f"{path}: {key}: cannot be set: {why}" for key, why in PROTECTED.items() if key in config]
    free = {key: value for key, value in config.items() if key not in PROTECTED}
    found += [f"{path}: {line}" for line in sorted(set(mistakes(free)))]
    if found:
        raise SiteError(f"cannot use {path}: {len(found)} mistake{'s' * (len(found) > 1)}", details=found)


def mistakes(config: Mapping[str, Any]) -> Iterator[str]:
    """The violations of cloud-init's own schema."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 (slow, and most sites have no cloud-config)

    for error in _validator().iter_errors(config):
        deepest = best_match([error]) or error
        yield f"{_key(deepest)}{deepest.message}"


def _key(error: ValidationError) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    return f"{path}: " if path else ""


@cache
def _validator() -> Draft4Validator:
    from jsonschema import Draft4Validator  # noqa: PLC0415 (slow, and most sites have no cloud-config)

    schema = files("vmproxy").joinpath("data", "schema-cloud-config-v1.json").read_text(encoding="utf-8")
    return Draft4Validator(json.loads(schema))


def _merge(ours: Any, theirs: Any) -> Any:
    if isinstance(ours, dict) and isinstance(theirs, Mapping):
        both = ours | dict(theirs)
        return both | {key: _merge(ours[key], theirs[key]) for key in ours.keys() & theirs.keys()}
    if isinstance(ours, list) and isinstance(theirs, list):
        return ours + theirs
    return theirs


def _jsonable(value: Any) -> Any:
    """Converts YAML dates to text, as cloud-init's schema requires."""
    if isinstance(value, dict):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, bytes | set):
        raise ValueError("binary values and sets (!!binary, !!set) are not supported")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"the number {value} is not supported")
    return value.isoformat() if isinstance(value, date) else value
