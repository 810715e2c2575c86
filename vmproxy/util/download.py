"""Fetch a file by URL: resumed after a cut, checked, never half-written."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from vmproxy.errors import BadArtifact, Unreachable

if TYPE_CHECKING:
    import httpx

_ATTEMPTS = 3


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str,
    report: Callable[[str], None],
    connect_timeout: float = 10.0,
) -> None:
    """Bring `url` (http, https or file) to `target`, whose content then has the hash `sha256`.

    What came before a cut stays in `<target>.part` and the next call goes on from there.
    Raises Unreachable when the server does not answer or lacks the file, BadArtifact when the
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
            hint="check the checksum with who publishes the file; it may have been replaced",
        )
    part.replace(target)


def shown(url: str) -> str:
    """The URL without what may be a secret in it: a log-in, a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def read_text(url: str, *, connect_timeout: float = 10.0) -> str:
    """A small text file by URL. Raises Unreachable."""
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


def _download(url: str, part: Path, *, connect_timeout: float, report: Callable[[str], None]) -> None:
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(url, part, connect_timeout=connect_timeout, report=report)
        except httpx.HTTPStatusError as exc:
            raise Unreachable(f"cannot fetch {shown(url)}: HTTP {exc.response.status_code}") from exc
        except httpx.HTTPError as exc:
            if attempt == _ATTEMPTS or not part.exists():
                raise Unreachable(
                    f"cannot fetch {shown(url)}: {exc}", hint="run again: it goes on where it stopped"
                ) from exc
            report(f"cut off after {part.stat().st_size >> 20} MiB, going on from there")
        else:
            return


def _continue(url: str, part: Path, *, connect_timeout: float, report: Callable[[str], None]) -> None:
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


def _write(answer: httpx.Response, file: BinaryIO, *, total: int, report: Callable[[str], None]) -> None:
    next_word = 0
    for chunk in answer.iter_bytes():
        file.write(chunk)
        done = file.tell()
        if done >= next_word:
            report(f"{done >> 20} of {total >> 20} MiB" if total else f"{done >> 20} MiB")
            next_word = done + (16 << 20)
