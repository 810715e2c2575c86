"""How cmd.exe reads a line: %VAR%, quotes, ^, and the operators between commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_OPERATORS = ("&&", "||", "&", "|")
_REDIRECTION = re.compile(
    r"(?P<fd>[012])?(?P<how>>>|>|<)(?:&(?P<to>[012])|[ \t]*(?P<path>\"[^\"]*\"|[^\s&|<>\"]+))"
)


class Unexpected(Exception):
    """cmd.exe gives up on the line; the message is its own."""


@dataclass
class Redirection:
    fd: int
    how: str
    to: int | None
    path: str | None


@dataclass
class Simple:
    """One command: its text as typed, without redirections."""

    text: str = ""
    redirections: list[Redirection] = field(default_factory=list)

    def split(self) -> tuple[str, str]:
        """The command's name and the rest as typed, its leading blank included."""
        text = self.text.lstrip()
        if text.startswith('"'):
            end = text.find('"', 1)
            end = len(text) if end < 0 else end + 1
            return text[:end].strip('"'), text[end:]
        found = re.match(r"[^\s/=;,.(]+(?:\.[A-Za-z0-9]+)*|\S", text)
        name = found[0] if found else ""
        return name, text[len(name) :]


@dataclass
class Step:
    """A pipeline, and when it runs: always, after success ("&&") or after failure ("||")."""

    when: str
    pipeline: list[Simple]


def expand(line: str, variables: Mapping[str, str]) -> str:
    """%NAME% becomes its value; what is not set stays as it is typed."""
    known = {name.upper(): value for name, value in variables.items()}
    return re.sub(r"%([^%\r\n]+)%", lambda found: known.get(found[1].upper(), found[0]), line)


def parse(line: str) -> list[Step]:
    steps = [Step("", [Simple()])]
    at = 0
    while at < len(line):
        current = steps[-1].pipeline[-1]
        operator = next((one for one in _OPERATORS if line.startswith(one, at)), None)
        redirection = _redirection(line, at)
        if operator == "|":
            steps[-1].pipeline.append(Simple())
            at += 1
        elif operator:
            steps.append(Step("" if operator == "&" else operator, [Simple()]))
            at += len(operator)
        elif redirection:
            current.redirections.append(_made(redirection))
            at = redirection.end()
        else:
            piece = _literal(line, at)
            current.text += piece[1:] if piece.startswith("^") else piece
            at += len(piece)
    return _checked(steps)


def arguments(text: str) -> list[str]:
    """A command line cut as the C runtime of Windows does it."""
    words: list[str] = []
    word, quoted, begun = "", False, False
    for found in re.finditer(
        r'(?P<slashes>\\+)(?=")|(?P<double>"")|(?P<quote>")|(?P<blank>[ \t]+)|(?P<other>.)', text, re.DOTALL
    ):
        if found["slashes"]:
            word += "\\" * (len(found[0]) // 2)
            literal = len(found[0]) % 2 == 1
            word, begun = (word + '"', True) if literal else (word, True)
            skip = literal
        elif found["double"]:
            # Two in a quoted part are one; elsewhere they are an empty part.
            if _is_escaped(text, found.start()):
                quoted = not quoted
            elif quoted:
                word += '"'
            begun = True
        elif found["quote"]:
            skip = _is_escaped(text, found.start())
            quoted = quoted if skip else not quoted
            begun = True
        elif found["blank"] and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + found[0], True
    return [*words, word] if begun else words


def _is_escaped(text: str, at: int) -> bool:
    slashes = len(text[:at]) - len(text[:at].rstrip("\\"))
    return slashes % 2 == 1


def _redirection(line: str, at: int) -> re.Match[str] | None:
    found = _REDIRECTION.match(line, at)
    if found and found["fd"] and at and not line[at - 1].isspace():
        return None  # the 2 of "file2>x" belongs to the word
    return found


def _made(found: re.Match[str]) -> Redirection:
    default = "0" if found["how"] == "<" else "1"
    path = found["path"]
    return Redirection(
        fd=int(found["fd"] or default),
        how=found["how"],
        to=int(found["to"]) if found["to"] else None,
        path=path.strip('"') if path else None,
    )


def _literal(line: str, at: int) -> str:
    if line[at] == "^" and at + 1 < len(line):
        return line[at : at + 2]
    if line[at] == '"':
        end = line.find('"', at + 1)
        return line[at:] if end < 0 else line[at : end + 1]
    if line[at] in "<>":
        raise Unexpected("The syntax of the command is incorrect.")
    return line[at]


def _checked(steps: list[Step]) -> list[Step]:
    if steps[-1].when == "" and len(steps) > 1 and not steps[-1].pipeline[0].text.strip():
        steps = steps[:-1]  # a trailing & is allowed
    for step in steps:
        if any(not one.text.strip() and not one.redirections for one in step.pipeline):
            sign = "|" if len(step.pipeline) > 1 else step.when or "&"
            raise Unexpected(f"{sign} was unexpected at this time.")
    return steps
