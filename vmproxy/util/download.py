"""Download a file: resumable, verified, written atomically.

The bytes are those that the server has stored: none is decoded on the way, also where a server labels a
stored .gz with Content-Encoding.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from vmproxy.errors import BadArtifact, Unreachable, UsageError
from vmproxy.util.events import Amount, Report

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_ATTEMPTS = 3
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_BUSY = frozenset({429, 500, 502, 503, 504})
_HEADERS = {"Accept-Encoding": "identity"}
_LONGEST_TEXT = 1 << 20
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


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
    if url.startswith("file:"):
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
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2].partition("?")[0]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def read_text(url: str, *, connect_timeout: float = 10.0) -> str:
    """Fetch a small text file. Raises Unreachable, UsageError for a proxy that cannot be used."""
    return _tried(url, lambda: _text(url, connect_timeout))


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
    def again(why: str) -> None:
        done = f"after {part.stat().st_size >> 20} MiB" if part.exists() else "before it began"
        report(f"interrupted {done}, trying again: {why}")

    _tried(url, lambda: _continue(url, part, connect_timeout=connect_timeout, report=report), again=again)


def _tried(url: str, work: Callable[[], T], *, again: Callable[[str], None] = lambda _why: None) -> T:
    """Three times, when the server is busy or the connection breaks. Raises Unreachable."""
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    cause: httpx.HTTPError
    for attempt in range(1, _ATTEMPTS + 1):
        pause = _PAUSE * attempt
        try:
            return work()
        except httpx.HTTPStatusError as exc:
            status = exc.response.status_code
            why, cause = f"HTTP {status}", exc
            if status not in _BUSY:
                raise Unreachable(f"cannot fetch {shown(url)}: {why}") from exc
            pause = _asked_for(exc.response, pause)
        except httpx.ConnectError as exc:  # refused, or no such name: it is not better in a second
            raise Unreachable(f"cannot fetch {shown(url)}: {exc}") from exc
        except httpx.HTTPError as exc:
            why, cause = str(exc) or type(exc).__name__, exc
        if attempt == _ATTEMPTS:
            break
        again(why)
        time.sleep(pause)
    raise Unreachable(
        f"cannot fetch {shown(url)}: {why}", hint="run it again: a download resumes where it stopped"
    ) from cause


def _asked_for(answer: httpx.Response, pause: float) -> float:
    """Retry-After in seconds; as a date it is not looked at."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), _LONGEST_PAUSE) if asked.isdecimal() else pause


@contextmanager
def _opened(url: str, headers: dict[str, str], connect_timeout: float) -> Iterator[httpx.Response]:
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    timeout = httpx.Timeout(60.0, connect=connect_timeout)
    try:
        client = httpx.Client(headers=_HEADERS, timeout=timeout, follow_redirects=True)
    except (ImportError, ValueError, httpx.InvalidURL) as exc:
        raise _wrong_proxy(url, exc) from exc
    try:
        with client, client.stream("GET", url, headers=headers) as answer:
            yield answer
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
        raise UsageError(f"cannot fetch {shown(url)}: {exc}") from exc


def _wrong_proxy(url: str, exc: Exception) -> UsageError:
    """httpx names no variable: those that are set are."""
    names = [name for both in _PROXIES for name in (both, both.lower()) if os.environ.get(name)]
    found = ", ".join(f"{name}={shown(os.environ[name])}" for name in names)
    return UsageError(
        f"cannot fetch {shown(url)}: the environment's proxy cannot be used: {found or exc}",
        hint=f"set {' or '.join(names) or 'the proxy'} to http://HOST:PORT or https://HOST:PORT, or unset it "
        "(SOCKS is not supported); NO_PROXY names the hosts that are reached without it",
    )


def _text(url: str, connect_timeout: float) -> str:
    content = bytearray()
    with _opened(url, {}, connect_timeout) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) > _LONGEST_TEXT:
                raise BadArtifact(f"cannot use {shown(url)}: it is longer than a small text")
    return content.decode(errors="replace")


def _continue(url: str, part: Path, *, connect_timeout: float, report: Report) -> None:
    import httpx  # noqa: PLC0415 (slow, and most runs fetch nothing)

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _opened(url, headers, connect_timeout) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return
        answer.raise_for_status()
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        length = answer.headers.get("content-length", "")
        total = int(length) + (have if resumed else 0) if length.isdecimal() else 0
        with part.open("ab" if resumed else "wb") as file:
            _write(answer, file, total=total, report=report)


def _write(answer: httpx.Response, file: BinaryIO, *, total: int, report: Report) -> None:
    next_report = 0
    for chunk in answer.iter_raw():
        file.write(chunk)
        done = file.tell()
        if done >= next_report:
            text = f"{done >> 20} of {total >> 20} MiB" if total else f"{done >> 20} MiB"
            report(Amount(text, done=done, total=total or None))
            next_report = done + (16 << 20)
