"""render: every file that apply would push, secrets redacted, for review. Needs no host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vmproxy.engine.phases import PHASES
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import ToolFailed
from vmproxy.model.topology import Member
from vmproxy.util.events import Reporter


def render_host(site: SiteRun, member: Member, folder: Path, report: Reporter) -> Iterator[Path]:
    """The files of every phase: the cluster's objects, the seed's documents, the scripts that run on a
    Windows host, and the guest's files. Yields each path written."""
    with Scope(site, member, report) as scope:
        for phase in PHASES:
            for name, content in phase.files(scope).items():
                yield _write(folder / name, content)


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
    except OSError as exc:
        raise ToolFailed(f"cannot write {path}: {exc.strerror}") from exc
    return path
