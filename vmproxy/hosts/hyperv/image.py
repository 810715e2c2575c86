"""Transfers the base image to a Windows host: the host downloads it, or it is sent over WinRM's stdin."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vmproxy.errors import NotReady
from vmproxy.hosts.hyperv.errors import is_disk_full
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.hosts.protocols import Delivery
from vmproxy.image import Download
from vmproxy.transport.powershell import PowerShellFailed
from vmproxy.util.download import file_sha256
from vmproxy.util.events import Amount, Report

_PIECE = 1 << 20
"""Bytes per answer of the host: about four messages. PowerShell holds several copies of it."""
_STEP = 16 << 20
_FETCH_SECONDS = 4 * 3600.0
_UNPACK_SECONDS = 3600.0
_ANSWER_SECONDS = 300.0
_TIDY_SECONDS = 300.0


class Shell(Protocol):
    """A PowerShell on the host, as in transport/powershell.py."""

    def call(
        self,
        script: str,
        data: Any = None,
        *,
        timeout: float = 120.0,
        each: Callable[[Any], None] | None = None,
    ) -> Any: ...

    def feed(
        self, script: str, data: Any, pieces: Callable[[Any], bytes | None], *, timeout: float
    ) -> Any: ...


@dataclass(frozen=True)
class Bringer:
    """Transfers one image to one host, and reports how."""

    shell: Shell
    paths: Paths
    host: str
    report: Report

    def bring(self, image: str, delivery: Delivery, *, there: bool) -> None:
        """`there`: the host already has the base image. Always removes what earlier runs left."""
        if there:
            self._tidy(image, None)
        elif delivery.download is None or not self._fetched(image, delivery.download):
            self._send(image, delivery.image())

    def _fetched(self, image: str, source: Download) -> bool:
        """False if the host cannot download it; the reason is reported."""
        self._tidy(image, source.sha256)
        self.report(f"{self.host} downloads the image from {source.shown}")
        data = {"part": self.paths.part(source.sha256), "sha256": source.sha256}
        progress = _Progress(self.report, "downloaded")
        try:
            url = source.url.encode()
            give(self.shell, "fetch.ps1", data, url, timeout=_FETCH_SECONDS, each=progress)
        except PowerShellFailed as exc:
            if is_disk_full(exc):
                raise
            self.report(f"{self.host} cannot download it ({exc.record.message.strip()}): sending it instead")
            return False
        self._unpack(image, source.sha256)
        return True

    def _send(self, image: str, file: Path) -> None:
        digest = file_sha256(file)
        size = file.stat().st_size
        ready = self._tidy(image, digest)
        self._check_space(ready, size, _unpacked_size(file))
        self.report(f"sending the image to {self.host}: {size >> 20} MiB")
        progress = _Progress(self.report, f"of {size >> 20} MiB sent")
        with file.open("rb") as source:

            def pieces(answer: Any) -> bytes:
                progress(answer)
                source.seek(answer["have"])
                return base64.b64encode(source.read(_PIECE)) + b"\n"

            self.shell.feed("receive.ps1", {"part": self.paths.part(digest)}, pieces, timeout=_ANSWER_SECONDS)
        self._unpack(image, digest)

    def _unpack(self, image: str, digest: str) -> None:
        self.report(f"{self.host} verifies and unpacks the image")
        data = {
            "part": self.paths.part(digest),
            "sha256": digest,
            "draft": self.paths.draft(image),
            "base": self.paths.base(image),
            "record": self.paths.record(image),
        }
        each = _Progress(self.report, "unpacked")
        self.shell.call("unpack.ps1", data, timeout=_UNPACK_SECONDS, each=each)

    def _tidy(self, image: str, part: str | None) -> dict[str, Any]:
        return tidy(self.shell, self.paths, image=image, part=part)

    def _check_space(self, ready: dict[str, Any], size: int, unpacked: int) -> None:
        """Space for the rest of the transfer, the base image, and the VM's own copy of it."""
        needed = size - int(ready["part"]) + 2 * unpacked
        if needed > int(ready["free"]):
            raise NotReady(
                f"cannot copy the image to {self.host}: it needs {needed >> 20} MiB in "
                f"{self.paths.directory}, {int(ready['free']) >> 20} MiB are free",
                hint="free space on that drive, or set hyperv.directory to a folder on another one",
            )


def give(
    shell: Shell,
    script: str,
    data: dict[str, Any],
    line: bytes,
    *,
    timeout: float,
    each: Callable[[Any], None] | None = None,
) -> None:
    """Run a script that asks once, by {"send"}, for one line; `each` gets what else it emits."""
    deadline = time.monotonic() + timeout

    def pieces(answer: Any) -> bytes | None:
        if "send" in answer:
            return line + b"\n"
        if time.monotonic() > deadline:
            raise NotReady(f"cannot finish {script}: it took longer than {timeout:.0f} s")
        if each is not None:
            each(answer)
        return None

    shell.feed(script, data, pieces, timeout=timeout)


def tidy(shell: Shell, paths: Paths, *, image: str | None, part: str | None) -> dict[str, Any]:
    """Remove what earlier runs left, except this image and part; return their state and the free space."""
    data = {
        "directory": paths.directory,
        "images": paths.images,
        "folder": paths.folder,
        "base": paths.base(image) if image else None,
        "part": paths.part(part) if part else None,
    }
    state: dict[str, Any] = shell.call("tidy.ps1", data, timeout=_TIDY_SECONDS)
    return state


class _Progress:
    """A line every 16 MiB."""

    def __init__(self, report: Report, word: str) -> None:
        self._report = report
        self._word = word
        self._next = 0

    def __call__(self, answer: dict[str, int]) -> None:
        done = next(iter(answer.values()))
        if done >= self._next and done:
            self._report(Amount(f"{done >> 20} MiB {self._word}", done=done))
            self._next = done + _STEP


def _unpacked_size(file: Path) -> int:
    """From gzip's last four bytes: correct below 4 GiB, too small above."""
    with file.open("rb") as source:
        source.seek(-4, 2)
        return int.from_bytes(source.read(4), "little")
