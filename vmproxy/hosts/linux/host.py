"""The embedded host: this Linux machine. QEMU is its hypervisor, a bridge its switch, and a network
namespace of the lab plays the Windows host: its routes are the host's routes."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Literal, assert_never

import filelock

from vmproxy.errors import Busy, ToolFailed, UsageError, VmproxyError
from vmproxy.hosts.linux.probe import try_connection
from vmproxy.hosts.linux.vm import Definition, QemuVm, free_memory
from vmproxy.hosts.protocols import Answer, Connection, Delivery, Report
from vmproxy.model.net import Address, Network, Route
from vmproxy.model.seen import HostSeen, Marker, SwitchSeen, VmSeen
from vmproxy.model.steps import (
    CreateVm,
    DeleteVm,
    HostStep,
    MarkRoutes,
    ReconfigureVm,
    RemoveRoute,
    SetRoute,
    SetVm,
    StartVm,
    VmWanted,
)
from vmproxy.site.model import Host, Site
from vmproxy.util import netns, paths
from vmproxy.util.run import run

_LOCK_SECONDS = 60.0


class QemuHost:
    """`deliver` is called when a VM is made: it brings the image and a fresh seed."""

    def __init__(self, site: Site, host: Host, *, deliver: Callable[[], Delivery]) -> None:
        assert host.qemu is not None
        self._host = host
        self._namespace = f"vmproxy-{host.qemu.lab}-host"
        self._switch_namespace = f"vmproxy-{host.qemu.lab}-switch"
        self._deliver = deliver
        self._state = paths.state_dir("qemu", host.qemu.lab)
        name = site.vm_name(host)
        self._vm = QemuVm(name, folder=self._state / name, switch_namespace=self._switch_namespace)

    def __enter__(self) -> QemuHost:
        if os.geteuid() != 0:
            raise UsageError(f"cannot work on {self._host.name}: root is needed", hint="run it with sudo")
        for namespace in (self._namespace, self._switch_namespace):
            if not netns.exists(namespace):
                raise VmproxyError(
                    f"cannot reach {self._host.name}: the namespace {namespace} is not there",
                    hint="run: vmproxy lab up",
                )
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @contextmanager
    def lock(self, report: Report) -> Iterator[None]:
        lock = filelock.FileLock(self._state / f"{self._vm.name}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            report(f"another vmproxy works on {self._host.name}: waiting for it")
            self._wait_for(lock)
        try:
            yield
        finally:
            lock.release()

    def settings(self) -> dict[str, object]:
        return {}

    def observe(self) -> HostSeen:
        return HostSeen(
            vm=self._observe_vm(),
            switch=self._observe_switch(),
            routes=self._routes(),
            free_memory=free_memory(),
            free_disk=shutil.disk_usage(self._state).free,
        )

    def check(self, steps: Sequence[HostStep]) -> None:
        """A VM that runs goes on running when its new size cannot be had."""
        for step in steps:
            if isinstance(step, CreateVm | ReconfigureVm):
                self._vm.check_memory(int(step.vm.settings["memory"]))

    def do(self, step: HostStep, report: Report) -> None:  # noqa: ARG002 (the protocol's)
        match step:
            case CreateVm():
                self._create(step.vm)
            case StartVm():
                self._vm.start()
            case SetVm():
                self._set(step.vm.settings)
            case ReconfigureVm():
                self._vm.stop()
                self._redefine(step.vm.settings)
                self._vm.start()
            case DeleteVm():
                self._vm.delete()
            case SetRoute():
                self._add_route(step)
            case RemoveRoute():
                self._unset_route(step.route)
                self._mark(step.routes)
            case MarkRoutes():
                self._mark(step.routes)
            case _:
                assert_never(step)

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        return [try_connection(item, self._socket, via=self._via(item.address)) for item in connections]

    def trial(self, connection: Connection, via: Address) -> Answer:
        route = Route(ip_network(connection.address), via)
        before = self._marker().routes
        self._mark((*before, route))
        try:
            self._set_route(route)
            return self.probe([connection])[0]
        finally:
            self._unset_route(route)
            self._mark(before)

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

    def ssh_command(self) -> list[str]:
        return netns.run_in(self._namespace, ["ssh"])

    def symptoms(self) -> list[str]:
        return []

    def image_format(self) -> Literal["raw", "vhdx"]:
        return "raw"

    def _wait_for(self, lock: filelock.BaseFileLock) -> None:
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except filelock.Timeout as exc:
            raise Busy(
                f"cannot change {self._host.name}: another vmproxy has worked on it for "
                f"{_LOCK_SECONDS:.0f} s and goes on",
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
        name = self._host.switch.name
        return SwitchSeen(name) if name in names else None

    def _routes(self) -> tuple[Route, ...]:
        shown = run(["ip", "-n", self._namespace, "-j", "-4", "route", "show"])
        routes = [entry for entry in json.loads(shown.stdout or "[]") if entry.get("protocol") != "kernel"]
        found = (Route(_prefix(entry["dst"]), _address(entry.get("gateway"))) for entry in routes)
        return tuple(dict.fromkeys(found))

    def _via(self, address: Address) -> Address | None:
        shown = run(["ip", "-n", self._namespace, "-j", "route", "get", str(address)], ok=(0, 2))
        entries = json.loads(shown.stdout or "[]")
        return _address(entries[0].get("gateway")) if entries else None

    def _socket(self, connection: Connection) -> socket.socket:
        return netns.open_socket(self._namespace, connection.protocol)

    def _create(self, vm: VmWanted) -> None:
        self._vm.delete()
        delivery = self._deliver()
        marker = Marker(vm.site, vm.host, vm.address, vm.seed, vm.image, delivery.host_key)
        self._vm.create(Definition(vm.settings, marker), image=delivery.image(), seed=delivery.seed)

    def _set(self, settings: Mapping[str, Any]) -> None:
        if self._vm.pid():
            self._vm.connect_to(str(settings["switch"]), int(settings["vlan"]))
        self._redefine(settings)

    def _add_route(self, step: SetRoute) -> None:
        route = step.route
        self._mark((*self._marker().routes, route))
        self._set_route(route)
        for other in self._routes():
            if other.prefix == route.prefix and other != route:
                self._unset_route(other)
        if route not in self._routes():
            raise ToolFailed(f"cannot route {route.prefix} on {self._host.name}: the route is not there")
        self._mark(step.routes)

    def _set_route(self, route: Route) -> None:
        run(["ip", "-n", self._namespace, "route", "replace", str(route.prefix), "via", str(route.via)])

    def _unset_route(self, route: Route) -> None:
        via = ["via", str(route.via)] if route.via else []
        run(["ip", "-n", self._namespace, "route", "del", str(route.prefix), *via], ok=(0, 2))

    def _marker(self) -> Marker:
        definition = self._vm.definition()
        if definition is None:
            raise VmproxyError(
                f"cannot set a route on {self._host.name}: the VM is gone", hint="run it again"
            )
        return definition.marker

    def _mark(self, routes: tuple[Route, ...]) -> None:
        definition = self._vm.definition()
        if definition is not None:
            unique = tuple(dict.fromkeys(routes))
            self._vm.define(replace(definition, marker=replace(definition.marker, routes=unique)))

    def _redefine(self, settings: Mapping[str, Any]) -> None:
        definition = self._vm.definition()
        if definition is not None:
            self._vm.define(replace(definition, settings=settings))


def _both(now: Mapping[str, Any], at_the_next_start: Mapping[str, Any]) -> dict[str, Any]:
    """What runs, and where the definition says otherwise both: each of them is drift."""
    both = {**at_the_next_start, **now}
    for name, value in at_the_next_start.items():
        if both[name] != value:
            both[name] = f"{both[name]}, {value} at the next start"
    return both


def _prefix(destination: str) -> Network:
    """`ip` writes "default" and leaves out /32."""
    return ip_network("0.0.0.0/0" if destination == "default" else destination)


def _address(text: str | None) -> Address | None:
    return ip_address(text) if text else None
