"""What a person sees: the only door to rich. Results go to stdout, progress to stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmproxy.errors import VmproxyError

_WIDTH_OF_A_PIPE = 200


def _out() -> Console:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    return (
        console
        if console.is_terminal
        else Console(width=_WIDTH_OF_A_PIPE, soft_wrap=True, highlight=False, markup=False)
    )


def _err() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def progress(text: str) -> None:
    """One line about what happens now, to stderr."""
    _err().print(Text(text, style="dim"))


def result(text: str) -> None:
    """One line of the answer, to stdout."""
    _out().print(text)


def result_json(value: Any) -> None:
    """The answer as JSON, to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The answer as a table, to stdout."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    _out().print(grid)


def error(problem: VmproxyError) -> None:
    """What went wrong, details and the next step, to stderr."""
    console = _err()
    console.print(Text.assemble(("error: ", "bold red"), problem.message))
    for line in problem.details:
        console.print(Text(f"  {line}"))
    if problem.hint:
        console.print(Text.assemble(("hint: ", "bold"), problem.hint))
