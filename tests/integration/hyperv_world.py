"""The same lab with an emulated Windows host in it: the VM is Hyper-V's, the controller one more machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import hypervisors
from tests.hypervisors import Tier
from tests.integration.world import SITE, World
from tests.winhost import beside
from tests.winhost.host import WinHost
from tests.winhost.hyperv.machine import Machines
from tests.winhost.hyperv.model import VM, hyperv
from tests.winhost.warm import Pool
from vmproxy import lab
from vmproxy.util import wait


@dataclass
class HypervWorld(World):
    """Commands run in the lab's client, where WinRM of `windows` listens on loopback, with their own keys."""

    windows: WinHost

    @property
    def controller(self) -> str:
        return self.status.namespaces["client"]

    def original(self) -> dict[str, Any]:
        assert self.status.site is not None
        password = {"file": str(self.folder / "password")}
        kubeconfig = self.folder / "kubeconfig"
        site = beside.site(self.status.site, self.windows, kubeconfig=kubeconfig, password=password)
        return {**site, "name": SITE}

    def end_lost_sessions(self) -> None:
        self.windows.service.end()

    def has_vm(self) -> bool:
        folder = self.windows.drive / "ProgramData/vmproxy"
        return bool(hyperv(self.windows.state).vms) or folder.exists()

    def started(self) -> str:
        return str(self._vm().started)

    def kill_vm(self) -> None:
        """Its worker process dies: Hyper-V sees it off."""
        self.clean = False
        vm = self._vm()
        os.kill(self.windows.state.part(Machines).running[vm.id].process.pid, signal.SIGKILL)
        wait.until("the VM to be off", lambda: vm.state == "Off" or vm.state, timeout=20, every=0.1)

    def remove_disk(self) -> None:
        self.clean = False
        (disk,) = self._folder().glob("disk-*.vhdx")
        disk.unlink()

    def remove_vm(self) -> None:
        """By hand, as Remove-VM does it: its files stay."""
        hyperv(self.windows.state).vms.pop(self._vm().id)

    def _vm(self) -> VM:
        (vm,) = (vm for vm in hyperv(self.windows.state).vms.values() if vm.name.startswith("vmproxy-"))
        return vm

    def _folder(self) -> Path:
        return self.windows.drive / "ProgramData/vmproxy" / self._vm().name

    def prepare(self) -> None:
        """The password, and a kubeconfig for a machine of the lab."""
        with os.fdopen(os.open(self.folder / "password", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(self.windows.password)
        assert self.status.kubeconfig is not None
        beside.write_kubeconfig(self.status.kubeconfig, self.folder / "kubeconfig")


@contextmanager
def bring_up(name: str, folder: Path, *, tier: Tier = "vm") -> Iterator[HypervWorld]:
    """The lab has to be taken down by the caller."""
    status = lab.up(name=name, report=print)
    with WinHost(beside.machine(name), powershells=Pool(keep=tier == "container")) as windows:
        if tier == "container":
            windows.state.part(Machines).hypervisor = str(hypervisors.program(tier))
        world = HypervWorld(status, name, folder, windows, tier=tier)
        world.prepare()
        world.reset()
        yield world
