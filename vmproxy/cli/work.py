"""plan, apply, destroy, render: the commands that change things or show the change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from vmproxy.cli import answers, console, exit_codes
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.cli.options import (
    Chosen,
    choose,
    file_option,
    host_option,
    output_option,
    verbose_option,
)
from vmproxy.engine import reconcile
from vmproxy.engine.reconcile import HostResult
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.model.plan import Outcome, Plan
from vmproxy.operations import destruction, rendering

T = TypeVar("T")


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option("--exit-code", is_flag=True, help="Exit with 3 when changes are pending.")
def plan(path: Path, names: tuple[str, ...], output: str, *, exit_code: bool) -> int:
    """Show what apply would do, field by field."""

    def code(planned: Plan) -> ExitCode:
        return ExitCode.PENDING if exit_code and not planned.in_sync else ExitCode.DONE

    chosen = choose(path, names)
    plans = reconcile.for_each(
        chosen.hosts, lambda host: reconcile.plan_host(chosen.site, host, chosen.reporter(host))
    )
    if output == "json":
        console.result_json({"hosts": [answers.plan(*pair) for pair in _named(chosen, plans)]})
    for name, planned in _named(chosen, plans):
        _show_or_tell(name, planned, as_text=output == "text", many=len(plans) > 1)
    return exit_codes.of_hosts(plans, code)


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option("--yes", is_flag=True, help="Also do what interrupts a running VM.")
def apply(path: Path, names: tuple[str, ...], output: str, *, yes: bool) -> int:
    """Make it so; again: nothing to do, or exactly the drift repaired."""
    chosen = choose(path, names)
    results = reconcile.for_each(
        chosen.hosts, lambda host: reconcile.apply_host(chosen.site, host, chosen.reporter(host), yes=yes)
    )
    return _results(chosen, results, output, console.outcomes)


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option("--yes", is_flag=True, help="Really remove it; without, only show it.")
def destroy(path: Path, names: tuple[str, ...], output: str, *, yes: bool) -> int:
    """Remove the routes, then the VM with its disks, then the identity in the cluster."""
    chosen = choose(path, names)
    results = reconcile.for_each(
        chosen.hosts,
        lambda host: destruction.destroy_host(
            chosen.site, host, chosen.reporter(host), yes=yes, going=chosen.hosts
        ),
    )
    return _results(chosen, results, output, console.removal)


@click.command()
@file_option
@verbose_option
@host_option
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def render(path: Path, names: tuple[str, ...], directory: Path) -> None:
    """Write every file that apply would push to DIRECTORY, secrets redacted."""
    chosen = choose(path, names)
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"cannot render to {directory}: it is not empty", hint="name a new directory")
    for host in chosen.hosts:
        for name in rendering.render_host(chosen.site, host, directory / host.name, chosen.reporter(host)):
            console.result(str(name))


def _results(
    chosen: Chosen,
    items: list[HostResult | VmproxyError],
    output: str,
    show: Callable[[str, Sequence[Outcome], Plan], None],
) -> int:
    """Tell them; a host that failed has its work so far shown too. The exit code."""
    results = [
        HostResult(name, error=item) if isinstance(item, VmproxyError) else item
        for name, item in _named(chosen, items)
    ]
    if output == "json":
        console.result_json({"hosts": [answers.changes(result.host, result) for result in results]})
    for result in results:
        if output == "text" and (result.error is None or result.outcomes):
            show(result.host, result.outcomes, result.left)
        if result.error is not None:
            _tell(result.host, result.error, many=len(results) > 1)
    return exit_codes.of_hosts(results, _code)


def _named(chosen: Chosen, items: list[T]) -> list[tuple[str, T]]:
    return [(host.name, item) for host, item in zip(chosen.hosts, items, strict=True)]


def _show_or_tell(name: str, planned: Plan | VmproxyError, *, as_text: bool, many: bool) -> None:
    if isinstance(planned, VmproxyError):
        _tell(name, planned, many=many)
    elif as_text:
        console.plan(name, planned)


def _tell(name: str, problem: VmproxyError, *, many: bool) -> None:
    if many:
        console.progress(f"{name}:")
    console.error(problem)


def _code(result: HostResult) -> ExitCode:
    if result.error is not None:
        return exit_codes.of_error(result.error)
    return ExitCode.PENDING if result.left.actions else ExitCode.DONE
