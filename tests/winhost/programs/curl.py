"""curl.exe: the machine's curl with Windows paths, and only the options that Windows' curl has.

The versions are those that came with the system; updates bring later ones.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.winhost.programs.paths import Refused, local

VERSIONS = {"2019": (7, 55, 1), "2022": (7, 79, 1), "2025": (8, 9, 1)}
_HELP = "curl: try 'curl --help' for more information"


@dataclass(frozen=True)
class Option:
    """`path`: its value is a file's; `since`: the first version that has it on Windows."""

    name: str
    short: str = ""
    value: bool = False
    path: bool = False
    since: tuple[int, int, int] = (7, 0, 0)


OPTIONS = (
    Option("anyauth"),
    Option("cacert", value=True, path=True, since=(7, 60, 0)),
    Option("config", "K", value=True),
    Option("connect-timeout", value=True),
    Option("continue-at", "C", value=True),
    Option("create-dirs"),
    Option("fail", "f"),
    Option("fail-with-body", since=(7, 76, 0)),
    Option("head", "I"),
    Option("header", "H", value=True),
    Option("http1.1"),
    Option("insecure", "k"),
    Option("ipv4", "4"),
    Option("limit-rate", value=True),
    Option("location", "L"),
    Option("max-time", "m", value=True),
    Option("noproxy", value=True),
    Option("output", "o", value=True, path=True),
    Option("output-dir", value=True, path=True, since=(7, 73, 0)),
    Option("progress-bar", "#"),
    Option("proxy", "x", value=True),
    Option("range", "r", value=True),
    Option("remote-name", "O"),
    Option("remove-on-error", since=(7, 83, 0)),
    Option("request", "X", value=True),
    Option("retry", value=True),
    Option("retry-all-errors", since=(7, 71, 0)),
    Option("retry-connrefused"),
    Option("retry-delay", value=True),
    Option("retry-max-time", value=True),
    Option("show-error", "S"),
    Option("silent", "s"),
    Option("speed-limit", "Y", value=True),
    Option("speed-time", "y", value=True),
    Option("ssl-no-revoke"),
    Option("ssl-revoke-best-effort", since=(7, 70, 0)),
    Option("tlsv1.2"),
    Option("url", value=True),
    Option("user-agent", "A", value=True),
    Option("verbose", "v"),
    Option("write-out", "w", value=True),
)
_CONFIGURED = re.compile(r'\s*-{0,2}([\w.-]+)(?:\s*[=:\s]\s*(?:"((?:\\.|[^"\\])*)"|([^\s"]+)))?\s*')
_SCHANNEL = {"ssl-no-revoke", "ssl-revoke-best-effort"}
"""Of Windows' TLS alone: the machine's curl does not know it."""


def run(version: str, program: str, arguments: Sequence[str]) -> None:
    """Become the machine's curl."""
    have = VERSIONS[version]
    if list(arguments) in (["--version"], ["-V"]):
        print("curl {}.{}.{} (Windows) libcurl/{}.{}.{} Schannel".format(*have, *have))
        return
    os.execv(program, [program, "--disable", *translated(arguments, have)])


def translated(arguments: Sequence[str], have: tuple[int, int, int]) -> Iterator[str]:
    """The arguments for the machine's curl. Raises Refused for an option that this version lacks."""
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("--"):
            option = _long(word, have)
            yield from _given(option, word, _next(waiting, word) if option.value else None, have)
        elif word.startswith("-") and len(word) > 1:
            yield from _shorts(word[1:], waiting, have)
        else:
            yield _url(word)


def _shorts(letters: str, waiting: list[str], have: tuple[int, int, int]) -> Iterator[str]:
    """`-sSL` is three of them; a value may follow its letter at once."""
    while letters:
        option = _short(letters[0], have)
        letters = letters[1:]
        if option.value:
            yield from _given(option, f"--{option.name}", letters or _next(waiting, f"-{option.short}"), have)
            return
        yield from _given(option, f"--{option.name}", None, have)


def _given(option: Option, word: str, value: str | None, have: tuple[int, int, int]) -> list[str]:
    if option.name in _SCHANNEL:
        return []
    if option.name == "config":
        return list(translated(_configured(value or ""), have))
    if value is None:
        return [word]
    return [word, _url(value) if option.name == "url" else _path(value) if option.path else value]


def _configured(source: str) -> Iterator[str]:
    """The options that a file or stdin holds, one a line, as arguments."""
    for line in (sys.stdin.read() if source == "-" else local(source).read_text()).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _CONFIGURED.fullmatch(line)
        if found is None:
            raise Refused(f"not emulated: curl --config with the line {line}", 2)
        name, quoted, plain = found.groups()
        yield f"--{name}"
        if quoted is not None:
            yield re.sub(
                r"\\(.)", lambda part: {"n": "\n", "r": "\r", "t": "\t"}.get(part[1], part[1]), quoted
            )
        elif plain is not None:
            yield plain


def _long(word: str, have: tuple[int, int, int]) -> Option:
    name = word[2:]
    for option in OPTIONS:
        if option.since <= have and name in (option.name, f"no-{option.name}" if not option.value else ""):
            return option
    raise Refused(f"curl: option {word}: is unknown\n{_HELP}", 2)


def _short(letter: str, have: tuple[int, int, int]) -> Option:
    for option in OPTIONS:
        if option.since <= have and option.short == letter:
            return option
    raise Refused(f"curl: option -{letter}: is unknown\n{_HELP}", 2)


def _next(waiting: list[str], word: str) -> str:
    if not waiting:
        raise Refused(f"curl: option {word}: requires parameter\n{_HELP}", 2)
    return waiting.pop(0)


def _path(value: str) -> str:
    if value == "-":
        return value
    return "/dev/null" if value.upper() == "NUL" else str(local(value))


def _url(text: str) -> str:
    """Files by URL would be the machine's own."""
    if re.match(r"(?i)file:", text):
        raise Refused(f"not emulated: curl {text}", 2)
    return text
