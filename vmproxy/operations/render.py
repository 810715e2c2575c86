"""render: every file that apply would push, secrets redacted, for review. Needs no host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmproxy import seed
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import ToolFailed
from vmproxy.model.seen import Unobservable
from vmproxy.model.topology import Member
from vmproxy.resources import identity
from vmproxy.seed.keys import KeyPair
from vmproxy.util import assets
from vmproxy.util.events import Reporter

REDACTED = KeyPair(private="(redacted: generated for each seed)", public="(generated with the private key)")


def render_host(site: SiteRun, member: Member, folder: Path, report: Reporter) -> Iterator[Path]:
    """The seed's documents, the guest's files, the cluster's objects, and the scripts that run on a
    Windows host. Yields each path written."""
    with Scope(site, member, report) as scope:
        wanted = scope.wanted_guest(site.cluster_seen(), None, Unobservable("not observed"))
        for name, text in seed.documents(scope.wanted_seed(None), host_key=REDACTED).items():
            yield _write(folder / "seed" / name, text.encode())
        for path, file in wanted.files.items():
            if file.content is not None:
                yield _write(folder / "guest" / path.lstrip("/"), file.content)
        for name, text in identity.documents(member.vm).items():
            yield _write(folder / "cluster" / name, text.encode())
        for scripts in scope.kind.scripts:
            for name in assets.names(scripts):
                yield _write(folder / name, assets.text(name).encode())


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as exc:
        raise ToolFailed(f"cannot write {path}: {exc.strerror}") from exc
    return path
