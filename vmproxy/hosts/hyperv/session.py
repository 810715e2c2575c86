"""One powershell.exe on a Windows host that does all of a run's work on it.

The scripts are in templates/powershell; what they need travels beside them as JSON. The process
holds the host's lock, and ends by itself soon after vmproxy does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vmproxy.hosts.hyperv.errors import explained
from vmproxy.hosts.hyperv.image import Shell, give
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.transport.powershell import PowerShellFailed

_SECONDS = 300.0
"""A host with hundreds of VMs takes minutes to list them."""


class Session:
    """`name` is the host's in messages; `paths` say where the VM's files are."""

    def __init__(self, shell: Shell, name: str, paths: Paths) -> None:
        self.shell = shell
        self.name = name
        self.paths = paths

    def run(
        self,
        script: str,
        doing: str,
        data: dict[str, Any] | None = None,
        *,
        timeout: float = _SECONDS,
        each: Callable[[Any], None] | None = None,
    ) -> Any:
        """A script's one answer. `doing` completes "cannot … on the host" in an error."""
        with self.explaining(doing):
            return self.call(script, data, timeout=timeout, each=each)

    def call(
        self,
        script: str,
        data: dict[str, Any] | None = None,
        *,
        timeout: float = _SECONDS,
        each: Callable[[Any], None] | None = None,
    ) -> Any:
        """As `run`, inside a longer piece of work whose errors are explained as a whole."""
        return self.shell.call(script, {**self._folder(), **(data or {})}, timeout=timeout, each=each)

    def feed(self, script: str, data: dict[str, Any], secret: bytes, *, timeout: float) -> None:
        """As `call`, for a script that asks for `secret`: module logging records frames, but no input."""
        give(self.shell, script, {**self._folder(), **data}, secret, timeout=timeout)

    @contextmanager
    def explaining(self, doing: str) -> Iterator[None]:
        try:
            yield
        except PowerShellFailed as exc:
            raise explained(exc, doing, self.name) from exc

    def _folder(self) -> dict[str, str]:
        """What every script takes to find the VM and its files."""
        paths = self.paths
        return {
            "vm": paths.vm,
            "directory": paths.directory,
            "lock": paths.lock,
            "unfinished": paths.unfinished,
            "folder": paths.folder,
            "images": paths.images,
            "pending": paths.pending,
        }
