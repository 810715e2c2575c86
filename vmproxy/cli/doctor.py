"""doctor: look before anything is changed."""

from __future__ import annotations

from pathlib import Path

import click

from vmproxy.cli import answers, console, exit_codes
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.cli.options import choose, file_option, host_option, output_option, verbose_option
from vmproxy.engine import reconcile
from vmproxy.errors import VmproxyError
from vmproxy.operations import doctor as doctors
from vmproxy.operations.doctor import Finding


@click.command()
@file_option
@verbose_option
@host_option
@output_option
def doctor(path: Path, names: tuple[str, ...], output: str) -> int:
    """Check host, cluster and network before anything is changed; every finding has a next step."""
    chosen = choose(path, names)
    results = reconcile.for_each(
        chosen.hosts, lambda host: doctors.doctor_host(chosen.site, host, chosen.reporter(host))
    )
    named = list(zip((host.name for host in chosen.hosts), results, strict=True))
    if output == "json":
        console.result_json({"hosts": [answers.doctor(*pair) for pair in named]})
    for name, result in named:
        if isinstance(result, VmproxyError):
            console.error(result)
        elif output == "text":
            console.table(("HOST", "CHECK", "", "FOUND", "NEXT STEP"), [_row(name, item) for item in result])
    return exit_codes.of_hosts(results, _code)


def _code(found: tuple[Finding, ...]) -> ExitCode:
    return ExitCode.DONE if all(item.ok for item in found) else ExitCode.PROBLEM


def _row(name: str, finding: Finding) -> list[str]:
    return [name, finding.check, "ok" if finding.ok else "problem", finding.detail, finding.next_step]
