"""`vmproxy init` and `vmproxy schema`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vmproxy import sitefile, sitetemplate
from vmproxy.cli.options import file_option


@click.command()
def schema() -> None:
    """Print the JSON Schema of the site file, for completion in an editor."""
    click.echo(json.dumps(sitefile.schema(), indent=2, ensure_ascii=False))


@click.command()
@file_option
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(path: Path, *, force: bool) -> None:
    """Write a commented site file, filled from the cluster where it can be."""
    sitetemplate.write(path, sitetemplate.template(sitetemplate.Findings()), replace=force)
