"""Options that several commands share, and the hosts that they select."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from vmproxy.cli import console

F = TypeVar("F", bound=Callable[..., Any])

file_option = click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("vmproxy.yaml"),
    show_default=True,
    help="The site file.",
)
host_option = click.option(
    "--host", "names", multiple=True, metavar="NAME", help="Only this host; may be repeated."
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the result on stdout.",
)


def _verbose(_context: click.Context, _option: click.Parameter, value: object) -> None:
    if value:
        console.show_times()


def _log_format(_context: click.Context, _option: click.Parameter, value: Literal["text", "json"]) -> None:
    console.log_as(value)


_verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_verbose,
    help="Prefix progress lines with the elapsed time.",
)
_log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    expose_value=False,
    callback=_log_format,
    help="Format of progress and errors on stderr; json: one object a line.",
)


def log_options(command: F) -> F:
    """How a command writes to stderr."""
    return _verbose_option(_log_format_option(command))
