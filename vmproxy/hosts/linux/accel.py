"""Tests whether KVM works: the presence of /dev/kvm alone proves nothing."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

# mov dx,0xf4; mov al,0; out dx,al; hlt: makes the debug-exit device end QEMU with status 1.
_BOOT_SECTOR = bytes.fromhex("baf400b000eef4").ljust(510, b"\0") + b"\x55\xaa"
_TRIAL_SECONDS = 10


@cache
def accelerator() -> tuple[str, str]:
    """QEMU's -accel and -cpu: KVM if a VM with the host's processor really runs under it."""
    return ("kvm", "host") if _kvm_runs() else ("tcg,thread=multi", "max")


def _kvm_runs() -> bool:
    if not Path("/dev/kvm").exists():
        return False
    with tempfile.NamedTemporaryFile(suffix=".img") as disk:
        disk.write(_BOOT_SECTOR.ljust(1 << 20, b"\0"))
        disk.flush()
        command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "64"]
        command += ["-nodefaults", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        command += ["-drive", f"if=ide,format=raw,file={disk.name}"]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=_TRIAL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return ended.returncode == 1
