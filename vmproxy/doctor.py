"""doctor: look at host, cluster and network before anything is changed; every finding has a next step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmproxy.errors import VmproxyError
from vmproxy.machine import Machine
from vmproxy.places import Connection
from vmproxy.places.qemu_accel import accelerator
from vmproxy.places.qemu_vm import FIRMWARE, free_memory
from vmproxy.resources import route, switch, vm
from vmproxy.site import Host, Site

_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "ip": "iproute2",
    "bridge": "iproute2",
    "ssh": "openssh-client",
}
_DISK_NEEDED = 3 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `next_step` is empty when `ok`."""

    check: str
    ok: bool
    detail: str
    next_step: str = ""

    def as_json(self) -> dict[str, object]:
        return {"check": self.check, "ok": self.ok, "detail": self.detail, "next": self.next_step or None}


def doctor_host(site: Site, host: Host, report: Callable[[str], None]) -> tuple[Finding, ...]:
    report("looking at this machine")
    findings = list(_machine_findings(site, host))
    with Machine(site, host, report) as machine:
        report("looking at the cluster")
        findings += _cluster_findings(machine)
        report("looking at the host's network")
        findings += _host_findings(machine)
    return tuple(findings)


def _machine_findings(site: Site, host: Host) -> Iterator[Finding]:
    root = os.geteuid() == 0
    yield Finding("rights", root, "root" if root else "not root", "" if root else "run it with sudo")
    for tool, package in _TOOLS.items():
        where = shutil.which(tool)
        yield Finding(
            f"tool {tool}", bool(where), where or "not found", "" if where else f"install {package}"
        )
    yield Finding(
        "firmware",
        FIRMWARE.exists(),
        str(FIRMWARE),
        "" if FIRMWARE.exists() else "install ovmf",
    )
    yield from _size_findings(site, host)
    if shutil.which("qemu-system-x86_64"):
        accel, _ = accelerator()
        yield Finding("acceleration", ok=True, detail=_ACCELERATION[accel.partition(",")[0]])


_ACCELERATION = {
    "kvm": "KVM works",
    "tcg": "KVM does not work here (tried); software emulation is used: slower, else the same",
}


def _size_findings(site: Site, host: Host) -> Iterator[Finding]:
    needed = site.vm_size(host).memory
    free = free_memory()
    yield _enough("memory", free, needed, "stop something, or set vm.memory to less")
    disk = shutil.disk_usage(_existing(Path.home() / ".local" / "state")).free
    yield _enough("disk", disk, _DISK_NEEDED, "free disk space")


def _enough(check: str, free: int, needed: int, next_step: str) -> Finding:
    ok = free >= needed
    detail = f"{free >> 20} MiB free, {needed >> 20} MiB needed"
    return Finding(check, ok, detail, "" if ok else next_step)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _cluster_findings(machine: Machine) -> Iterator[Finding]:
    try:
        seen = machine.observe_cluster()
        missing = machine.cluster.missing_rights(machine.site, machine.host)
    except VmproxyError as exc:
        yield _failed("cluster", exc)
        return
    yield Finding("cluster", ok=True, detail=f"Kubernetes {seen.version} at {seen.server}")
    yield Finding("Service ranges", ok=True, detail=", ".join(seen.service_cidrs))
    yield Finding(
        "rights in the cluster",
        not missing,
        "missing: " + ", ".join(missing) if missing else "all that apply needs",
        "ask the cluster's administrator for them" if missing else "",
    )
    acts_for = machine.host.acts_for
    if acts_for:
        known = any(node.name == acts_for for node in seen.nodes)
        detail = f"{acts_for} is there" if known else f"there is no Node {acts_for}"
        yield Finding("actsFor", known, detail, "" if known else "correct hosts[].actsFor, or omit it")


def _host_findings(machine: Machine) -> Iterator[Finding]:
    try:
        seen = machine.place.observe()
        machine.note_host(seen)
        switch.check(machine.host, seen)
        yield Finding("switch", ok=True, detail=machine.host.switch.name)
        vm.destroy_plan(
            machine.site.vm_name(machine.host), site=machine.site.name, host=machine.host.name, seen=seen
        )
        yield Finding("VM name", ok=True, detail="free" if seen.vm is None else "ours")
        if seen.vm is None:
            yield _address_free(machine)
        cluster = machine.observe_cluster()
        route.plan(machine.wanted_routes(cluster), seen, host=machine.host.name)
        yield Finding("routes", ok=True, detail="nothing overlaps the Service ranges")
    except VmproxyError as exc:
        yield _failed("host", exc)


def _address_free(machine: Machine) -> Finding:
    """Something that refuses or accepts a connection has the address; silence means free."""
    address = str(machine.address.ip)
    answer = machine.place.probe([Connection("tcp", address, 22)])[0]
    taken = bool(answer.ok) or answer.detail == "refused"
    next_step = "give the VM another address: hosts[].network.address" if taken else ""
    return Finding("VM address", not taken, f"{address} {'is taken' if taken else 'is free'}", next_step)


def _failed(check: str, problem: VmproxyError) -> Finding:
    detail = "; ".join((problem.message, *problem.details))
    return Finding(check, ok=False, detail=detail, next_step=problem.hint or "correct it and look again")
