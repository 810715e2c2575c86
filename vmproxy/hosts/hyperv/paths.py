"""Paths on a Windows host: one folder with the lock, the base images, and a folder for each VM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PureWindowsPath


@dataclass(frozen=True)
class Paths:
    """`directory` comes from the site file; all paths are text in Windows format."""

    directory: str
    vm: str

    @property
    def lock(self) -> str:
        return self._at("vmproxy.lock")

    @property
    def unfinished(self) -> str:
        """A file beside `directory` while vmproxy creates or removes it: a killed run leaves a folder that is
        still known to be vmproxy's own."""
        return f"{PureWindowsPath(self.directory)}.unfinished"

    @property
    def images(self) -> str:
        return self._at("images")

    @property
    def folder(self) -> str:
        return self._at(self.vm)

    @property
    def pending(self) -> str:
        """The marker of a VM that is being created, until it is in the VM's Notes."""
        return self._at(self.vm, "pending.txt")

    def base(self, image: str) -> str:
        return self._at("images", f"{image}.vhdx")

    def record(self, image: str) -> str:
        """The SHA-256 of the base image itself, as it was unpacked."""
        return self._at("images", f"{image}.sha256")

    def draft(self, image: str) -> str:
        """The base image while it is unpacked."""
        return self._at("images", f"{image}.draft")

    def part(self, sha256: str) -> str:
        """The partial transfer, named by its own hash; the next run resumes it."""
        return self._at("images", f"{sha256}.part")

    def disk(self, image: str) -> str:
        return self._at(self.vm, f"disk-{image}.vhdx")

    def seed(self, seed: str) -> str:
        return self._at(self.vm, f"seed-{seed}.iso")

    @staticmethod
    def pipe(vm: str) -> str:
        """Of the VM's serial console."""
        return f"{vm}-com1"

    def same(self, one: str, other: str) -> bool:
        """Compares paths as Windows does: ignoring case and kind of slash."""
        return PureWindowsPath(one) == PureWindowsPath(other)

    def _at(self, *parts: str) -> str:
        return str(PureWindowsPath(self.directory, *parts))
