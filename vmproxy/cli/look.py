"""status and verify: the commands that change nothing."""

from __future__ import annotations

import re
from pathlib import Path

import click

from vmproxy import api
from vmproxy.cli import answers, console
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.cli.hosts import answer, choose
from vmproxy.cli.options import file_option, host_option, log_options, output_option
from vmproxy.errors import VmproxyError
from vmproxy.model.seen import Unobservable
from vmproxy.operations import verify as checks
from vmproxy.operations.status import (
    CredentialStatus,
    HostStatus,
    NamesStatus,
    PodRoutesStatus,
    ProxyStatus,
)
from vmproxy.operations.verify import Check


@click.command()
@file_option
@log_options
@host_option
@output_option
def status(path: Path, names: tuple[str, ...], output: str) -> int:
    """Show VM, kube-proxy, rule age, routes, names and credential, one row per host."""
    results = api.status(choose(path, names))
    if output == "text":  # one table for all, so that its columns stand below one another
        headers = ("HOST", "VM", "IMAGE", "KUBE-PROXY", "RULES", "ROUTES", "NAMES", "CREDENTIAL", "CONVERGED")
        console.table(headers, [_row(*pair) for pair in results])
    return answer(results, output, as_json=answers.status, show=_show_problems)


def _container(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    """As Docker and Kubernetes allow it."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise click.BadParameter("use letters, digits, '_', '.' and '-'")
    return name


@click.command()
@file_option
@log_options
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
@click.option(
    "--container",
    metavar="NAME",
    callback=_container,
    help="Connect from inside this running container of the host, given by its name or ID; TCP only. "
    "It needs curl.exe.",
)
def verify(
    path: Path, names: tuple[str, ...], output: str, services: tuple[str, ...], container: str | None
) -> int:
    """Connect from the host through the VM to Services, look up their names, and name the hop that fails."""
    results = api.verify(choose(path, names), services=services, container=container)
    return answer(results, output, as_json=answers.verify, show=_show_checks, code=_code)


def _code(tried: tuple[Check, ...]) -> ExitCode:
    return ExitCode.PROBLEM if any(check.ok is False for check in tried) else ExitCode.DONE


def _row(name: str, result: HostStatus | VmproxyError) -> tuple[str, ...]:
    if isinstance(result, VmproxyError):
        return (name, "unknown", "", "", "", "", "", "", "no")
    credential = _credential(result.credential)
    converged = "yes" if result.converged else "no"
    return (
        name,
        result.vm.state,
        _image(result),
        *_proxy(result.proxy),
        result.route.state,
        _names(result.names),
        credential,
        converged,
    )


def _image(result: HostStatus) -> str:
    days = result.vm.image_age
    return "" if days is None else f"{console.count(days, 'day')} old"


def _names(names: NamesStatus | Unobservable | None) -> str:
    """Nothing where the site file does not ask for them."""
    if names is None:
        return ""
    return "unknown" if isinstance(names, Unobservable) else names.state


_DROPS = {
    "unknown_service": "to Service addresses that kube-proxy does not know",
    "transit": "from machines that are not in network.clients, or not to a Service",
}


def _show_problems(name: str, result: HostStatus) -> None:
    for problem in result.problems:
        console.result(f"{name}: {problem}")
    for warning in result.warnings:
        console.result(f"{name}: warning: {warning}")
    if isinstance(kept := result.pod_routes, PodRoutesStatus):
        console.result(f"{name}: the VM keeps {console.count(kept.routes, 'route')} to pods ({kept.state})")
    for what, times in result.repairs.items():
        console.result(f"{name}: the VM repaired {what} {console.count(times, 'time')} since it started")
    for counter, packets in result.drops.items():
        if packets:
            console.result(
                f"{name}: the VM dropped {console.count(packets, 'packet')} ({_DROPS.get(counter, counter)})"
            )


def _proxy(proxy: ProxyStatus | Unobservable) -> tuple[str, str]:
    """kube-proxy itself, and its rules."""
    if isinstance(proxy, Unobservable):
        return "unknown", ""
    words = [word for word in (proxy.state, proxy.mode, proxy.version) if word]
    return " ".join(words), "" if proxy.rule_age is None else f"{proxy.rule_age} s old"


def _credential(credential: CredentialStatus | Unobservable) -> str:
    if isinstance(credential, Unobservable):
        return "unknown"
    expires = credential.expires
    return f"{credential.state} until {expires.isoformat()}" if expires else credential.state


def _show_checks(name: str, tried: tuple[Check, ...]) -> None:
    words = {True: "ok", False: "broken", None: "unknown"}
    rows = [
        (name, check.service, check.protocol, words[check.ok], check.hop or "", check.detail)
        for check in tried
    ]
    console.table(("HOST", "SERVICE", "", "ANSWER", "HOP", "DETAIL"), rows)
