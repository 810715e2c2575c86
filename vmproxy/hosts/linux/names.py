"""Rules for names in a network namespace: those of the dnsmasq that is its resolver.

They are in its servers file (`--servers-file`, read again at a SIGHUP): a comment line with a rule's id and
comment, then its `server=/DOMAIN/…/ADDRESS`. A domain there always holds the names below it.
"""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import filelock

from vmproxy.errors import ToolFailed
from vmproxy.hosts.protocols import Resolved
from vmproxy.model.net import Address, addresses
from vmproxy.model.seen import NameRule
from vmproxy.util import netns
from vmproxy.util.run import run

PROGRAM = "dnsmasq"
_HEAD = re.compile(r"# rule (\S+) ?(.*)")
_LINE = re.compile(r"server=/(.+)/([^/]+)")
_SECONDS = 20.0
_NOT_FOUND = 2
"""getent's exit code."""


def servers_file(namespace: str) -> Path:
    """It is there while the namespace's resolver runs."""
    return Path("/run/vmproxy", namespace, "servers.conf")


class NamespaceNames:
    """`name` is the machine's in messages."""

    def __init__(self, name: str, *, namespace: str) -> None:
        self._name = name
        self._namespace = namespace
        self._file = servers_file(namespace)

    def rules(self) -> tuple[NameRule, ...]:
        try:
            return parsed(self._file.read_text())
        except FileNotFoundError:
            return ()

    def set(self, rule: NameRule, before: Sequence[NameRule]) -> None:
        going = {item.id for item in before}
        made = replace(rule, id=str(uuid.uuid4()))
        self._change(lambda rules: [*(item for item in rules if item.id not in going), made])

    def remove(self, rule: NameRule) -> None:
        self._change(lambda rules: [item for item in rules if item.id != rule.id])

    def resolve(self, names: Sequence[str]) -> list[Resolved]:
        return [Resolved(name, {"getaddrinfo": self._look_up(name)}) for name in names]

    def _look_up(self, name: str) -> tuple[Address, ...] | str:
        words = netns.run_in(self._namespace, ["getent", "ahostsv4", name])
        done = run(words, ok=(0, _NOT_FOUND), timeout=_SECONDS)
        lines = (line.split() for line in done.stdout.splitlines())
        return tuple(dict.fromkeys(addresses(words[0] for words in lines if words))) or "no such name"

    def _change(self, change: Callable[[Iterable[NameRule]], Iterable[NameRule]]) -> None:
        if not self._file.exists():
            raise ToolFailed(
                f"cannot change the rules for names on {self._name}: its resolver does not run",
                hint="run: vmproxy lab up",
            )
        with filelock.FileLock(self._file.with_suffix(".lock")):
            part = self._file.with_suffix(".part")
            part.write_text(written(change(self.rules())))
            part.replace(self._file)
        for pid in self._resolvers():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGHUP)

    def _resolvers(self) -> list[int]:
        pids = run(["ip", "netns", "pids", self._namespace]).stdout.split()
        return [int(pid) for pid in pids if _program(pid) == PROGRAM]


def parsed(text: str) -> tuple[NameRule, ...]:
    """Lines of others, without a comment before them, are rules of theirs."""
    found: list[NameRule] = []
    head = ("", "")
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEAD.fullmatch(line):
            head = (match[1], match[2])
        elif match := _LINE.fullmatch(line.strip()):
            spaces = tuple(f".{name}" for name in match[1].split("/"))
            found.append(NameRule(spaces, tuple(addresses([match[2]])), head[1], head[0] or f"line-{number}"))
            head = ("", "")
    return tuple(found)


def written(rules: Iterable[NameRule]) -> str:
    lines = []
    for rule in rules:
        domains = "/".join(name.strip(".") for name in rule.namespaces)
        lines.append(f"# rule {rule.id} {rule.comment}".rstrip())
        lines += [f"server=/{domains}/{server}" for server in rule.servers]
    return "".join(f"{line}\n" for line in lines)


def _program(pid: str) -> str:
    """ "": it has ended."""
    with suppress(OSError):
        return Path("/proc", pid, "comm").read_text().strip()
    return ""
