"""The user's own cloud-config: load it, check it against cloud-init's schema, merge it over ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from vmproxy.errors import SiteError, UsageError
from vmproxy.util import assets

if TYPE_CHECKING:
    from jsonschema import Draft4Validator
    from jsonschema.exceptions import ValidationError

_HEADER = "#cloud-config"
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
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read cloudInit.userData {path}: {exc}") from exc
    rendered = assets.render_text(source, origin=path, **offered)
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


def parse(text: str) -> Any:
    """Parse as cloud-init does: YAML 1.1, where 0644 is octal and `yes` is true."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    return _jsonable(yaml.load(StringIO(text)))


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
    if isinstance(value, list):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, bytes):
        raise ValueError("binary values (!!binary) are not supported")
    return value.isoformat() if isinstance(value, date) else value
