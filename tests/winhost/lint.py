"""Checks PowerShell scripts, without running them, against what each Windows version has.

A command is a function of the script, of another script that it takes in, or a cmdlet of that version
by its full name; a parameter is one of that cmdlet, in full or by an alias. What a script asks for
before it uses it (`Get-Command …`) is allowed by name, with the reason, and only where it asks.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.winhost import powershell, programs, tables
from tests.winhost.state import VERSIONS

LANGUAGE = (
    "Microsoft.PowerShell.Core",
    "Microsoft.PowerShell.Management",
    "Microsoft.PowerShell.Security",
    "Microsoft.PowerShell.Utility",
)
"""Modules of PowerShell 5.1 itself: the same on each Windows version."""


@dataclass(frozen=True)
class Problem:
    """One thing that Windows would refuse; `version` is None where it is every one."""

    file: str
    line: int
    message: str
    version: str | None = None


@dataclass(frozen=True)
class Allowed:
    """What one script may use on versions that lack it, because it asks first.

    `asks` is the text of the question, which must be in the script; `use` the command, or
    "Command -Parameter". A command that is not known by name (`& $Block`) is allowed by its text.
    """

    script: str
    use: str
    asks: str
    reason: str


@dataclass(frozen=True)
class Known:
    """A cmdlet: its module, the names of its parameters and the places of its positional ones."""

    module: str
    parameters: frozenset[str]
    positions: int


def check(
    scripts: Sequence[Path],
    *,
    versions: Iterable[str] = VERSIONS,
    allowed: Sequence[Allowed] = (),
) -> list[Problem]:
    """What is wrong with the scripts; each may use the functions of all of them."""
    seen = inspect(scripts)
    functions = {name.lower() for one in seen for name in one["functions"]}
    problems = [problem for one in seen for problem in _findings(one)]
    for version in versions:
        linter = _Linter(version, functions, set(programs.names(version)), allowed)
        problems += [problem for one in seen for problem in linter.problems(one)]
    return problems + _unused(allowed, seen)


def inspect(scripts: Sequence[Path]) -> list[dict[str, Any]]:
    """Each script's findings, commands and functions."""
    command = [str(powershell.program()), "--inspect", *map(str, scripts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


@cache
def known(version: str) -> Mapping[str, Known]:
    """Every cmdlet that a version has, by its name in small letters."""
    found = {name.lower(): _known(one) for name, one in tables.cmdlets(version).items()}
    read = json.loads((tables.data() / "cmdlets.json").read_text())
    for module in LANGUAGE:
        for name, docsets in read[module].items():
            entry = docsets["ps-5.1"]["parameters"]
            positions = {one["position"] for one in entry.values() if "position" in one}
            found[name.lower()] = Known(module, _names(entry), len(positions))
    return found


@cache
def common() -> frozenset[str]:
    """The parameters that every cmdlet has, and their aliases."""
    read = json.loads((tables.data() / "cmdlets.json").read_text())
    names: Mapping[str, str] = read["_meta"]["common_parameters"]
    return frozenset(one.lower() for pair in names.items() for one in pair)


@dataclass(frozen=True)
class _Linter:
    version: str
    functions: set[str]
    programs: set[str]
    allowed: Sequence[Allowed]

    def problems(self, seen: Mapping[str, Any]) -> Iterator[Problem]:
        file = seen["file"]
        text = Path(file).read_text()
        for command in seen["commands"]:
            for message in self._messages(command, text, Path(file).name):
                yield Problem(file, command["line"], message, self.version)

    def _messages(self, command: Mapping[str, Any], text: str, script: str) -> Iterator[str]:
        name: str | None = command["name"]
        if name is None:
            yield from self._unnamed(text.splitlines()[command["line"] - 1].strip(), text, script)
            return
        module, _, bare = name.rpartition("\\")
        if not module and bare.lower() in self.functions:
            return
        if "." in bare:
            if bare.lower() not in self.programs and not self._may(script, name, text):
                yield f"{bare} is no program of the host's"
            return
        cmdlet = known(self.version).get(bare.lower())
        if cmdlet is None or (module and module.lower() != cmdlet.module.lower()):
            if not self._may(script, name, text):
                yield f"{name} does not exist"
            return
        yield from self._parameters(command, cmdlet, text, script)

    def _parameters(self, command: Mapping[str, Any], cmdlet: Known, text: str, script: str) -> Iterator[str]:
        name: str = command["name"]
        given = [*command["parameters"]]
        for variable in command["splatted"]:
            keys = _splatted(text, variable)
            given += keys
            if not keys:
                yield f"{name} @{variable}: what it holds is not to be seen in the script"
        for parameter in given:
            exists = parameter.lower() in cmdlet.parameters | common()
            if not exists and not self._may(script, f"{name} -{parameter}", text):
                yield f"{name} has no parameter {parameter}"
        if command["positional"] > cmdlet.positions:
            yield f"{name} takes {cmdlet.positions} arguments without a name, not {command['positional']}"

    def _unnamed(self, line: str, text: str, script: str) -> Iterator[str]:
        """`. $Session.Lib` takes in what the scripts share; any other is an exception."""
        blocks = [one for one in self.allowed if one.script == script and one.use in line]
        if line != ". $Session.Lib" and not any(one.asks in text for one in blocks):
            yield f"a command that is not known by name: {line}"

    def _may(self, script: str, use: str, text: str) -> bool:
        wanted = [one for one in self.allowed if one.script == script and one.use.lower() == use.lower()]
        return any(one.asks in text for one in wanted)


def _findings(seen: Mapping[str, Any]) -> Iterator[Problem]:
    for one in seen["findings"]:
        yield Problem(seen["file"], one["line"], one["message"])


def _splatted(text: str, variable: str) -> list[str]:
    """The keys of the table in that variable: those of its literals, and those set later."""
    name = re.escape(variable)
    keys = re.findall(rf"\${name}(?:\.|\[['\"])(\w+)(?:['\"]\])?\s*=[^=]", text, re.IGNORECASE)
    for table in re.findall(
        rf"\${name}\s*\+?=\s*@\{{(.*?)\}}\s*$", text, re.DOTALL | re.MULTILINE | re.IGNORECASE
    ):
        keys += re.findall(r"(?:^|[;\n])\s*(\w+)\s*=", table)
    return keys


def _unused(allowed: Sequence[Allowed], seen: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """An exception that no script needs any more is a mistake too."""
    used = [(Path(one["file"]).name, use.lower()) for one in seen for use in _uses(one)]
    return [
        Problem(one.script, 0, f"nothing uses {one.use} any more: {one.reason}")
        for one in allowed
        if not any(_serves(one, script, use) for script, use in used)
    ]


def _serves(one: Allowed, script: str, use: str) -> bool:
    """Whether the exception is for this use; a block's is a line."""
    same = one.use.lower() in use if one.use.startswith("&") else one.use.lower() == use
    return same and one.script == script


def _uses(seen: Mapping[str, Any]) -> Iterator[str]:
    text = Path(seen["file"]).read_text()
    for command in seen["commands"]:
        name = command["name"] or text.splitlines()[command["line"] - 1]
        held = [key for variable in command["splatted"] for key in _splatted(text, variable)]
        yield name
        yield from (f"{name} -{parameter}" for parameter in (*command["parameters"], *held))


def _known(cmdlet: tables.Cmdlet) -> Known:
    names = {one.lower() for p in cmdlet.parameters.values() for one in (p.name, *p.aliases)}
    positions = {p.position for p in cmdlet.parameters.values() if p.position is not None}
    return Known(cmdlet.module, frozenset(names), len(positions))


def _names(entry: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(
        one.lower() for name, value in entry.items() for one in (name, *value.get("aliases", ()))
    )
