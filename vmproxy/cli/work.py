"""plan, apply, destroy, render: the commands that make or show changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from vmproxy import api
from vmproxy.cli import answers, console, exit_codes
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.cli.hosts import answer, choose
from vmproxy.cli.options import file_option, host_option, log_options, output_option
from vmproxy.engine.run import HostResult
from vmproxy.errors import UsageError
from vmproxy.model.steps import Plan, Step
from vmproxy.operations import render as rendering


@click.command()
@file_option
@log_options
@host_option
@output_option
@click.option("--exit-code", is_flag=True, help="Exit with 3 if changes are pending.")
def plan(path: Path, names: tuple[str, ...], output: str, *, exit_code: bool) -> int:
    """Show what apply would change, field by field."""

    def code(planned: Plan) -> ExitCode:
        return ExitCode.PENDING if exit_code and not planned.in_sync else ExitCode.DONE

    results = api.plan(choose(path, names))
    return answer(results, output, as_json=answers.plan, show=console.plan, code=code)


@click.command()
@file_option
@log_options
@host_option
@output_option
@click.option("--yes", is_flag=True, help="Also make changes that interrupt a running VM.")
@click.option(
    "--new-image", is_flag=True, help="Replace VMs made of an older image than the one in the cache."
)
def apply(path: Path, names: tuple[str, ...], output: str, *, yes: bool, new_image: bool) -> int:
    """Create the VM and the routes, or repair only what has drifted.

    Without --yes, changes that interrupt a running VM are listed and not made.
    """
    results = api.apply(choose(path, names), yes=yes, new_image=new_image)
    show = partial(_show, console.outcomes)
    return answer(results, output, as_json=answers.changes, show=show, code=_code)


@click.command()
@file_option
@log_options
@host_option
@output_option
@click.option("--yes", is_flag=True, help="Remove it; without --yes, only show what would be removed.")
def destroy(path: Path, names: tuple[str, ...], output: str, *, yes: bool) -> int:
    """Remove the routes, then the VM with its disks, then the identity in the cluster."""
    results = api.destroy(choose(path, names), yes=yes)
    show = partial(_show, console.removal)
    return answer(results, output, as_json=answers.changes, show=show, code=_code)


@click.command()
@file_option
@log_options
@host_option
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def render(path: Path, names: tuple[str, ...], directory: Path) -> None:
    """Write every file that apply would push to DIRECTORY, with secrets redacted."""
    chosen = choose(path, names)
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"cannot render to {directory}: it is not empty", hint="name a new directory")
    for member in chosen.members:
        folder, report = directory / member.name, chosen.reporter(member)
        for name in rendering.render_host(chosen.site, member, folder, report):
            console.result(str(name))


def _show(write: Callable[[str, Sequence[Step], Plan], None], name: str, result: HostResult) -> None:
    """Of a host that failed what was done before."""
    if result.error is None or result.done:
        write(name, result.done, result.left)


def _code(result: HostResult) -> ExitCode:
    if result.error is not None:
        return exit_codes.of_error(result.error)
    return ExitCode.PENDING if result.left.steps else ExitCode.DONE
