"""The Kubernetes and etcd programs in a given version: from a folder, the cache, the release site, or
built from their Go modules, in this order. Progress reports name the source that is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import filelock

from vmproxy.binaries import release, source
from vmproxy.errors import BadArtifact, Unreachable, VmproxyError
from vmproxy.site.model import Proxy
from vmproxy.util import paths
from vmproxy.util.download import fetch, file_sha256
from vmproxy.util.events import Report

KUBERNETES = frozenset({"kube-proxy", "kube-apiserver", "kube-controller-manager"})
ETCD_VERSION = "v3.6.8"


@dataclass(frozen=True)
class BinaryFile:
    """A program on this machine. `version` is, for example, v1.36.3."""

    path: Path
    sha256: str
    version: str


def kube_proxy(wanted: Proxy, version: str, *, report: Report) -> BinaryFile:
    """The kube-proxy to push: the site file's own binary, else the given version from the usual sources."""
    if wanted.binary is None:
        return obtain("kube-proxy", version, report=report)
    target = paths.cache_dir("binaries", "custom") / wanted.binary.sha256
    with filelock.FileLock(target.with_name(f"{target.name}.lock")):
        if not target.exists():
            fetch(str(wanted.binary.url), target, sha256=wanted.binary.sha256, report=report)
            target.chmod(0o755)
    return BinaryFile(target, wanted.binary.sha256, version)


def obtain(
    name: str,
    version: str,
    *,
    report: Report,
    given: Path | None = None,
    site: str = release.SITE,
) -> BinaryFile:
    """The program `name` in that version. `given` is a folder that is searched first.

    Raises BadArtifact if the release site's checksum is wrong, VmproxyError if no source provides it.
    """
    if given is not None and (given / name).exists():
        report(f"{name}: taken from {given}")
        return BinaryFile(given / name, file_sha256(given / name), version)
    folder = paths.cache_dir("binaries", version)
    target = folder / name
    with filelock.FileLock(folder / f"{name}.lock"):
        if not target.exists():
            _download_or_build(name, version, target, report=report, site=site)
        return BinaryFile(target, _sha256(target), version)


def _download_or_build(name: str, version: str, target: Path, *, report: Report, site: str) -> None:
    try:
        if name not in KUBERNETES:
            raise Unreachable(f"{name} is not on the release site")
        release.fetch_program(name, version, target, site=site, report=report)
        report(f"{name} {version}: fetched from {site}")
    except BadArtifact:
        raise
    except Unreachable as exc:
        report(f"{name} {version}: {exc.message}; building it from its Go module instead")
        _build(name, version, target, report=report, fetching=exc)
    target.chmod(0o755)


def _build(name: str, version: str, target: Path, *, report: Report, fetching: Unreachable) -> None:
    try:
        source.build(name, version, target, report=report)
    except VmproxyError as exc:
        raise VmproxyError(
            f"cannot get {name} {version}: {exc.message}",
            details=[fetching.message, *exc.details],
            hint="give a folder that contains it, or set proxy.binary to a mirror or a file",
        ) from exc


def _sha256(path: Path) -> str:
    """The hash, cached next to the file with the file's size and time."""
    stamp = f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    note = path.with_name(path.name + ".sha256")
    if note.exists():
        known, _, seen = note.read_text().partition(" ")
        if seen == stamp:
            return known
    digest = file_sha256(path)
    part = note.with_name(note.name + ".part")
    part.write_text(f"{digest} {stamp}")
    part.replace(note)
    return digest
