"""What it takes to carry the VM on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vmproxy.hosts import controller
from vmproxy.hosts.linux.accel import accelerator
from vmproxy.hosts.linux.vm import FIRMWARE, free_memory
from vmproxy.hosts.protocols import DISK_NEEDED
from vmproxy.model.finding import Finding, checked, enough
from vmproxy.model.topology import Vm
from vmproxy.util import paths

_TO_CARRY = {
    "qemu-system-x86_64": "qemu-system-x86",
    **controller.TO_CONVERT,
    "ip": "iproute2",
    "bridge": "iproute2",
    **controller.SSH,
}
_ACCELERATION = {
    "kvm": "KVM works",
    "tcg": "KVM does not work here (tried); software emulation is used: slower, else the same",
}


def needs(vm: Vm) -> Iterator[Finding]:
    """What it takes to carry the VM here."""
    root = os.geteuid() == 0
    yield checked("rights", ok=root, detail="root" if root else "not root", otherwise="run it with sudo")
    yield from controller.tools(_TO_CARRY)
    yield checked("firmware", ok=FIRMWARE.exists(), detail=str(FIRMWARE), otherwise="install ovmf")
    yield from _sizes(vm)
    if shutil.which("qemu-system-x86_64"):
        accel, _ = accelerator()
        yield Finding("acceleration", ok=True, detail=_ACCELERATION[accel.partition(",")[0]])


def _sizes(vm: Vm) -> Iterator[Finding]:
    needed = vm.size.memory
    yield enough("memory", free_memory(), needed, otherwise="stop something, or set vm.memory to less")
    disk = shutil.disk_usage(_existing(paths.state_dir())).free
    yield enough("disk", disk, DISK_NEEDED, otherwise="free disk space")


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
