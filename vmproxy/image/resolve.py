"""Resolves the site file's `image`: to what is known of it without any work, and to an image in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from vmproxy.errors import BadArtifact, UsageError, VmproxyError
from vmproxy.image import cache
from vmproxy.image.build import SUITES, build, recipe
from vmproxy.image.cache import Image, listing
from vmproxy.image.fetch import fetch, key_of_file, key_of_url, use_file
from vmproxy.image.vhdx import Download
from vmproxy.site import model
from vmproxy.util import download
from vmproxy.util.events import Report


@dataclass(frozen=True)
class Base:
    """What a new VM is made from, as far as it is known without work. `recipe` names what the image is made
    of; of one that was fetched, its name. `sha256` None: it is not here, and `how` says how it is got. `made`
    is the day on which it was, "" when that is not known. `problem`: why no new VM can be made of it."""

    recipe: str
    sha256: str | None
    how: str
    made: str = ""
    problem: VmproxyError | None = None

    @property
    def name(self) -> str:
        """Its hash, or how it is got."""
        return self.sha256 or f"to be {self.how}"


def base(wanted: model.Image) -> Base:
    """Nothing is built, fetched or converted."""
    if wanted.path is not None:
        return _of_file(wanted)
    if wanted.url is not None and wanted.sha256 is not None:
        return _known(
            key_of_url(str(wanted.url), wanted.sha256), f"fetched from {download.shown(str(wanted.url))}"
        )
    suite = _suite(wanted)
    if suite is not None:
        return _known(recipe(suite).key, f"built from the packages of Debian {suite}")
    name = f"name:{wanted.name}"
    for image in listing():
        if image.name == wanted.name:
            return Base(name, image.sha256, "", image.day)
    return Base(name, None, "fetched", problem=_unknown(wanted))


def base_of_download(published: Download) -> Base:
    """Of an image that the host fetches itself."""
    return Base(published.sha256, published.sha256, "")


def resolve(wanted: model.Image, *, report: Report) -> Image:
    """Fetch, convert or build the image if it is missing. Raises UsageError for an unknown name."""
    if wanted.path is not None:
        return use_file(wanted.path, report=report)
    if wanted.url is not None and wanted.sha256 is not None:
        return fetch(str(wanted.url), sha256=wanted.sha256, report=report)
    suite = _suite(wanted)
    if suite is not None:
        return build(suite, report=report)
    for image in listing():
        if image.name == wanted.name:
            return image
    raise _unknown(wanted)


def _unknown(wanted: model.Image) -> UsageError:
    known = sorted({*SUITES.values(), *(image.name for image in listing())})
    return UsageError(
        f"cannot find an image named {wanted.name}",
        hint=f"known: {', '.join(known)}; add others with: vmproxy image fetch URL --sha256 HASH --name NAME",
    )


def _suite(wanted: model.Image) -> str | None:
    return {name: suite for suite, name in SUITES.items()}.get(wanted.name or "")


def _known(key: str, how: str) -> Base:
    found = cache.find(key)
    return Base(key, found.sha256, "", found.day) if found else Base(key, None, how)


def _of_file(wanted: model.Image) -> Base:
    assert wanted.path is not None
    try:
        return _known(key_of_file(wanted.path), f"converted from {wanted.path}")
    except BadArtifact as exc:
        return Base(f"path:{wanted.path}", None, f"converted from {wanted.path}", problem=exc)
