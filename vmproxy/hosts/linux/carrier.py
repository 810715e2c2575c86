"""A VM of QEMU on this machine, connected to a bridge in the lab's namespace."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, assert_never

import filelock

from vmproxy.errors import Busy, UsageError
from vmproxy.hosts.linux.vm import Definition, QemuVm, free_memory
from vmproxy.hosts.protocols import Delivery
from vmproxy.model.net import Address
from vmproxy.model.seen import CarrierSeen, Marker, SwitchSeen, VmSeen
from vmproxy.model.steps import (
    CreateVm,
    DeleteVm,
    ReconfigureVm,
    SetVm,
    StartVm,
    SwitchStep,
    VmStep,
    VmWanted,
    new_marker,
)
from vmproxy.model.topology import Vm
from vmproxy.util import netns, paths
from vmproxy.util.events import Report
from vmproxy.util.run import run

_LOCK_SECONDS = 60.0


class QemuCarrier:
    """`namespace` reaches the guest; `switch_namespace` has the bridge."""

    def __init__(self, vm: Vm, *, lab: str, namespace: str, switch_namespace: str) -> None:
        self._name = vm.carrier.name
        self._switch = vm.carrier.switch
        self._namespace = namespace
        self._switch_namespace = switch_namespace
        self._state = paths.state_dir("qemu", lab)
        self._vm = QemuVm(vm.name, folder=self._state / vm.name, switch_namespace=switch_namespace)

    @contextmanager
    def lock(self, report: Report) -> Iterator[None]:
        lock = filelock.FileLock(self._state / f"{self._vm.name}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            report(f"another vmproxy works on {self._name}: waiting for it")
            self._wait_for(lock)
        try:
            yield
        finally:
            lock.release()

    def observe(self) -> CarrierSeen:
        return CarrierSeen(
            vm=self._observe_vm(),
            switch=self._observe_switch(),
            free_memory=free_memory(),
            free_disk=shutil.disk_usage(self._state).free,
        )

    def check(self, steps: Sequence[VmStep]) -> None:
        """A running VM is not stopped for a size that this machine cannot give it."""
        for step in steps:
            if isinstance(step, CreateVm | ReconfigureVm):
                self._vm.check_memory(int(step.vm.settings["memory"]))

    def do(
        self,
        step: VmStep,
        deliver: Callable[[], Delivery],
        marker: Marker | None,
        report: Report,  # noqa: ARG002 (the protocol's)
    ) -> None:
        match step:
            case CreateVm():
                self._create(step.vm, deliver, marker)
            case StartVm():
                self._vm.start()
            case SetVm():
                self._set(step)
            case ReconfigureVm():
                self._vm.stop()
                self._redefine(step.settings)
                self._vm.start()
            case DeleteVm():
                self._vm.delete()
            case _:
                assert_never(step)

    def change_switch(self, step: SwitchStep) -> None:
        """The site file's check refuses it."""
        raise UsageError(f"cannot {step.verb} {step.target}: a Linux host has the bridges that it has")

    def mark(self, marker: Marker) -> None:
        definition = self._vm.definition()
        if definition is not None:
            self._vm.define(replace(definition, marker=marker))

    def open_guest(self, address: Address, port: int) -> socket.socket:
        return netns.connect(self._namespace, (str(address), port), timeout=10.0)

    def console(self, lines: int) -> list[str]:
        try:
            text = self._vm.console_log.read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]

    def died(self) -> str | None:
        return None if self._vm.pid() else "QEMU has ended"

    def ssh_command(self, address: Address) -> list[str]:  # noqa: ARG002 (the protocol's)
        return netns.run_in(self._namespace, ["ssh"])

    def symptoms(self) -> list[str]:
        return []

    def examine(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def _wait_for(self, lock: filelock.BaseFileLock) -> None:
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except filelock.Timeout as exc:
            raise Busy(
                f"cannot change {self._name}: another vmproxy has worked on it for "
                f"{_LOCK_SECONDS:.0f} s and has not finished",
                hint="wait for it to end, then run again",
            ) from exc

    def _observe_vm(self) -> VmSeen | None:
        definition = self._vm.definition()
        if definition is None:
            return None
        running = self._vm.pid() is not None
        settings = dict(definition.settings)
        if running:
            settings = _both(self._vm.running_settings() | self._vm.connected_to(), settings)
        settings["folderAccess"] = self._vm.access()
        marker = definition.marker
        return VmSeen(
            name=self._vm.name,
            running=running,
            settings=settings,
            marker=marker,
            disk=marker.image if self._vm.disk(marker.image).exists() else None,
            seed=marker.seed if self._vm.seed(marker.seed).exists() else None,
        )

    def _observe_switch(self) -> SwitchSeen | None:
        shown = run(["ip", "-n", self._switch_namespace, "-j", "link", "show", "type", "bridge"])
        names = {link["ifname"] for link in json.loads(shown.stdout or "[]")}
        name = self._switch
        return SwitchSeen(name) if name in names else None

    def _create(self, vm: VmWanted, deliver: Callable[[], Delivery], before: Marker | None) -> None:
        self._vm.delete()
        delivery = deliver()
        marker = new_marker(vm, delivery.host_key, before)
        self._vm.create(Definition(vm.settings, marker), image=delivery.image(), seed=delivery.seed)

    def _set(self, step: SetVm) -> None:
        self._vm.protect()
        if self._vm.pid():
            settings = step.vm.settings
            self._vm.connect_to(str(settings["switch"]), int(settings["vlan"]))
        self._redefine(step.settings)

    def _redefine(self, settings: Mapping[str, Any]) -> None:
        definition = self._vm.definition()
        if definition is not None:
            self._vm.define(replace(definition, settings={**definition.settings, **settings}))


def _both(now: Mapping[str, Any], at_the_next_start: Mapping[str, Any]) -> dict[str, Any]:
    """What runs, and where the definition says otherwise both: each of them is drift."""
    both = {**at_the_next_start, **now}
    for name, value in at_the_next_start.items():
        if both[name] != value:
            both[name] = f"{both[name]}, {value} at the next start"
    return both
