"""Options that several commands share, and the hosts that they select."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from vmproxy.cli import console
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.site.load import load
from vmproxy.site.model import Host, Site

F = TypeVar("F", bound=Callable[..., Any])

file_option = click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("vmproxy.yaml"),
    show_default=True,
    help="The site file.",
)
host_option = click.option(
    "--host", "names", multiple=True, metavar="NAME", help="Only this host; may be repeated."
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the result on stdout.",
)


def _verbose(_context: click.Context, _option: click.Parameter, value: object) -> None:
    if value:
        console.show_times()


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_verbose,
    help="Prefix progress lines with the elapsed time.",
)


@dataclass(frozen=True)
class Chosen:
    """The site and the hosts named on the command line; all hosts if it names none."""

    site: Site
    hosts: tuple[Host, ...]

    def reporter(self, host: Host) -> Callable[[str], None]:
        """Reports progress; lines start with the host's name if there are several hosts."""
        prefix = f"{host.name}: " if len(self.hosts) > 1 else ""
        return lambda text: console.progress(prefix + text)


def choose(path: Path, names: Sequence[str]) -> Chosen:
    """Raises UsageError for an invalid site file, or a host that is not in it."""
    site = load(path)
    known = {host.name: host for host in site.hosts}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"there is no host named {', '.join(unknown)} in {path}", hint=f"its hosts: {', '.join(known)}"
        )
    return Chosen(site, tuple(known[name] for name in dict.fromkeys(names)) or site.hosts)


def one_host(path: Path, name: str | None) -> tuple[Site, Host]:
    """The named host; None: the site's only host."""
    chosen = choose(path, [name] if name else [])
    if len(chosen.hosts) > 1:
        raise UsageError(
            f"{path} has several hosts: name one", hint=", ".join(host.name for host in chosen.hosts)
        )
    return chosen.site, chosen.hosts[0]


def json_error(problem: VmproxyError | None) -> dict[str, object] | None:
    return problem.as_json() if problem else None
