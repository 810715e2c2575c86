"""The two programs that stand behind `qemu-system-x86_64` in tests, and how often each booted a machine.

`vm` is QEMU itself; `container` boots the same disk in a container (tests/container). Each is a folder for
PATH: neither the product nor the emulated Windows host knows which one it starts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Tier = Literal["container", "vm"]

_FOLDER = "VMPROXY_TEST_HYPERVISORS"
_ROOT = Path(__file__).resolve().parents[1]
_COUNTED = {"vm": "VMs", "container": "containers", "tiny": "tiny guests of 256 MiB in QEMU"}
_QEMU = """#!/bin/sh
case "$*" in
    *isa-debug-exit*) ;;
    *"-m 256M"*) printf . >> {ledger}/booted-tiny ;;
    *) printf . >> {ledger}/booted-vm ;;
esac
exec {qemu} "$@"
"""
_CONTAINER = """#!/bin/sh
case "$*" in *-qmp*) printf . >> {ledger}/booted-container ;; esac
export PYTHONPATH={root}
exec unshare --mount --propagation=private {python} -m tests.container "$@"
"""


def begin() -> None:
    """In the run's first process, before its workers are started: every machine is counted from now on."""
    folder = Path(tempfile.mkdtemp(prefix="vmproxy-test-hypervisors-"))
    qemu = shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64"
    values = {"ledger": folder, "qemu": qemu, "root": _ROOT, "python": sys.executable}
    for tier, script in (("vm", _QEMU), ("container", _CONTAINER)):
        program = folder / tier / "qemu-system-x86_64"
        program.parent.mkdir()
        program.write_text(script.format(**values))
        program.chmod(0o755)
    os.environ[_FOLDER] = str(folder)
    os.environ["PATH"] = f"{folder / 'vm'}:{os.environ['PATH']}"


def end() -> None:
    shutil.rmtree(os.environ[_FOLDER])


def program(tier: Tier) -> Path:
    return Path(os.environ[_FOLDER], tier, "qemu-system-x86_64")


def path(tier: Tier) -> str:
    """PATH with that program first."""
    return f"{program(tier).parent}:{os.environ['PATH']}"


def booted() -> Mapping[str, int]:
    """How many machines were switched on so far, by what the closing lines call them."""
    folder = Path(os.environ[_FOLDER])
    files = {words: folder / f"booted-{name}" for name, words in _COUNTED.items()}
    return {words: file.stat().st_size for words, file in files.items() if file.exists()}
