"""Text output; the only module that uses rich. Results go to stdout, progress to stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmproxy.errors import VmproxyError
from vmproxy.model.steps import Plan, Step

_WIDTH_OF_A_PIPE = 200
_times: list[float] = []


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
    _times.append(time.monotonic())


def progress(text: str) -> None:
    """Print one progress line to stderr."""
    since = f"{time.monotonic() - _times[0]:7.1f} s  " if _times else ""
    _err().print(Text(since + text, style="dim"))


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


def error(problem: VmproxyError) -> None:
    """Print an error with its details and hint to stderr."""
    console = _err()
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


def outcomes(host: str, done: Sequence[Step], left: Plan) -> None:
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


def _done(console: Console, done: Sequence[Step]) -> None:
    for item in done:
        console.print(Text.assemble("  ", (f"{item.verb:<12}", "green"), item.target))


def _step(console: Console, item: Step) -> None:
    cold = " (cold)" if item.cold else ""
    head = Text.assemble("  ", (f"{item.verb:<12}", "cyan"), item.target, (cold, "yellow"))
    console.print(Text.assemble(head, (f"  {item.why}", "dim")))
    for drift in item.drift:
        console.print(Text(f"      {drift.field}: {_value(drift.seen)} → {_value(drift.wanted)}"))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def removal(host: str, done: Sequence[Step], left: Plan) -> None:
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
