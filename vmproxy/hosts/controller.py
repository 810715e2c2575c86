"""The machine that vmproxy runs on: what it needs there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from vmproxy.model.finding import Finding, checked

SSH = {"ssh": "openssh-client"}
TO_CONVERT = {"qemu-img": "qemu-utils"}


def needs(*, converts: bool) -> Iterator[Finding]:
    """Where the VM is on another machine. `converts`: an image is made into another format here."""
    yield from tools({**(TO_CONVERT if converts else {}), **SSH})


def tools(packages: Mapping[str, str]) -> Iterator[Finding]:
    """Programs, each with Debian's package that has it."""
    for tool, package in packages.items():
        where = shutil.which(tool)
        yield checked(
            f"tool {tool}", ok=bool(where), detail=where or "not found", otherwise=f"install {package}"
        )
