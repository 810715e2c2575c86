"""The hosts of a command: chosen by its options, worked on side by side, answered for one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from vmproxy import api
from vmproxy.api import Selection
from vmproxy.cli import console, exit_codes
from vmproxy.cli.answers import Hosts
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.engine.run import HostResult
from vmproxy.engine.site import SiteRun
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.model.topology import Member

T = TypeVar("T")
OfHost = TypeVar("OfHost")


def choose(path: Path, names: Sequence[str]) -> Selection:
    """The hosts that the command line names, all when it names none. Raises UsageError for a wrong site file,
    or a host that is not in it. Progress lines name their host where there are several."""
    selection = api.load(path, names, sink=console.sink)
    console.name_hosts(named=len(selection.members) > 1)
    return selection


def one_host(path: Path, name: str | None) -> tuple[SiteRun, Member]:
    """The named host; None: the only one of the site."""
    chosen = choose(path, [name] if name else [])
    if len(chosen.members) > 1:
        raise UsageError(
            f"{path} has several hosts: name one", hint=", ".join(host.name for host in chosen.members)
        )
    return chosen.site, chosen.members[0]


def answer(
    results: Sequence[tuple[str, T | VmproxyError]],
    output: str,
    *,
    as_json: Callable[[str, T | VmproxyError], OfHost],
    show: Callable[[str, T], None] = lambda _name, _result: None,
    code: Callable[[T], ExitCode] = lambda _result: ExitCode.DONE,
) -> ExitCode:
    """Write each host's answer to stdout and its error to stderr; the command's exit code.

    `show` writes the answer as text, `code` says how the host ended.
    """
    if output == "json":
        document: Hosts[OfHost] = {"hosts": [as_json(*pair) for pair in results]}
        console.result_json(document)
    for name, result in results:
        if output == "text" and not isinstance(result, VmproxyError):
            show(name, result)
        failure = result.error if isinstance(result, HostResult) else result
        if isinstance(failure, VmproxyError):
            console.error(failure, name)
    return exit_codes.of_hosts((result for _, result in results), code)
