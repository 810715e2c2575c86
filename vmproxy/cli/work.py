"""plan, apply, destroy, render: the commands that change things or show the change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

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
from vmproxy.model.steps import Plan, Step
from vmproxy.operations import destruction, rendering

PENDING = 3
T = TypeVar("T")


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option("--exit-code", is_flag=True, help="Exit with 3 when changes are pending.")
def plan(path: Path, names: tuple[str, ...], output: str, *, exit_code: bool) -> int:
    """Show what apply would do, field by field."""
    chosen = choose(path, names)
    plans = reconcile.for_each(
        chosen.members, lambda host: reconcile.plan_host(chosen.topology, host, chosen.reporter(host))
    )
    if output == "json":
        console.result_json({"hosts": [_plan_json(*pair) for pair in _named(chosen, plans)]})
    for name, planned in _named(chosen, plans):
        _show_or_tell(name, planned, as_text=output == "text", many=len(plans) > 1)
    pending = any(isinstance(item, Plan) and not item.in_sync for item in plans)
    return _code(plans, pending=pending and exit_code)


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
        chosen.members,
        lambda host: reconcile.apply_host(chosen.topology, host, chosen.reporter(host), yes=yes),
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
        chosen.members,
        lambda host: destruction.destroy_host(
            chosen.topology, host, chosen.reporter(host), yes=yes, going=chosen.members
        ),
    )
    return _results(chosen, results, output, console.removal)


@click.command()
@file_option
@verbose_option
@host_option
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def render(path: Path, names: tuple[str, ...], directory: Path) -> int:
    """Write every file that apply would push to DIRECTORY, secrets redacted."""
    chosen = choose(path, names)
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"cannot render to {directory}: it is not empty", hint="name a new directory")
    for host in chosen.members:
        for name in rendering.render_host(
            chosen.topology, host, directory / host.name, chosen.reporter(host)
        ):
            console.result(str(name))
    return 0


def _results(
    chosen: Chosen,
    items: list[HostResult | VmproxyError],
    output: str,
    show: Callable[[str, Sequence[Step], Plan], None],
) -> int:
    """Tell them; a host that failed has its work so far shown too. The exit code."""
    results = [
        HostResult(name, error=item) if isinstance(item, VmproxyError) else item
        for name, item in _named(chosen, items)
    ]
    if output == "json":
        console.result_json({"hosts": [_result_json(result) for result in results]})
    for result in results:
        if output == "text" and (result.error is None or result.done):
            show(result.host, result.done, result.left)
        if result.error is not None:
            _tell(result.host, result.error, many=len(results) > 1)
    errors = [result.error for result in results]
    return _code(errors, pending=any(result.left.steps for result in results))


def _named(chosen: Chosen, items: list[T]) -> list[tuple[str, T]]:
    return [(host.name, item) for host, item in zip(chosen.members, items, strict=True)]


def _show_or_tell(name: str, planned: Plan | VmproxyError, *, as_text: bool, many: bool) -> None:
    if isinstance(planned, VmproxyError):
        _tell(name, planned, many=many)
    elif as_text:
        console.plan(name, planned)


def _tell(name: str, problem: VmproxyError, *, many: bool) -> None:
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
        "actions": [_step_json(step) for step in planned.steps],
        "later": list(planned.unseen),
        "warnings": list(planned.warnings),
        "error": None,
    }


def _result_json(result: HostResult) -> dict[str, object]:
    outcomes = [{**_step_json(step), "result": "done", "detail": ""} for step in result.done]
    if result.error and result.error.step:
        failed = cast(Step, result.error.step)
        outcomes.append({**_step_json(failed), "result": "failed", "detail": result.error.message})
    left = [_step_json(step) for step in result.left.steps]
    return {"name": result.host, "outcomes": outcomes, "left": left, "error": json_error(result.error)}


def _step_json(step: Step) -> dict[str, object]:
    return {
        "place": step.place,
        "verb": step.verb,
        "target": step.target,
        "drift": [vars(drift) for drift in step.drift],
        "why": step.why,
        "cold": step.cold,
    }
