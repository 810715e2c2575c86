"""YAML as plain data, with the line of every key and item."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TRUE = "true"
_MOST_NODES = 100_000


@dataclass(frozen=True)
class Complaint:
    """A mistake in the file; `line` counts from 1."""

    line: int
    path: Path
    what: str


@dataclass
class Tree:
    """`data` is the document; `lines` has the line of each key and item, counted from 1."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)
    nodes: int = 0

    def line(self, path: Path) -> int:
        """The line of `path`, or of its nearest existing parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str) -> Tree:
    """Parse one document; mistakes are in the tree's complaints."""
    tree = Tree()
    try:
        node = YAML().compose(text)
        if node is not None:
            tree.data = _value(node, (), tree, frozenset())
    except RecursionError:
        tree.complaints.append(Complaint(1, (), "nested too deeply"))
        return tree
    except _TooMuch as exc:
        tree.complaints.append(Complaint(exc.line, (), "aliases expand to too much data"))
        return tree
    except MarkedYAMLError as exc:
        tree.complaints.append(_syntax(exc, text))
        return tree
    except ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        tree.complaints.append(Complaint(line, (), f"not YAML: a control character, {chr(exc.character)!r}"))
        return tree
    return tree


class _TooMuch(Exception):
    """A few lines of aliases can expand to more nodes than fit in memory."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _syntax(exc: MarkedYAMLError, text: str) -> Complaint:
    mark = exc.problem_mark or exc.context_mark
    if mark is None:
        return Complaint(1, (), f"not YAML: {exc.problem}")
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    what = (
        "a tab; indent with spaces"
        if "\t" in line[: mark.column + 1]
        else str(exc.problem).removeprefix("but ")
    )
    return Complaint(mark.line + 1, (), f"not YAML, column {mark.column + 1}: {what}")


def _value(node: Node, path: Path, tree: Tree, above: frozenset[int]) -> Any:
    tree.nodes += 1
    if tree.nodes > _MOST_NODES:
        raise _TooMuch(_line(node))
    if id(node) in above:
        tree.complaints.append(Complaint(_line(node), path, "an alias that contains itself"))
        return None
    if isinstance(node, MappingNode):
        return _mapping(node, path, tree, above | {id(node)})
    if isinstance(node, SequenceNode):
        return [_item(item, (*path, i), tree, above | {id(node)}) for i, item in enumerate(node.value)]
    return _scalar(node)


def _item(node: Node, path: Path, tree: Tree, above: frozenset[int]) -> Any:
    tree.lines[path] = _line(node)
    return _value(node, path, tree, above)


def _mapping(node: MappingNode, path: Path, tree: Tree, above: frozenset[int]) -> dict[str, Any]:
    """A key without a value is treated as omitted. Own keys win over merged ones."""
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            merged = {**_merged(value, path, tree, above), **merged}
    result: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if key.tag == _MERGE:
            continue
        if not isinstance(key, ScalarNode):
            tree.complaints.append(Complaint(_line(key), path, "a list or mapping cannot be a key"))
        elif key.tag != _TAG + "str":
            tree.complaints.append(Complaint(_line(key), path, f"the key {name} is not text: quote it"))
        elif name in result:
            first = tree.lines[(*path, name)]
            tree.complaints.append(
                Complaint(_line(key), (*path, name), f"is given twice, first on line {first}")
            )
        else:
            tree.lines[(*path, name)] = _line(key)
            result[name] = _value(value, (*path, name), tree, above)
    return {name: value for name, value in {**merged, **result}.items() if value is not None}


def _merged(node: Node, path: Path, tree: Tree, above: frozenset[int]) -> dict[str, Any]:
    """What `<<` brings: the keys of a mapping, or of several, of which the first wins."""
    found: dict[str, Any] = {}
    for one in node.value if isinstance(node, SequenceNode) else [node]:
        if not isinstance(one, MappingNode):
            tree.complaints.append(Complaint(_line(one), path, "<< merges mappings only, such as *name"))
            continue
        value = _value(one, path, tree, above)
        found = {**(value or {}), **found}
    return found


def _scalar(node: Node) -> Any:
    """YAML 1.2's core types; anything else, such as a date, stays text."""
    text = node.value
    match str(node.tag).removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() == _TRUE
        case "int" if re.fullmatch(r"[-+]?\d{1,18}", text):
            return int(text)
        case "float" if re.fullmatch(r"[-+]?\d*\.\d+", text):
            return float(text)
    return text


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
