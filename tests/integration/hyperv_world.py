"""The same lab with an emulated Windows host in it: the VM is Hyper-V's, the controller one more machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.integration.world import World
from tests.winhost.host import Machine, WinHost
from tests.winhost.hyperv.machine import Machines
from tests.winhost.hyperv.model import VM, hyperv
from vmproxy import lab, netns, wait
from vmproxy.lab.cluster import SERVER
from vmproxy.lab.network import BRIDGE, Network

SITE = "it"
"""The same as on the embedded host, whatever the lab's name: tests name what is made for it."""


@dataclass
class HypervWorld(World):
    """Commands run in the lab's client, where WinRM of `windows` listens on loopback."""

    windows: WinHost

    def command(self, *words: str) -> list[str]:
        return netns.run_in(self.status.namespaces["client"], super().command(*words))

    def original(self) -> dict[str, Any]:
        site = super().original()
        site["name"] = SITE
        (host,) = site["hosts"]
        del host["qemu"]
        host["hyperv"] = {
            "endpoint": self.windows.endpoint,
            "username": self.windows.administrator.name,
            "password": {"file": str(self.folder / "password")},
            "ca": str(self.windows.ca),
        }
        host["switch"] = {"name": "External"}
        site["cluster"]["kubeconfig"] = str(self.folder / "kubeconfig")
        return site

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
        """The password, and a kubeconfig for a machine of the lab: the API server by its own address."""
        with os.fdopen(os.open(self.folder / "password", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(self.windows.password)
        assert self.status.kubeconfig is not None
        kubeconfig = YAML(typ="safe").load(self.status.kubeconfig)
        kubeconfig["clusters"][0]["cluster"]["server"] = SERVER
        with os.fdopen(os.open(self.folder / "kubeconfig", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            YAML().dump(kubeconfig, file)


@contextmanager
def bring_up(name: str, folder: Path) -> Iterator[HypervWorld]:
    """The lab has to be taken down by the caller."""
    status = lab.up(name=name, report=print)
    network = Network(name)
    machine = Machine(
        namespace=network.namespace("host"),
        listen_namespace=network.namespace("client"),
        switch_namespace=network.namespace("switch"),
        bridges={"External": BRIDGE},
    )
    with WinHost(machine) as windows:
        world = HypervWorld(status, name, folder, windows)
        world.prepare()
        world.reset()
        yield world
