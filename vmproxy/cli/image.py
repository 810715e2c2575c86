"""image build, fetch, list."""

from __future__ import annotations

import re

import click
from pydantic import AnyUrl, TypeAdapter, ValidationError

from vmproxy import image as images
from vmproxy.cli import answers, console
from vmproxy.cli.options import log_options, output_option
from vmproxy.errors import UsageError
from vmproxy.image import Image
from vmproxy.image.age import days


@click.group()
def image() -> None:
    """Build, fetch and list base images for the VMs."""


@image.command()
@log_options
@click.option(
    "--suite",
    default="trixie",
    show_default=True,
    type=click.Choice(list(images.SUITES)),
    help="The Debian release.",
)
@click.option("--again", is_flag=True, help="Build it from today's packages, also if it is in the cache.")
@output_option
def build(suite: str, output: str, *, again: bool) -> None:
    """Build an image from Debian packages, unless it is in the cache.

    VMs keep the image that they were made of until: vmproxy apply --yes --new-image
    """
    _show([images.build(suite, report=console.progress, again=again)], output)


@image.command()
@log_options
@click.argument("url")
@click.option("--sha256", required=True, metavar="HASH", help="SHA-256 of the published file.")
@click.option("--name", help="Name for the site file. Default: the file name without extensions.")
@output_option
def fetch(url: str, sha256: str, name: str | None, output: str) -> None:
    """Fetch an image (qcow2, raw, VHD or VHDX, optionally gzip or xz), check and convert it."""
    if len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef"):
        raise UsageError(f"{sha256} is not a SHA-256 checksum", hint="write 64 hexadecimal digits")
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise UsageError(f"{name} is not a valid image name", hint="use letters, digits and . _ + -")
    try:
        url = str(TypeAdapter(AnyUrl).validate_python(url))
    except ValidationError as exc:
        raise UsageError(f"{url} is not a URL", hint="write it as https://host/path/image.qcow2") from exc
    _show([images.fetch(url, sha256=sha256.lower(), name=name, report=console.progress)], output)


@image.command("list")
@output_option
def list_(output: str) -> None:
    """The images in the cache."""
    _show(images.listing(), output)


def _show(found: list[Image], output: str) -> None:
    if output == "json":
        console.result_json(answers.images(found))
        return
    rows = [[item.name, f"{item.size >> 20} MiB", days(item.day), item.origin, item.sha256] for item in found]
    console.table(("NAME", "SIZE", "AGE", "ORIGIN", "SHA-256"), rows)
