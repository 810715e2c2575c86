"""The switchboard: what goes wrong, and when."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from tests.winhost.soap import Fault

When = Literal["before", "after"]
What = Literal["drop", "delay", "truncate", "status", "fault", "page", "redirect"]
_PAGE = b"<html><body><h1>Please log in to the proxy<br></h1></body></html>"


@dataclass
class Rule:
    """One thing that goes wrong: at the `nth` message that fits, before or after it took effect.

    `operation` is Create, Command, Send, Receive, Signal or Delete, None for any of them, and
    "http" for every HTTP request, the log-in's included. `times` messages are hit from there on.
    """

    what: What
    nth: int = 1
    operation: str | None = None
    when: When = "before"
    times: int = 1
    seconds: float = 0.0
    status: int = 503
    location: str = ""
    """Where a redirect leads, with `status`."""
    fault: Fault | None = None
    seen: int = 0


@dataclass
class Dropped(Exception):
    """The connection goes away; with `part` after that much of the answer."""

    part: bytes = b""


@dataclass
class Answered(Exception):
    """Something other than the server answers."""

    status: int
    body: bytes
    location: str = ""


@dataclass
class Switchboard:
    """Rules, and a record of every message that came: its operation, in order."""

    rules: list[Rule] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: What, **options: object) -> Rule:
        rule = Rule(what, **options)  # type: ignore[arg-type]
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        with self.lock:
            self.rules.clear()

    def matching(self, operation: str) -> list[Rule]:
        """The rules that hit this message; counts it."""
        with self.lock:
            if operation != "http":
                self.messages.append(operation)
            hit = []
            for rule in self.rules:
                if rule.operation == operation or (rule.operation is None and operation != "http"):
                    rule.seen += 1
                    if rule.nth <= rule.seen < rule.nth + rule.times:
                        hit.append(rule)
            return hit


def strike(rules: list[Rule], when: When, answer: bytes = b"") -> None:
    """Do what the rules say at this moment; `answer` is what would be sent."""
    for rule in (one for one in rules if one.when == when):
        if rule.what == "delay":
            time.sleep(rule.seconds)
        elif rule.what == "drop":
            raise Dropped
        elif rule.what == "truncate":
            raise Dropped(answer[: len(answer) // 2] or b"<s:Envel")
        elif rule.what == "page":
            raise Answered(200, _PAGE)
        elif rule.what == "status":
            raise Answered(rule.status, b"")
        elif rule.what == "redirect":
            raise Answered(rule.status, b"", rule.location)
        elif rule.fault is not None:
            raise rule.fault
