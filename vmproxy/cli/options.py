"""Options that several commands share, and the hosts that they select."""

from __future__ import annotations

from pathlib import Path

import click

from vmproxy.cli import console

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


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_verbose,
    help="Prefix progress lines with the elapsed time.",
)
