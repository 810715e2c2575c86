"""plan, apply, destroy, render: the commands that make or show changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from vmproxy.cli import console
from vmproxy.cli.options import (
    Chosen,
    choose,
    file_option,
    host_option,
    json_error,
    output_option,
    verbose_option,
)
from vmproxy.engine import reconcile
from vmproxy.engine.reconcile import HostResult
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.model.plan import Outcome, Plan
from vmproxy.operations import destruction, rendering

PENDING = 3
T = TypeVar("T")


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option("--exit-code", is_flag=True, help="Exit with 3 if changes are pending.")
def plan(path: Path, names: tuple[str, ...], output: str, *, exit_code: bool) -> int:
    """Show what apply would change, field by field."""
    chosen = choose(path, names)
    plans = reconcile.for_each(
        chosen.hosts, lambda host: reconcile.plan_host(chosen.site, host, chosen.reporter(host))
    )
    if output == "json":
        console.result_json({"hosts": [_plan_json(*pair) for pair in _named(chosen, plans)]})
    for name, planned in _named(chosen, plans):
        _show_or_report(name, planned, as_text=output == "text", many=len(plans) > 1)
    pending = any(isinstance(item, Plan) and not item.in_sync for item in plans)
    return _code(plans, pending=pending and exit_code)


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option("--yes", is_flag=True, help="Also make changes that interrupt a running VM.")
def apply(path: Path, names: tuple[str, ...], output: str, *, yes: bool) -> int:
    """Create the VM and the routes, or repair only what has drifted.

    Without --yes, changes that interrupt a running VM are listed and not made.
    """
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
@click.option("--yes", is_flag=True, help="Remove it; without --yes, only show what would be removed.")
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
def render(path: Path, names: tuple[str, ...], directory: Path) -> int:
    """Write every file that apply would push to DIRECTORY, with secrets redacted."""
    chosen = choose(path, names)
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"cannot render to {directory}: it is not empty", hint="give a new directory")
    for host in chosen.hosts:
        for name in rendering.render_host(chosen.site, host, directory / host.name, chosen.reporter(host)):
            console.result(str(name))
    return 0


def _results(
    chosen: Chosen,
    items: list[HostResult | VmproxyError],
    output: str,
    show: Callable[[str, Sequence[Outcome], Plan], None],
) -> int:
    """Print the results, also what a failed host did before its error. Returns the exit code."""
    results = [
        HostResult(name, error=item) if isinstance(item, VmproxyError) else item
        for name, item in _named(chosen, items)
    ]
    if output == "json":
        console.result_json({"hosts": [_result_json(result) for result in results]})
    for result in results:
        if output == "text" and (result.error is None or result.outcomes):
            show(result.host, result.outcomes, result.left)
        if result.error is not None:
            _report_error(result.host, result.error, many=len(results) > 1)
    errors = [result.error for result in results]
    return _code(errors, pending=any(result.left.actions for result in results))


def _named(chosen: Chosen, items: list[T]) -> list[tuple[str, T]]:
    return [(host.name, item) for host, item in zip(chosen.hosts, items, strict=True)]


def _show_or_report(name: str, planned: Plan | VmproxyError, *, as_text: bool, many: bool) -> None:
    if isinstance(planned, VmproxyError):
        _report_error(name, planned, many=many)
    elif as_text:
        console.plan(name, planned)


def _report_error(name: str, problem: VmproxyError, *, many: bool) -> None:
    if many:
        console.progress(f"{name}:")
    console.error(problem)


def _code(items: Sequence[T | VmproxyError], *, pending: bool) -> int:
    errors = [item for item in items if isinstance(item, VmproxyError)]
    if errors:
        return 2 if all(isinstance(error, UsageError) for error in errors) else 1
    return PENDING if pending else 0


def _plan_json(name: str, planned: Plan | VmproxyError) -> dict[str, object]:
    if isinstance(planned, VmproxyError):
        return {"name": name, "inSync": False, "actions": [], "error": json_error(planned)}
    return {
        "name": name,
        "inSync": planned.in_sync,
        "actions": [action.as_json() for action in planned.actions],
        "later": list(planned.unseen),
        "warnings": list(planned.warnings),
        "error": None,
    }


def _result_json(result: HostResult) -> dict[str, object]:
    done = [
        {**outcome.action.as_json(), "result": outcome.result, "detail": outcome.detail}
        for outcome in result.outcomes
    ]
    left = [action.as_json() for action in result.left.actions]
    error = json_error(result.error) if result.error else None
    return {"name": result.host, "outcomes": done, "left": left, "error": error}
