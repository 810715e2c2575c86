"""Text output; the only module that uses rich. Results go to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmproxy.errors import VmproxyError
from vmproxy.model import steps
from vmproxy.model.steps import Plan
from vmproxy.util.events import Ended, Event, Phase, Progress, Reporter, Step, Warned

_WIDTH_OF_A_PIPE = 200


@dataclass
class _Settings:
    """Of stderr, for the whole command. `since`: when progress lines began to show the time; None: not."""

    since: float | None = None
    log: Literal["text", "json"] = "text"
    hosts: bool = False


_settings = _Settings()


def _out() -> Console:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    return (
        console
        if console.is_terminal
        else Console(width=_WIDTH_OF_A_PIPE, soft_wrap=True, highlight=False, markup=False)
    )


def _err() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def show_times() -> None:
    """From now on, prefix each progress line with the seconds since this call."""
    _settings.since = time.monotonic()


def log_as(form: Literal["text", "json"]) -> None:
    """How stderr is written from now on."""
    _settings.log = form


def name_hosts(*, named: bool) -> None:
    """Whether each progress line and each error begins with the name of its host."""
    _settings.hosts = named


def reporter(host: str | None = None) -> Reporter:
    """The events of a host, or of the command itself, to stderr."""
    return Reporter(sink, host)


def progress(text: str) -> None:
    """Print one progress line to stderr."""
    reporter()(text)


def sink(host: str | None, event: Event) -> None:
    """Write an event to stderr, as a line of text or of JSON."""
    if _settings.log == "json":
        _write_json(type(event).__name__.lower(), host, vars(event))
    elif (text := _line(event)) is not None:
        prefix = f"{host}: " if host and _settings.hosts else ""
        since = "" if _settings.since is None else f"{time.monotonic() - _settings.since:7.1f} s  "
        _err().print(Text(since + prefix + text, style="dim"))


def _line(event: Event) -> str | None:
    """What a person reads; None for what the answer shows anyway."""
    match event:
        case Progress():
            return event.text
        case Step():
            return f"{event.verb} {event.target}"
        case Phase() | Warned() | Ended():
            return None
        case _:
            assert_never(event)


def _write_json(kind: str, host: str | None, values: Mapping[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "event": kind, "host": host, **values}
    sys.stderr.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stderr.flush()


def result(text: str) -> None:
    """Print one line of the result to stdout."""
    _out().print(text)


def result_json(value: Any) -> None:
    """Print the result as JSON to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the result as a table to stdout."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    _out().print(grid)


def error(problem: VmproxyError, host: str | None = None) -> None:
    """Write an error with its details and hint to stderr."""
    if _settings.log == "json":
        known = {"message": problem.message, "hint": problem.hint, "details": list(problem.details)}
        _write_json("error", host, known)
        return
    console = _err()
    if host and _settings.hosts:
        console.print(Text(f"{host}:", style="dim"))
    console.print(Text.assemble(("error: ", "bold red"), problem.message))
    for line in problem.details:
        console.print(Text(f"  {line}"))
    if problem.hint:
        console.print(Text.assemble(("hint: ", "bold"), problem.hint))


def plan(host: str, planned: Plan) -> None:
    """Print what apply would change on a host, field by field, to stdout."""
    console = _out()
    if planned.in_sync:
        console.print(Text.assemble((host, "bold"), ": in sync"))
    else:
        console.print(Text.assemble((host, "bold"), f": {_count(len(planned.steps), 'change')}"))
    for item in planned.steps:
        _step(console, item)
    for line in planned.unseen:
        console.print(Text(f"  later: {line}", style="dim"))
    for line in planned.warnings:
        console.print(Text.assemble("  ", ("warning: ", "yellow"), line))


def outcomes(host: str, done: Sequence[steps.Step], left: Plan) -> None:
    """What apply did on a host, and what it did not do for lack of --yes, to stdout."""
    console = _out()
    if not done and left.in_sync:
        console.print(Text.assemble((host, "bold"), ": in sync, nothing to do"))
    else:
        console.print(Text.assemble((host, "bold"), f": {_count(len(done), 'change')} made"))
    _done(console, done)
    if left.steps:
        console.print("  not done, as it interrupts the running VM (--yes does it):")
        for item in left.steps:
            _step(console, item)
    for line in left.warnings:
        console.print(Text.assemble("  ", ("warning: ", "yellow"), line))


def _done(console: Console, done: Sequence[steps.Step]) -> None:
    for item in done:
        console.print(Text.assemble("  ", (f"{item.verb:<12}", "green"), item.target))


def _step(console: Console, item: steps.Step) -> None:
    cold = " (cold)" if item.cold else ""
    head = Text.assemble("  ", (f"{item.verb:<12}", "cyan"), item.target, (cold, "yellow"))
    console.print(Text.assemble(head, (f"  {item.why}", "dim")))
    for drift in item.drift:
        console.print(Text(f"      {drift.field}: {_value(drift.seen)} → {_value(drift.wanted)}"))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def removal(host: str, done: Sequence[steps.Step], left: Plan) -> None:
    """What destroy did, or would do with --yes, to stdout."""
    console = _out()
    if not done and not left.steps:
        console.print(Text.assemble((host, "bold"), ": nothing to remove"))
    elif done:
        console.print(Text.assemble((host, "bold"), f": {_count(len(done), 'thing')} removed"))
        _done(console, done)
    else:
        console.print(Text.assemble((host, "bold"), ": --yes would remove"))
        for item in left.steps:
            _step(console, item)


def step(text: str) -> None:
    """Print a heading between the steps of the demo to stdout."""
    console = _out()
    console.print()
    console.print(Text.assemble(("▶ ", "bold cyan"), (text, "bold")))
