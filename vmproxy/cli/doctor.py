"""doctor: check the prerequisites; change nothing."""

from __future__ import annotations

from pathlib import Path

import click

from vmproxy import api
from vmproxy.cli import answers, console
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.cli.hosts import answer, choose
from vmproxy.cli.options import file_option, host_option, log_options, output_option
from vmproxy.operations.doctor import Finding


@click.command()
@file_option
@log_options
@host_option
@output_option
def doctor(path: Path, names: tuple[str, ...], output: str) -> int:
    """Check host, cluster and network, and suggest a next step for each problem.

    It changes nothing.
    """
    results = api.doctor(choose(path, names))
    return answer(results, output, as_json=answers.doctor, show=_show, code=_code)


def _show(name: str, found: tuple[Finding, ...]) -> None:
    rows = [(name, item.check, "ok" if item.ok else "problem", item.detail, item.next_step) for item in found]
    console.table(("HOST", "CHECK", "", "FOUND", "NEXT STEP"), rows)


def _code(found: tuple[Finding, ...]) -> ExitCode:
    return ExitCode.DONE if all(item.ok for item in found) else ExitCode.PROBLEM
