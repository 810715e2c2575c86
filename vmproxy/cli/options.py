"""Options that several commands share, and the way from their values to hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from vmproxy.cli import console
from vmproxy.errors import UsageError
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
    "--host", "names", multiple=True, metavar="NAME", help="Only this host; may be given several times."
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the answer is written to stdout.",
)


def _verbose(_context: click.Context, _option: click.Parameter, value: object) -> None:
    if value:
        console.show_times()


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Show when each step begins."
)


@dataclass(frozen=True)
class Chosen:
    """The site and those of its hosts that the command line names; all when it names none."""

    site: Site
    hosts: tuple[Host, ...]

    def reporter(self, host: Host) -> Callable[[str], None]:
        """Progress lines name their host where there are several."""
        prefix = f"{host.name}: " if len(self.hosts) > 1 else ""
        return lambda text: console.progress(prefix + text)


def choose(path: Path, names: Sequence[str]) -> Chosen:
    """Raises UsageError for a wrong site file, or a host that is not in it."""
    site = load(path)
    known = {host.name: host for host in site.hosts}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"no host named {', '.join(unknown)} in {path}", hint=f"its hosts are: {', '.join(known)}"
        )
    return Chosen(site, tuple(known[name] for name in dict.fromkeys(names)) or site.hosts)


def one_host(path: Path, name: str | None) -> tuple[Site, Host]:
    """The named host; None: the only one of the site."""
    chosen = choose(path, [name] if name else [])
    if len(chosen.hosts) > 1:
        raise UsageError(
            f"{path} has several hosts: name one", hint=", ".join(host.name for host in chosen.hosts)
        )
    return chosen.site, chosen.hosts[0]
