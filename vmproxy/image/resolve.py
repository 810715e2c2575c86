"""Resolves the site file's `image` to an image in the cache."""

from __future__ import annotations

from vmproxy.errors import UsageError
from vmproxy.image.build import SUITES, build
from vmproxy.image.cache import Image, listing
from vmproxy.image.fetch import fetch, use_file
from vmproxy.site import model
from vmproxy.util.events import Report


def resolve(wanted: model.Image, *, report: Report) -> Image:
    """Fetch, convert or build the image if it is missing. Raises UsageError for an unknown name."""
    if wanted.path is not None:
        return use_file(wanted.path, report=report)
    if wanted.url is not None and wanted.sha256 is not None:
        return fetch(str(wanted.url), sha256=wanted.sha256, report=report)
    suites = {name: suite for suite, name in SUITES.items()}
    if wanted.name in suites:
        return build(suites[wanted.name], report=report)
    for image in listing():
        if image.name == wanted.name:
            return image
    known = sorted({*suites, *(image.name for image in listing())})
    raise UsageError(
        f"cannot find an image named {wanted.name}",
        hint=f"known: {', '.join(known)}; add others with: vmproxy image fetch URL --sha256 HASH --name NAME",
    )
