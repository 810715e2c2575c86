"""A VM of Hyper-V: the scripts in templates/powershell do the work, what they need travels beside them."""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, assert_never

from vmproxy.errors import Busy, NotReady, VmproxyError
from vmproxy.hosts.hyperv import notes, switch
from vmproxy.hosts.hyperv.image import Bringer, tidy
from vmproxy.hosts.hyperv.probe import lines_of
from vmproxy.hosts.hyperv.seen import Asked, parse
from vmproxy.hosts.hyperv.session import Session
from vmproxy.hosts.protocols import Delivery
from vmproxy.model import names
from vmproxy.model.net import Address
from vmproxy.model.seen import CarrierSeen, Entrance, Marker
from vmproxy.model.steps import (
    CreateSwitch,
    CreateVm,
    DeleteVm,
    ReconfigureVm,
    RemoveSwitch,
    SetSwitch,
    SetVm,
    StartVm,
    SwitchStep,
    VmStep,
    VmWanted,
    new_marker,
)
from vmproxy.model.topology import Vm
from vmproxy.site.model import Hyperv
from vmproxy.util import wait
from vmproxy.util.events import Report

_log = logging.getLogger(__name__)

_LOCK_SECONDS = 330.0
"""Longer than the process of a controller that died lives on: a minute when it waits for work, as long as
its shell may be idle when it is in the middle of some."""
_STOP_SECONDS = 420.0
_COPY_SECONDS = 1800.0
_RUNS = {"Running", "Starting"}


class HypervCarrier:
    """One VM, through `session`."""

    def __init__(self, vm: Vm, session: Session) -> None:
        self._about = vm
        self._name = vm.carrier.name
        self._session = session
        self._paths = session.paths
        self._images: frozenset[str] = frozenset()
        self._watching = False
        self._entrance: Entrance | None = None

    @contextmanager
    def lock(self, report: Report) -> Iterator[None]:
        if not self._took_lock():
            report(f"another vmproxy works on {self._name}: waiting for it")
            self._wait_for_lock()
        try:
            yield
        except VmproxyError:
            self._unlock_after_failure()
            raise
        self._session.run("unlock.ps1", "give the lock back")

    def observe(self) -> CarrierSeen:
        if self._watching:
            self._watch(close=True)
        vm, own = self._about, self._about.carrier.own
        mark = names.mark(vm.site, vm.host)
        asked = Asked(self._name, vm.site, vm.carrier.switch, self._paths, mark)
        data = {"switch": vm.carrier.switch, "wantsOwn": own is not None}
        facts = self._session.run("observe.ps1", "look at Hyper-V", data)
        seen = parse(facts, asked)
        self._images = seen.images
        if own is not None and own.nat:
            assert isinstance(vm.carrier.connection, Hyperv)
            near = switch.host_addresses(facts["own"])
            self._entrance = switch.entrance(vm.carrier.connection.endpoint, near, beside=own.host.network)
        return replace(seen, entrance=self._entrance)

    def check(self, steps: Sequence[VmStep]) -> None:
        """Hyper-V itself refuses a size that it cannot give, before it changes anything."""

    def do(
        self, step: VmStep, deliver: Callable[[], Delivery], marker: Marker | None, report: Report
    ) -> None:
        with self._session.explaining(f"{step.verb} {step.target}"):
            match step:
                case CreateVm():
                    self._create(step.vm, deliver(), marker, report)
                case StartVm():
                    self._start()
                case SetVm():
                    self._configure(step.vm, step.settings)
                case ReconfigureVm():
                    self._reconfigure(step, report)
                case DeleteVm():
                    self._delete()
                case _:
                    assert_never(step)

    def change_switch(self, step: SwitchStep) -> None:
        with self._session.explaining(f"{step.verb} {step.target}"):
            match step:
                case CreateSwitch() | SetSwitch():
                    self._session.call("switch.ps1", switch.settings(step))
                case RemoveSwitch():
                    mark = names.mark(self._about.site, self._about.host)
                    self._session.call("unswitch.ps1", {"mark": mark})
                case _:
                    assert_never(step)

    def mark(self, marker: Marker) -> None:
        self._session.run("mark.ps1", "write the marker", {"marker": notes.block(marker)})

    def examine(self) -> Mapping[str, Mapping[str, Any]]:
        facts: dict[str, dict[str, Any]] = self._session.run(
            "doctor.ps1",
            "look at the host",
            {"address": str(self._about.address.ip), "switch": self._about.carrier.switch},
        )
        return facts

    def open_guest(self, address: Address, port: int) -> socket.socket:
        to = (str(address), port)
        if self._entrance is not None and self._is_behind(address):
            to = (str(self._entrance.host), names.MAPPED_PORT)
        return socket.create_connection(to, timeout=10.0)

    def _is_behind(self, address: Address) -> bool:
        """On its own switch, with the host's NAT before it."""
        own = self._about.carrier.own
        return own is not None and own.nat and address in own.host.network

    def console(self, lines: int) -> list[str]:
        return [str(line) for line in lines_of(self._watch(lines=lines))]

    def died(self) -> str | None:
        state = self._watch()["state"]
        return None if state in _RUNS else f"it is {state or 'gone'}"

    def symptoms(self) -> list[str]:
        seen = self._watch(detailed=True)
        neighbour = seen["neighbour"]
        there = f"{neighbour['mac']} ({neighbour['state']})" if neighbour else "nothing"
        address = self._about.address.ip
        return [
            f"state: {seen['state']}, heartbeat: {seen['heartbeat'] or 'none'}",
            f"neighbour at {address}: {there}",
        ]

    def ssh_command(self, address: Address) -> list[str]:
        if self._entrance is None or not self._is_behind(address):
            return ["ssh"]
        options = ("-o", f"HostName={self._entrance.host}", "-o", f"HostKeyAlias={address}")
        return ["ssh", "-p", str(names.MAPPED_PORT), *options]

    # The lock.

    def _took_lock(self) -> bool:
        return bool(self._session.run("lock.ps1", "take the lock")["held"])

    def _wait_for_lock(self) -> None:
        def probe() -> bool | str:
            return self._took_lock() or "it has not finished"

        try:
            wait.until("the lock", probe, timeout=_LOCK_SECONDS, every=2.0)
        except NotReady as exc:
            raise Busy(
                f"cannot change {self._name}: another vmproxy has worked on it for "
                f"{_LOCK_SECONDS:.0f} s and has not finished",
                hint="wait for it to end, then run again",
            ) from exc

    def _unlock_after_failure(self) -> None:
        try:
            self._session.run("unlock.ps1", "give the lock back")
        except VmproxyError as exc:
            _log.info("%s", exc)  # the lock ends with the process

    # The VM.

    def _create(self, vm: VmWanted, delivery: Delivery, before: Marker | None, report: Report) -> None:
        there = vm.image in self._images
        Bringer(self._session.shell, self._paths, self._name, report).bring(vm.image, delivery, there=there)
        marker = new_marker(vm, delivery.host_key, before)
        report(f"making the VM's disk from the image on {self._name}")
        data = {
            "marker": notes.block(marker),
            "base": self._paths.base(vm.image),
            "disk": self._paths.disk(vm.image),
            "record": self._paths.record(vm.image),
            "seed": self._paths.seed(marker.seed),
            **{name: vm.settings[name] for name in ("memory", "mac", "switch")},
        }
        self._session.feed("create.ps1", data, base64.b64encode(delivery.seed), timeout=_COPY_SECONDS)
        self._configure(vm, {name: value for name, value in vm.settings.items() if name not in vm.fixed})

    def _start(self) -> None:
        self._session.call("start.ps1", timeout=_STOP_SECONDS)

    def _reconfigure(self, step: ReconfigureVm, report: Report) -> None:
        report("shutting the VM down")
        self._session.call("stop.ps1", timeout=_STOP_SECONDS)
        self._configure(step.vm, step.settings)
        self._start()

    def _configure(self, vm: VmWanted, settings: Mapping[str, Any]) -> None:
        own = {
            "mac": vm.settings["mac"],
            "disk": self._paths.disk(vm.image),
            "seed": self._paths.seed(vm.seed),
        }
        self._session.call("configure.ps1", {"settings": dict(settings), "own": own})

    def _delete(self) -> None:
        self._session.call("delete.ps1", timeout=_STOP_SECONDS)
        tidy(self._session.shell, self._paths, image=None, part=None)

    # Looking.

    def _watch(self, *, lines: int = 0, detailed: bool = False, close: bool = False) -> dict[str, Any]:
        """The first look waits for what the console says; later ones take what has come since."""
        data = {
            "pipe": self._paths.pipe(self._paths.vm),
            "address": str(self._about.address.ip),
            "wait": 50 if self._watching else 1000,
            "lines": lines,
            "detailed": detailed,
            "close": close,
        }
        self._watching = not close
        seen: dict[str, Any] = self._session.run("watch.ps1", "look at the VM", data)
        return seen
