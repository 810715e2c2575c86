"""This machine: as the one that carries the VM (`qemu: {}`), or as the one that vmproxy runs on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from vmproxy.hosts.linux.accel import accelerator
from vmproxy.hosts.linux.vm import FIRMWARE, free_memory
from vmproxy.model.topology import Vm
from vmproxy.operations.doctor.finding import Finding, checked, enough
from vmproxy.util import paths

DISK_NEEDED = 3 << 30

_SSH = {"ssh": "openssh-client"}
_TO_CONVERT = {"qemu-img": "qemu-utils"}
_TO_CARRY = {
    "qemu-system-x86_64": "qemu-system-x86",
    **_TO_CONVERT,
    "ip": "iproute2",
    "bridge": "iproute2",
    **_SSH,
}
_ACCELERATION = {
    "kvm": "KVM works",
    "tcg": "KVM does not work here (tried); software emulation is used: slower, else the same",
}


def controller_findings(*, converts: bool) -> Iterator[Finding]:
    """What vmproxy itself needs here, where the VM is on another machine."""
    yield from _tools({**(_TO_CONVERT if converts else {}), **_SSH})


def carrier_findings(vm: Vm) -> Iterator[Finding]:
    """What it takes to carry the VM here."""
    root = os.geteuid() == 0
    yield checked("rights", ok=root, detail="root" if root else "not root", otherwise="run it with sudo")
    yield from _tools(_TO_CARRY)
    yield checked("firmware", ok=FIRMWARE.exists(), detail=str(FIRMWARE), otherwise="install ovmf")
    yield from _sizes(vm)
    if shutil.which("qemu-system-x86_64"):
        accel, _ = accelerator()
        yield Finding("acceleration", ok=True, detail=_ACCELERATION[accel.partition(",")[0]])


def _tools(tools: Mapping[str, str]) -> Iterator[Finding]:
    for tool, package in tools.items():
        where = shutil.which(tool)
        yield checked(
            f"tool {tool}", ok=bool(where), detail=where or "not found", otherwise=f"install {package}"
        )


def _sizes(vm: Vm) -> Iterator[Finding]:
    needed = vm.size.memory
    yield enough("memory", free_memory(), needed, otherwise="stop something, or set vm.memory to less")
    disk = shutil.disk_usage(_existing(paths.state_dir())).free
    yield enough("disk", disk, DISK_NEEDED, otherwise="free disk space")


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
