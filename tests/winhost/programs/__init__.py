"""The programs on the host's PATH: nothing else can be run there. An unknown option is an error."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("chcp.com", "curl.exe", "fsutil.exe", "hostname.exe", "icacls.exe", "route.exe", "whoami.exe")
NOT_EMULATED = (
    "ipconfig.exe",
    "net.exe",
    "netsh.exe",
    "ping.exe",
    "reg.exe",
    "sc.exe",
    "shutdown.exe",
    "systeminfo.exe",
    "tasklist.exe",
)
"""They are there, as on Windows, and do nothing but fail: they are not emulated."""


def names(version: str) -> tuple[str, ...]:
    """Those that work and that a Windows version has: Server 2016 came without curl."""
    return tuple(name for name in NAMES if name != "curl.exe" or version != "2016")


def install(folder: Path, version: str) -> Path:
    """Put the version's programs into the folder, which is made; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*names(version), *NOT_EMULATED):
        add(folder, name, version)
    return folder


def add(folder: Path, name: str, version: str) -> None:
    """One that did not come with Windows: crictl.exe, docker.exe."""
    target = folder / name
    target.write_text(_launcher(name, version))
    target.chmod(0o755)


def _launcher(name: str, version: str) -> str:
    words = [sys.executable, "-P", "-m", "tests.winhost.programs", name, version]
    if name == "curl.exe":
        words.append(_curl())
    return f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(words)} "$@"\n'


def _curl() -> str:
    """The machine's own curl, which does the work."""
    found = shutil.which("curl")
    if found is None:
        raise FileNotFoundError("curl is not installed")
    return found
