"""Reads the site file; reports all mistakes at once, with their lines and a similar valid word, if any."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vmproxy.errors import SiteError, UsageError
from vmproxy.site import checks, yamltree
from vmproxy.site.model import Site
from vmproxy.site.yamltree import Complaint, Tree
from vmproxy.util import text

_BY_REFERENCE = "secrets are given by reference only: write {env: NAME} or {file: PATH}"
_KEY_BY_REFERENCE = "secrets are given by reference only: write {file: PATH}"
_WORDS = {
    "model_type": "should be a mapping of keys",
    "model_attributes_type": "should be a mapping of keys",
    "tuple_type": "should be a list",
    "string_type": "should be text: quote it",
    "string_too_short": "is empty",
    "path_type": "should be a path",
    "url_type": "should be a URL",
    "too_short": "needs at least one entry",
    "missing": "is missing",
}


def load(path: Path) -> Site:
    """Load the site file at `path`; paths in it are relative to its folder."""
    tree = yamltree.parse(_read(path))
    complaints = list(tree.complaints)
    site = None
    if tree.data is None:
        complaints = complaints or [Complaint(1, (), "the file is empty")]
    elif not isinstance(tree.data, dict):
        complaints.append(Complaint(1, (), "should be a mapping of keys, starting with name:"))
    else:
        site, wrong = _validated(tree, path.absolute().parent)
        complaints += [*wrong, *checks.conflicts(tree)]
        complaints += [] if complaints else checks.same_machine(tree)
    if complaints or site is None:
        raise _error(path, complaints)
    return site


def schema() -> dict[str, Any]:
    """The site file's JSON Schema, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Site.model_json_schema(by_alias=True, mode="validation"),
    }


def _read(path: Path) -> str:
    try:
        return text.read(path)
    except FileNotFoundError as exc:
        raise UsageError(
            f"cannot read {path}: it does not exist", hint=f"create it: vmproxy init -f {path}"
        ) from exc
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"cannot read {path}: not UTF-8 text (byte {exc.start})") from exc


def _validated(tree: Tree, folder: Path) -> tuple[Site | None, list[Complaint]]:
    try:
        return Site.model_validate(tree.data, context=folder, by_name=False), []
    except ValidationError as exc:
        return None, _complaints(exc.errors(include_url=False), tree)


def _error(path: Path, complaints: Iterable[Complaint]) -> SiteError:
    ordered = sorted({(c.line, _dotted(c.path), c.what) for c in complaints})
    details = [f"{path}:{line}: {key}{': ' if key else ''}{what}" for line, key, what in ordered]
    count = f"{len(details)} mistake{'s' * (len(details) > 1)}"
    return SiteError(f"cannot use {path}: {count}", hint="docs/site-file.md lists every key", details=details)


def _dotted(path: yamltree.Path) -> str:
    """hosts[0].network.address"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _complaints(errors: Iterable[ErrorDetails], tree: Tree) -> list[Complaint]:
    found = {}
    for error in errors:
        if error["type"] == "too_short" and error["input"]:
            continue  # pydantic counts only the entries without a mistake
        path = _path(error, tree.data)
        if _is_secret(path):
            path = path[: path.index("password") + 1]
            what = _BY_REFERENCE
        else:
            what = _what(error)
        found[path, what] = Complaint(tree.line(path), path, what)
    return list(found.values())


def _path(error: ErrorDetails, data: Any) -> yamltree.Path:
    """pydantic's location without the names of union members, which are not keys of the file."""
    path: list[str | int] = []
    for part in error["loc"]:
        if _has(data, part):
            data = data[part]
            path.append(part)
    return (*path, error["loc"][-1]) if error["type"] == "missing" else tuple(path)


def _has(data: Any, part: str | int) -> bool:
    if isinstance(data, dict):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


def _is_secret(path: yamltree.Path) -> bool:
    return "password" in path


def _what(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "model_type" if error["loc"][-1] == "identity":
            what = _KEY_BY_REFERENCE
        case "extra_forbidden":
            what = "unknown key" + _hint(str(error["loc"][-1]), _known_keys(error["loc"][:-1]))
        case "literal_error":
            words = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
            what = f"use one of {', '.join(words)}" + _hint(str(error["input"]), words)
        case "value_error":
            what = str(context["error"])
        case _:
            what = _WORDS.get(kind) or error["msg"].replace("Input should", "should")
    return what


def _hint(word: str, known: Iterable[str]) -> str:
    """Compares in lower case, because difflib is case-sensitive: `serviceCidrs` matches `serviceCIDRs`."""
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f'; did you mean "{by_lower[near[0]]}"?' if near else ""


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the mapping at `location`, from the schema."""
    whole = schema()
    here: dict[str, Any] = whole
    for part in location:
        below = here["items"] if isinstance(part, int) else here["properties"][part]
        here = _resolved(below, whole)
    return list(here["properties"])


def _resolved(node: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    for option in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
        if "$ref" in option:
            return dict(whole["$defs"][option["$ref"].rpartition("/")[2]])
    return node
