"""The Kubernetes release site: /release/v1.X.Y/bin/linux/amd64/NAME, with NAME.sha256."""

from __future__ import annotations

import re
from pathlib import Path

from vmproxy.errors import BadArtifact
from vmproxy.util.download import fetch, read_text
from vmproxy.util.events import Report

SITE = "https://dl.k8s.io"
_CONNECT_SECONDS = 5.0


def fetch_program(name: str, version: str, target: Path, *, site: str, report: Report) -> None:
    """Raises Unreachable if the site does not answer or lacks it, BadArtifact for a wrong checksum."""
    url = f"{site}/release/{version}/bin/linux/amd64/{name}"
    words = read_text(f"{url}.sha256", connect_timeout=_CONNECT_SECONDS).split()
    if not words or not re.fullmatch(r"[0-9a-f]{64}", words[0]):
        raise BadArtifact(f"cannot use {url}.sha256: it is not a SHA-256 checksum")
    fetch(url, target, sha256=words[0], report=lambda text: report(f"{name} {version}: {text}"))
