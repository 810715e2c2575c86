"""A Windows host with Hyper-V: one powershell.exe over WinRM does all of a run's work on it.

The scripts are in templates/powershell; what they need travels beside them as JSON. The process
holds the host's lock, and ends by itself soon after vmproxy does.
"""

from __future__ import annotations

import base64
import gzip
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Literal, assert_never

from vmproxy.errors import Busy, NotReady, VmproxyError
from vmproxy.hosts.hyperv import login, notes
from vmproxy.hosts.hyperv.errors import explained
from vmproxy.hosts.hyperv.image import Bringer, Shell, tidy
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.hosts.hyperv.probe import answers_of, lines_of, question
from vmproxy.hosts.hyperv.seen import ONLY_US, Asked, parse
from vmproxy.hosts.protocols import Answer, Connection, Delivery, Report
from vmproxy.model.names import UEFI_CA
from vmproxy.model.net import Address, Route, sample
from vmproxy.model.seen import HostSeen, Marker
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
from vmproxy.transport.powershell import PowerShellFailed
from vmproxy.util import wait

_log = logging.getLogger(__name__)

_LOCK_SECONDS = 330.0
"""Longer than the process of a controller that died lives on: a minute when it waits for work, as long as
its shell may be idle when it is in the middle of some."""
_STOP_SECONDS = 420.0
_COPY_SECONDS = 1800.0
_RUNS = {"Running", "Starting"}


class HypervHost:
    """`deliver` is called when a VM is made; `connect` opens the PowerShell (tests give their own)."""

    def __init__(
        self,
        site: Site,
        host: Host,
        *,
        deliver: Callable[[], Delivery],
        connect: Callable[[Host], AbstractContextManager[Shell]] = login.connect,
    ) -> None:
        assert host.hyperv is not None
        self._host = host
        self._site = site
        self._deliver = deliver
        self._connect = connect
        self._stack = ExitStack()
        self._paths = Paths(host.hyperv.directory, site.vm_name(host))
        self._pipe = f"{self._paths.vm}-com1"
        self._seen: HostSeen | None = None
        self._marker: Marker | None = None
        self._watching = False

    def __enter__(self) -> HypervHost:
        with ExitStack() as stack:
            self._shell = stack.enter_context(self._connect(self._host))
            self._run("lib.ps1", "start PowerShell")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @contextmanager
    def lock(self, report: Report) -> Iterator[None]:
        if not self._took_lock():
            report(f"another vmproxy works on {self._host.name}: waiting for it")
            self._wait_for_lock()
        try:
            yield
        except VmproxyError:
            self._unlock_after_failure()
            raise
        self._run("unlock.ps1", "give the lock back", self._folder())

    def settings(self) -> dict[str, object]:
        return {
            "generation": 2,
            "dynamicMemory": False,
            "secureBoot": UEFI_CA,
            "macSpoofing": False,
            "checkpoints": "Disabled",
            "automaticCheckpoints": False,
            "start": "Start",
            "startDelay": 0,
            "stop": "ShutDown",
            "timeSync": True,
            "guestShutdown": True,
            "com1": rf"\\.\pipe\{self._pipe}",
            "folderAccess": ONLY_US,
        }

    def observe(self) -> HostSeen:
        if self._watching:
            self._watch(close=True)
        data = {**self._folder(), "switch": self._host.switch.name}
        address = str(self._host.network.address)
        asked = Asked(self._host.name, self._site.name, self._host.switch.name, address, self._paths)
        self._seen = parse(self._run("observe.ps1", "look at Hyper-V and the routes", data), asked)
        self._marker = self._seen.vm.marker if self._seen.vm else None
        return self._seen

    def check(self, steps: Sequence[HostStep]) -> None:
        """Hyper-V itself refuses a size that it cannot give, before it changes anything."""

    def do(self, step: HostStep, report: Report) -> None:
        try:
            self._do(step, report)
        except PowerShellFailed as exc:
            raise explained(exc, f"{step.verb} {step.target}", self._host.name) from exc

    def _do(self, step: HostStep, report: Report) -> None:
        match step:
            case CreateVm():
                self._create(step.vm, report)
            case StartVm():
                self._start()
            case SetVm():
                self._configure(step.vm.settings, cold=False)
            case ReconfigureVm():
                self._reconfigure(step.vm.settings, report)
            case DeleteVm():
                self._delete()
            case SetRoute():
                self._add_route(step)
            case RemoveRoute():
                self._remove_route(step)
            case MarkRoutes():
                self._mark_routes(step.routes)
            case _:
                assert_never(step)

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        return self._probe(connections, None)

    def trial(self, connection: Connection, via: Address) -> Answer:
        """The marker names the route while it is there: it is known as ours if the host stops meanwhile."""
        marker = self._known_marker()
        trial = Route(ip_network(connection.address), via)
        during = replace(marker, routes=(*marker.routes, trial))
        route = {
            **_plain(trial),
            "during": notes.block(during),
            "after": notes.block(marker),
        }
        return self._probe([connection], route)[0]

    def examine(self) -> dict[str, Any]:
        """doctor.ps1's facts about the host."""
        data = {"address": str(self._host.network.address.ip)}
        facts: dict[str, Any] = self._run("doctor.ps1", "look at the host", data)
        return facts

    def open_guest(self, address: Address, port: int) -> socket.socket:
        return socket.create_connection((str(address), port), timeout=10.0)

    def console(self, lines: int) -> list[str]:
        return [str(line) for line in lines_of(self._watch(lines=lines))]

    def died(self) -> str | None:
        state = self._watch()["state"]
        return None if state in _RUNS else f"it is {state or 'gone'}"

    def symptoms(self) -> list[str]:
        seen = self._watch(detailed=True)
        neighbour = seen["neighbour"]
        there = f"{neighbour['mac']} ({neighbour['state']})" if neighbour else "nothing"
        address = self._host.network.address.ip
        return [
            f"state: {seen['state']}, heartbeat: {seen['heartbeat'] or 'none'}",
            f"neighbour at {address}: {there}",
        ]

    def ssh_command(self) -> list[str]:
        return ["ssh"]

    def image_format(self) -> Literal["raw", "vhdx"]:
        return "vhdx"

    # The lock.

    def _took_lock(self) -> bool:
        return bool(self._run("lock.ps1", "take the lock", self._folder())["held"])

    def _wait_for_lock(self) -> None:
        def probe() -> bool | str:
            return self._took_lock() or "it goes on"

        try:
            wait.until("the lock", probe, timeout=_LOCK_SECONDS, every=2.0)
        except NotReady as exc:
            raise Busy(
                f"cannot change {self._host.name}: another vmproxy has worked on it for "
                f"{_LOCK_SECONDS:.0f} s and goes on",
                hint="wait for it to end, then run again",
            ) from exc

    def _unlock_after_failure(self) -> None:
        try:
            self._run("unlock.ps1", "give the lock back", self._folder())
        except VmproxyError as exc:
            _log.info("%s", exc)  # the lock ends with the process

    # The VM.

    def _create(self, vm: VmWanted, report: Report) -> None:
        delivery = self._deliver()
        there = self._seen is not None and vm.image in self._seen.images
        Bringer(self._shell, self._paths, self._host.name, report).bring(vm.image, delivery, there=there)
        marker = self._new_marker(vm, delivery.host_key)
        report(f"making the VM's disk from the image on {self._host.name}")
        data = {
            **self._folder(),
            "marker": notes.block(marker),
            "base": self._paths.base(vm.image),
            "disk": self._paths.disk(vm.image),
            "seed": self._paths.seed(marker.seed),
            "seedData": base64.b64encode(gzip.compress(delivery.seed, mtime=0)).decode(),
            **{name: vm.settings[name] for name in ("memory", "mac", "switch")},
        }
        self._shell.call("create.ps1", data, timeout=_COPY_SECONDS)
        self._marker = marker
        self._configure(vm.settings, cold=True)

    def _new_marker(self, vm: VmWanted, host_key: str) -> Marker:
        """Routes that stay while the VM is made anew are still known as ours."""
        routes = self._marker.routes if self._marker else ()
        return Marker(vm.site, vm.host, vm.address, vm.seed, vm.image, host_key, routes)

    def _start(self) -> None:
        self._shell.call("start.ps1", self._folder(), timeout=_STOP_SECONDS)

    def _reconfigure(self, settings: Mapping[str, Any], report: Report) -> None:
        report("shutting the VM down")
        self._shell.call("stop.ps1", self._folder(), timeout=_STOP_SECONDS)
        self._configure(settings, cold=True)
        self._start()

    def _configure(self, settings: Mapping[str, Any], *, cold: bool) -> None:
        data = {**self._folder(), "settings": dict(settings), "cold": cold}
        self._shell.call("configure.ps1", data)

    def _delete(self) -> None:
        self._shell.call("delete.ps1", self._folder(), timeout=_STOP_SECONDS)
        self._marker = None
        tidy(self._shell, self._paths, image=None, part=None)

    # The routes.

    def _add_route(self, step: SetRoute) -> None:
        marker, route = self._known_marker(), step.route
        added = {**_plain(route), "sample": str(sample(route.prefix))}
        self._route(
            {"remove": [_plain(item) for item in step.before], "add": added},
            during=replace(marker, routes=tuple(dict.fromkeys((*marker.routes, route)))),
            after=replace(marker, routes=step.routes),
        )

    def _remove_route(self, step: RemoveRoute) -> None:
        after = replace(self._marker, routes=step.routes) if self._marker else None
        self._route({"remove": [_plain(step.route)], "add": None}, during=self._marker, after=after)

    def _route(self, change: dict[str, Any], *, during: Marker | None, after: Marker | None) -> None:
        blocks = {
            "during": notes.block(during) if during else "",
            "after": notes.block(after) if after else "",
        }
        self._shell.call("route.ps1", {**self._folder(), **change, **blocks})
        self._marker = after

    def _mark_routes(self, routes: tuple[Route, ...]) -> None:
        marker = replace(self._known_marker(), routes=routes)
        self._shell.call("mark.ps1", {**self._folder(), "marker": notes.block(marker)})
        self._marker = marker

    def _known_marker(self) -> Marker:
        if self._marker is None:
            raise VmproxyError(
                f"cannot set a route on {self._host.name}: the VM is gone", hint="run it again"
            )
        return self._marker

    # Looking.

    def _probe(self, connections: Sequence[Connection], trial: dict[str, str] | None) -> list[Answer]:
        data = {**self._folder(), "connections": [question(item) for item in connections], "trial": trial}
        answers: list[Any] = []
        self._run(
            "probe.ps1", "try connections", data, timeout=60.0 + 6 * len(connections), each=answers.append
        )
        return answers_of(answers)

    def _watch(self, *, lines: int = 0, detailed: bool = False, close: bool = False) -> dict[str, Any]:
        """The first look waits for what the console says; later ones take what has come since."""
        data = {
            **self._folder(),
            "pipe": self._pipe,
            "address": str(self._host.network.address.ip),
            "wait": 50 if self._watching else 1000,
            "lines": lines,
            "detailed": detailed,
            "close": close,
        }
        self._watching = not close
        seen: dict[str, Any] = self._run("watch.ps1", "look at the VM", data)
        return seen

    def _folder(self) -> dict[str, str]:
        """What every script takes to find the VM and its files."""
        paths = self._paths
        return {
            "vm": paths.vm,
            "directory": paths.directory,
            "lock": paths.lock,
            "folder": paths.folder,
            "pending": paths.pending,
        }

    def _run(
        self,
        script: str,
        doing: str,
        data: dict[str, Any] | None = None,
        *,
        timeout: float = 120.0,
        each: Callable[[Any], None] | None = None,
    ) -> Any:
        try:
            return self._shell.call(script, data, timeout=timeout, each=each)
        except PowerShellFailed as exc:
            raise explained(exc, doing, self._host.name) from exc


def _plain(route: Route) -> dict[str, str]:
    return {"prefix": str(route.prefix), "via": str(route.via or "")}
