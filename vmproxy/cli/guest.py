"""ssh and logs: access to the VM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from vmproxy.cli import console
from vmproxy.cli.hosts import one_host
from vmproxy.cli.options import file_option, log_options
from vmproxy.engine.scope import Scope


@click.command(context_settings={"ignore_unknown_options": True})
@file_option
@log_options
@click.argument("name", metavar="HOST", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(path: Path, name: str | None, command: tuple[str, ...]) -> None:
    """Log in to HOST's VM as root, checking its pinned host key, or run COMMAND there.

    HOST may be omitted if the site has only one host.
    """
    site, member = one_host(path, name)
    with Scope(site, member, console.reporter(member.name)) as scope:
        words = scope.ssh_command()
    os.execvp(words[0], [*words, *command])  # noqa: S606 (the user's terminal goes to ssh)


@click.command()
@file_option
@log_options
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
def logs(path: Path, name: str | None, which: Literal["proxy", "cloud-init", "console"], lines: int) -> None:
    """Show the end of a log of HOST's VM: kube-proxy, cloud-init or serial console.

    HOST may be omitted if the site has only one host.
    """
    site, member = one_host(path, name)
    with Scope(site, member, console.reporter(member.name)) as scope:
        console.result(scope.logs(which, lines))
