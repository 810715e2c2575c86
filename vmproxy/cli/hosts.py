"""The hosts of a command: chosen by its options, worked on side by side, answered for one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from vmproxy.cli import console, exit_codes
from vmproxy.cli.answers import Hosts
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.engine import run
from vmproxy.engine.connect import connections
from vmproxy.engine.run import HostResult
from vmproxy.engine.site import SiteRun
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.model.topology import Member, Topology, compile_site
from vmproxy.site.load import load
from vmproxy.util.events import Reporter

T = TypeVar("T")
OfHost = TypeVar("OfHost")


@dataclass(frozen=True)
class Chosen:
    """The site and those of its hosts that the command line names; all when it names none."""

    topology: Topology
    members: tuple[Member, ...]

    @cached_property
    def site(self) -> SiteRun:
        """One run on them, over the real connections; they are opened when they are first needed."""
        return SiteRun(self.topology, self.members, connections(self.topology))

    def each(self, work: Callable[[SiteRun, Member, Reporter], T]) -> list[tuple[str, T | VmproxyError]]:
        """What came of `work` on each host, by the host's name; an error of one never stops the others."""
        results = run.for_each(self.members, lambda member: work(self.site, member, self.reporter(member)))
        return [(member.name, result) for member, result in zip(self.members, results, strict=True)]

    def reporter(self, member: Member) -> Reporter:
        """Progress lines name their host where there are several."""
        console.name_hosts(named=len(self.members) > 1)
        return console.reporter(member.name)


def choose(path: Path, names: Sequence[str]) -> Chosen:
    """Raises UsageError for a wrong site file, or a host that is not in it."""
    topology = compile_site(load(path))
    known = {member.name: member for member in topology.members}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"no host named {', '.join(unknown)} in {path}", hint=f"its hosts are: {', '.join(known)}"
        )
    return Chosen(topology, tuple(known[name] for name in dict.fromkeys(names)) or topology.members)


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
