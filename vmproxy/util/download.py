"""Download a file: resumable, verified, written atomically."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from vmproxy.errors import BadArtifact, Unreachable
from vmproxy.util.events import Amount, Report

if TYPE_CHECKING:
    import httpx

_ATTEMPTS = 3


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str,
    report: Report,
    connect_timeout: float = 10.0,
) -> None:
    """Download `url` (http, https or file) to `target`, and verify that its hash is `sha256`.

    An interrupted download stays in `<target>.part`, and the next call resumes it.
    Raises Unreachable if the server does not answer or lacks the file, BadArtifact if the
    content has another hash (the part is removed then).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if urlsplit(url).scheme == "file":
        _copy(url, part)
    else:
        _download(url, part, connect_timeout=connect_timeout, report=report)
    seen = file_sha256(part)
    if seen != sha256:
        part.unlink()
        raise BadArtifact(
            f"cannot use {shown(url)}: its SHA-256 is {seen}, expected {sha256}",
            hint="compare the checksum with the publisher's; the file may have been replaced",
        )
    part.replace(target)


def shown(url: str) -> str:
    """The URL without parts that may be secret: a login, a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def read_text(url: str, *, connect_timeout: float = 10.0) -> str:
    """Fetch a small text file. Raises Unreachable."""
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    try:
        answer = httpx.get(url, timeout=connect_timeout, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPError as exc:
        raise Unreachable(f"cannot fetch {shown(url)}: {exc}") from exc
    return answer.text


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(url: str, part: Path) -> None:
    source = Path(unquote(urlsplit(url).path))
    try:
        shutil.copyfile(source, part)
    except OSError as exc:
        raise Unreachable(f"cannot read {source}: {exc.strerror}") from exc


def _download(url: str, part: Path, *, connect_timeout: float, report: Report) -> None:
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(url, part, connect_timeout=connect_timeout, report=report)
        except httpx.HTTPStatusError as exc:
            raise Unreachable(f"cannot fetch {shown(url)}: HTTP {exc.response.status_code}") from exc
        except httpx.HTTPError as exc:
            if attempt == _ATTEMPTS or not part.exists():
                raise Unreachable(
                    f"cannot fetch {shown(url)}: {exc}",
                    hint="run it again: the download resumes where it stopped",
                ) from exc
            report(f"interrupted after {part.stat().st_size >> 20} MiB, resuming")
        else:
            return


def _continue(url: str, part: Path, *, connect_timeout: float, report: Report) -> None:
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    timeout = httpx.Timeout(60.0, connect=connect_timeout)
    with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        answer.raise_for_status()
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        total = int(answer.headers.get("content-length", 0)) + (have if resumed else 0)
        with part.open("ab" if resumed else "wb") as file:
            _write(answer, file, total=total, report=report)


def _write(answer: httpx.Response, file: BinaryIO, *, total: int, report: Report) -> None:
    next_report = 0
    for chunk in answer.iter_bytes():
        file.write(chunk)
        done = file.tell()
        if done >= next_report:
            text = f"{done >> 20} of {total >> 20} MiB" if total else f"{done >> 20} MiB"
            report(Amount(text, done=done, total=total or None))
            next_report = done + (16 << 20)
