"""A small WQL: SELECT with WHERE. What WMI would take and this does not is said to be not emulated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Test = Callable[[Row], bool]
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?)"""
    r"""|(?P<word>[A-Za-z_][\w.]*)|(?P<sign><>|!=|<=|>=|[=<>(),*]))"""
)
_ELSEWHERE = re.compile(r"(?i)\b(associators|references|group\s+by|having|within|isa|__\w+)\b")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "<>": lambda a, b: bool(a != b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
}


class InvalidQuery(Exception):
    """WMI would refuse it."""


class Elsewhere(Exception):
    """WMI would take it; it is not emulated."""


@dataclass(frozen=True)
class Query:
    """`properties` is empty for all of them."""

    name: str
    properties: Sequence[str]
    test: Test


def select(text: str) -> Query:
    if _ELSEWHERE.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", text)):
        raise Elsewhere(text)
    reader = _Reader(_tokens(text))
    reader.word("select")
    properties = _properties(reader)
    reader.word("from")
    name = reader.take("word")
    test: Test = _all
    if reader.left():
        reader.word("where")
        test = _either(reader)
    reader.end()
    return Query(name, properties, test)


def condition(text: str) -> Test:
    """What stands after WHERE, as -Filter gives it."""
    if _ELSEWHERE.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", text)):
        raise Elsewhere(text)
    reader = _Reader(_tokens(text))
    test = _either(reader)
    reader.end()
    return test


@dataclass
class _Reader:
    tokens: list[tuple[str, str]]
    at: int = field(default=0)

    def left(self) -> bool:
        return self.at < len(self.tokens)

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.left() else ("", "")

    def take(self, kind: str) -> str:
        found, value = self.peek()
        if found != kind:
            raise InvalidQuery(value)
        self.at += 1
        return value

    def is_word(self, wanted: str) -> bool:
        """Take the word when it is next."""
        kind, value = self.peek()
        there = kind == "word" and value.lower() == wanted
        self.at += there
        return there

    def word(self, wanted: str) -> None:
        if not self.is_word(wanted):
            raise InvalidQuery(wanted)

    def is_sign(self, *wanted: str) -> str | None:
        kind, value = self.peek()
        if kind != "sign" or value not in wanted:
            return None
        self.at += 1
        return value

    def end(self) -> None:
        if self.left():
            raise InvalidQuery(self.peek()[1])


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise InvalidQuery(text[at:])
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _properties(reader: _Reader) -> list[str]:
    if reader.is_sign("*"):
        return []
    names = [reader.take("word")]
    while reader.is_sign(","):
        names.append(reader.take("word"))
    return names


def _either(reader: _Reader) -> Test:
    tests = [_both(reader)]
    while reader.is_word("or"):
        tests.append(_both(reader))
    return lambda row: any(test(row) for test in tests)


def _both(reader: _Reader) -> Test:
    tests = [_not(reader)]
    while reader.is_word("and"):
        tests.append(_not(reader))
    return lambda row: all(test(row) for test in tests)


def _not(reader: _Reader) -> Test:
    if reader.is_word("not"):
        inner = _not(reader)
        return lambda row: not inner(row)
    if reader.is_sign("("):
        inner = _either(reader)
        if not reader.is_sign(")"):
            raise InvalidQuery(")")
        return inner
    return _comparison(reader)


def _comparison(reader: _Reader) -> Test:
    name = reader.take("word")
    if reader.is_word("is"):
        wanted = not reader.is_word("not")
        reader.word("null")
        return lambda row: (_value(row, name) is None) == wanted
    if reader.is_word("like"):
        pattern = _like(_text(reader.take("text")))
        return lambda row: pattern.fullmatch(str(_value(row, name) or "")) is not None
    sign = reader.is_sign(*_OPERATORS)
    if sign is None:
        raise InvalidQuery(name)
    value = _literal(reader)
    return lambda row: _compare(_value(row, name), sign, value)


def _literal(reader: _Reader) -> Any:
    kind, value = reader.peek()
    reader.at += 1
    if kind == "text":
        return _text(value)
    if kind == "number":
        return float(value) if "." in value else int(value)
    words = {"true": True, "false": False, "null": None}
    if kind != "word" or value.lower() not in words:
        raise InvalidQuery(value)
    return words[value.lower()]


def _compare(seen: Any, sign: str, wanted: Any) -> bool:
    """Texts without regard to case; a number may be written as a text."""
    if isinstance(seen, bool) and isinstance(wanted, str):
        wanted = {"true": True, "false": False}.get(wanted.lower())
    elif isinstance(seen, int) and isinstance(wanted, str):
        wanted = int(wanted) if re.fullmatch(r"-?\d+", wanted) else None
    if seen is None or wanted is None:
        return False
    if isinstance(seen, str):
        seen, wanted = seen.lower(), str(wanted).lower()
    return _OPERATORS[sign](seen, wanted)


def _value(row: Row, name: str) -> Any:
    for key, value in row.items():
        if key.lower() == name.lower():
            return value
    raise InvalidQuery(name)


def _text(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])


def _like(pattern: str) -> re.Pattern[str]:
    parts = [_part(*found) for found in re.findall(r"(%)|(_)|\[([^\]]+)\]|(.)", pattern, re.DOTALL)]
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def _part(percent: str, underscore: str, letters: str, plain: str) -> str:
    if percent or underscore:
        return ".*" if percent else "."
    return f"[{letters}]" if letters else re.escape(plain)


def _all(_row: Row) -> bool:
    return True
