"""lab up, down, status: the test environment."""

from __future__ import annotations

from pathlib import Path

import click

from vmproxy import lab as labs
from vmproxy.cli import answers, console
from vmproxy.cli.options import log_options, output_option
from vmproxy.lab import LabStatus

name_option = click.option(
    "--name", default="lab", show_default=True, help="The lab's name; several labs can run side by side."
)


@click.group()
def lab() -> None:
    """Run a real cluster, a bridge, backends and a host on this Linux machine."""


@lab.command()
@log_options
@name_option
@click.option(
    "--binaries",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with etcd and the Kubernetes binaries.",
)
@output_option
def up(name: str, binaries: Path | None, output: str) -> None:
    """Start the lab, or repair what is missing."""
    _show(labs.up(name=name, binaries=binaries, report=console.progress), output)


@lab.command()
@log_options
@name_option
def down(name: str) -> None:
    """Remove the lab: its processes, VMs, namespaces and files."""
    labs.down(name=name, report=console.progress)


@lab.command()
@log_options
@name_option
@output_option
def status(name: str, output: str) -> None:
    """Show whether the lab runs, and where its files are."""
    _show(labs.status(name=name), output)


def _show(seen: LabStatus, output: str) -> None:
    if output == "json":
        console.result_json(answers.lab(seen))
        return
    console.result("running" if seen.running else "not running")
    if seen.site:
        console.result(f"site file:  {seen.site}")
        console.result(f"kubeconfig: {seen.kubeconfig}")
        console.result(f"the host:   ip netns exec {seen.namespaces['host']} …")
