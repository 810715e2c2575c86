"""ssh and logs: access to the VM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from vmproxy.cli import console
from vmproxy.cli.options import file_option, one_host, verbose_option
from vmproxy.engine.machine import Machine


@click.command(context_settings={"ignore_unknown_options": True})
@file_option
@verbose_option
@click.argument("name", metavar="HOST", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(path: Path, name: str | None, command: tuple[str, ...]) -> None:
    """Log in to HOST's VM as root, checking its pinned host key, or run COMMAND there.

    HOST may be omitted if the site has only one host.
    """
    site, host = one_host(path, name)
    with Machine(site, host, console.progress) as machine:
        machine.note_host(machine.place.observe())
        words = machine.ssh_command()
    os.execvp(words[0], [*words, *command])  # noqa: S606 (ssh takes over the user's terminal)


@click.command()
@file_option
@verbose_option
@click.argument("name", metavar="HOST", required=False)
@click.option(
    "--of",
    "which",
    type=click.Choice(["proxy", "cloud-init", "console"]),
    default="proxy",
    show_default=True,
    help="Which log to show.",
)
@click.option(
    "-n",
    "--lines",
    default=50,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="How many lines to show.",
)
def logs(path: Path, name: str | None, which: Literal["proxy", "cloud-init", "console"], lines: int) -> int:
    """Show the end of a log of HOST's VM: kube-proxy, cloud-init or serial console.

    HOST may be omitted if the site has only one host.
    """
    site, host = one_host(path, name)
    with Machine(site, host, console.progress) as machine:
        machine.note_host(machine.place.observe())
        console.result(machine.logs(which, lines))
    return 0
