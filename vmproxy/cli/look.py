"""status and verify: the commands that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from vmproxy.cli import console
from vmproxy.cli.options import choose, file_option, host_option, json_error, output_option, verbose_option
from vmproxy.engine import reconcile
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.operations import status as statuses
from vmproxy.operations import verify as checks
from vmproxy.operations.status import HostStatus

PROBLEM = 4


@click.command()
@file_option
@verbose_option
@host_option
@output_option
def status(path: Path, names: tuple[str, ...], output: str) -> int:
    """Show VM, kube-proxy, rule age, credential and routes, one row per host."""
    chosen = choose(path, names)
    results = reconcile.for_each(
        chosen.hosts, lambda host: statuses.status_host(chosen.site, host, chosen.reporter(host))
    )
    named = list(zip((host.name for host in chosen.hosts), results, strict=True))
    if output == "json":
        console.result_json({"hosts": [_status_json(*pair) for pair in named]})
    else:
        headers = ("HOST", "VM", "KUBE-PROXY", "RULES", "ROUTES", "CREDENTIAL", "CONVERGED")
        console.table(headers, [_row(*pair) for pair in named])
    for _, result in named:
        if isinstance(result, VmproxyError):
            console.error(result)
    return _failed(results)


@click.command()
@file_option
@verbose_option
@host_option
@output_option
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="NAMESPACE/NAME[:PORT]",
    help="Only this Service; may be repeated. Default: Services with ready endpoints, "
    f"up to {checks.MOST} ports.",
)
def verify(path: Path, names: tuple[str, ...], output: str, services: tuple[str, ...]) -> int:
    """Connect from the host through the VM to Services, and name the hop that fails."""
    chosen = choose(path, names)
    results = reconcile.for_each(
        chosen.hosts,
        lambda host: checks.verify_host(chosen.site, host, chosen.reporter(host), services=services),
    )
    named = list(zip((host.name for host in chosen.hosts), results, strict=True))
    if output == "json":
        console.result_json({"hosts": [_checks_json(*pair) for pair in named]})
    for name, result in named:
        if isinstance(result, VmproxyError):
            console.error(result)
        elif output == "text":
            console.table(("HOST", "SERVICE", "", "ANSWER", "HOP", "DETAIL"), _rows(name, result))
    return _code(results)


def _failed(results: Sequence[object]) -> int:
    errors = [result for result in results if isinstance(result, VmproxyError)]
    if not errors:
        return 0
    return 2 if all(isinstance(error, UsageError) for error in errors) else 1


def _code(results: list[tuple[checks.Check, ...] | VmproxyError]) -> int:
    if failed := _failed(results):
        return failed
    broken = any(check.ok is False for result in results if isinstance(result, tuple) for check in result)
    return PROBLEM if broken else 0


def _status_json(name: str, result: HostStatus | VmproxyError) -> dict[str, object]:
    if isinstance(result, HostStatus):
        return result.as_json()
    nothing = dict.fromkeys(("vm", "proxy", "route", "credential", "converged"))
    return {"name": name, **nothing, "error": json_error(result)}


def _checks_json(name: str, result: tuple[checks.Check, ...] | VmproxyError) -> dict[str, object]:
    if isinstance(result, VmproxyError):
        return {"name": name, "ok": False, "checks": [], "error": json_error(result)}
    ok = all(check.ok is not False for check in result)
    return {"name": name, "ok": ok, "checks": [check.as_json() for check in result], "error": None}


def _row(name: str, result: HostStatus | VmproxyError) -> list[str]:
    if isinstance(result, VmproxyError):
        return [name, "unknown", "", "", "", "", "no"]
    proxy, credential = result.proxy, result.credential
    age = proxy.get("ruleAgeSeconds")
    return [
        name,
        str(result.vm["state"]),
        " ".join(str(proxy[key]) for key in ("state", "mode", "version") if proxy.get(key)),
        f"{age} s old" if age is not None else "",
        str(result.route["state"]),
        f"{credential['state']} until {credential['expires']}"
        if "expires" in credential
        else str(credential["state"]),
        "yes" if result.converged else "no",
    ]


def _rows(name: str, result: tuple[checks.Check, ...]) -> list[list[str]]:
    words = {True: "ok", False: "broken", None: "unknown"}
    return [
        [name, check.service, check.protocol, words[check.ok], check.hop or "", check.detail]
        for check in result
    ]
