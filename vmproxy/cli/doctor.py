"""doctor: check the prerequisites; change nothing."""

from __future__ import annotations

from pathlib import Path

import click

from vmproxy.cli import console
from vmproxy.cli.look import PROBLEM
from vmproxy.cli.options import choose, file_option, host_option, json_error, output_option, verbose_option
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
    """Check host, cluster and network, and suggest a next step for each problem.

    It changes nothing.
    """
    chosen = choose(path, names)
    results = reconcile.for_each(
        chosen.hosts, lambda host: doctors.doctor_host(chosen.site, host, chosen.reporter(host))
    )
    named = list(zip((host.name for host in chosen.hosts), results, strict=True))
    if output == "json":
        console.result_json({"hosts": [_json(*pair) for pair in named]})
    for name, result in named:
        if isinstance(result, VmproxyError):
            console.error(result)
        elif output == "text":
            console.table(("HOST", "CHECK", "", "FOUND", "NEXT STEP"), [_row(name, item) for item in result])
    if any(isinstance(result, VmproxyError) for result in results):
        return 1
    bad = any(not item.ok for result in results if isinstance(result, tuple) for item in result)
    return PROBLEM if bad else 0


def _json(name: str, result: tuple[Finding, ...] | VmproxyError) -> dict[str, object]:
    if isinstance(result, VmproxyError):
        return {"name": name, "ok": False, "findings": [], "error": json_error(result)}
    ok = all(finding.ok for finding in result)
    return {"name": name, "ok": ok, "findings": [finding.as_json() for finding in result], "error": None}


def _row(name: str, finding: Finding) -> list[str]:
    return [name, finding.check, "ok" if finding.ok else "problem", finding.detail, finding.next_step]
