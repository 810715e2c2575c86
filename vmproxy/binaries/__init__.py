"""The programs of Kubernetes, etcd, CoreDNS and flannel in a given version: from a folder, the cache, the
release site, or built from their Go modules, in this order. Progress reports name the source that is used.

Only a lab takes programs that were built: they have other hashes than the release's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import filelock

from vmproxy.binaries import release, source
from vmproxy.errors import BadArtifact, Unreachable, VmproxyError
from vmproxy.site.model import Proxy
from vmproxy.util import paths
from vmproxy.util.download import fetch, file_sha256, shown
from vmproxy.util.events import Report

KUBERNETES = frozenset({"kube-proxy", "kube-apiserver", "kube-controller-manager"})
ETCD_VERSION = "v3.6.8"
COREDNS_VERSION = "v1.15.0"
FLANNEL_VERSION = "v0.28.10"
_NO_BUILD = "run it again when the network is back, or set proxy.binary to a mirror or a file"


@dataclass(frozen=True)
class BinaryFile:
    """A program on this machine. `version` is, for example, v1.36.3. `built`: here, from its source."""

    path: Path
    sha256: str
    version: str
    built: bool = False


@dataclass(frozen=True)
class Source:
    """A kube-proxy that may not be here yet: where it belongs, and where it comes from. `sha256` None: it is
    not known before it is here."""

    path: Path
    origin: str
    sha256: str | None

    @property
    def here(self) -> bool:
        return self.path.exists()


def kube_proxy(wanted: Proxy, version: str) -> Source:
    """The kube-proxy to push: the site file's own binary, else the release. Nothing is fetched."""
    if wanted.binary is not None:
        target = paths.cache_dir("binaries", "custom") / wanted.binary.sha256
        return Source(target, shown(str(wanted.binary.url)), wanted.binary.sha256)
    target = paths.cache_dir("binaries", version) / "kube-proxy"
    if _is_built(target):
        target = paths.cache_dir("binaries", version, "release") / "kube-proxy"
    return Source(target, release.SITE, _sha256(target) if target.exists() else None)


def fetch_kube_proxy(wanted: Proxy, version: str, *, report: Report, site: str = release.SITE) -> BinaryFile:
    """The same, fetched if it is missing; never built in place of the release.

    Raises Unreachable if the site does not answer, BadArtifact for a wrong checksum.
    """
    source = kube_proxy(wanted, version)
    with filelock.FileLock(source.path.with_name(f"{source.path.name}.lock")):
        if not source.here:
            try:
                if wanted.binary is not None:
                    fetch(str(wanted.binary.url), source.path, sha256=wanted.binary.sha256, report=report)
                else:
                    release.fetch_program("kube-proxy", version, source.path, site=site, report=report)
            except Unreachable as exc:
                raise Unreachable(f"cannot get kube-proxy {version}: {exc.message}", hint=_NO_BUILD) from exc
            source.path.chmod(0o755)
    return BinaryFile(source.path, source.sha256 or _sha256(source.path), version)


def obtain(
    name: str,
    version: str,
    *,
    report: Report,
    given: Path | None = None,
    site: str = release.SITE,
) -> BinaryFile:
    """The program `name` in that version, for a lab. `given` is a folder that is searched first.

    Raises BadArtifact if the release site's checksum is wrong, VmproxyError if no source provides it.
    """
    if given is not None and (given / name).exists():
        report(f"{name}: taken from {given}")
        return BinaryFile(given / name, file_sha256(given / name), version, built=True)
    folder = paths.cache_dir("binaries", version)
    target = folder / name
    with filelock.FileLock(folder / f"{name}.lock"):
        if not target.exists():
            _download_or_build(name, version, target, report=report, site=site)
        return BinaryFile(target, _sha256(target), version, built=_is_built(target))


def site_entry(program: BinaryFile) -> dict[str, object]:
    """The site file's `proxy` with that kube-proxy: one that is no release is named with its hash."""
    entry: dict[str, object] = {"version": program.version}
    if program.built:
        entry["binary"] = {"url": program.path.absolute().as_uri(), "sha256": program.sha256}
    return entry


def _is_built(program: Path) -> bool:
    return _note_of_build(program).exists()


def _note_of_build(program: Path) -> Path:
    return program.with_name(program.name + ".built")


def _download_or_build(name: str, version: str, target: Path, *, report: Report, site: str) -> None:
    try:
        if name not in KUBERNETES:
            raise Unreachable(f"{name} is not on the release site")
        release.fetch_program(name, version, target, site=site, report=report)
        _note_of_build(target).unlink(missing_ok=True)
        report(f"{name} {version}: fetched from {site}")
    except BadArtifact:
        raise
    except Unreachable as exc:
        report(f"{name} {version}: {exc.message}; building it from its Go module instead")
        _build(name, version, target, report=report, fetching=exc)
    target.chmod(0o755)


def _build(name: str, version: str, target: Path, *, report: Report, fetching: Unreachable) -> None:
    _note_of_build(
        target
    ).touch()  # before the program is there: killed in between, it is not taken for a release
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
