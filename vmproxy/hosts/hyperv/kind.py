"""A Windows host with Hyper-V, reached by WinRM: it carries the VM, and its own traffic goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from vmproxy.hosts import controller
from vmproxy.hosts.hyperv import doctor, login, settings
from vmproxy.hosts.hyperv.carrier import HypervCarrier
from vmproxy.hosts.hyperv.client import WindowsClient
from vmproxy.hosts.hyperv.containers import WindowsContainers
from vmproxy.hosts.hyperv.image import Shell
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.hosts.hyperv.session import Session
from vmproxy.hosts.protocols import Drivers, Kind
from vmproxy.model.topology import Client, Vm
from vmproxy.site.model import Hyperv
from vmproxy.transport.accounts import Accounts

Connect = Callable[[Hyperv, str], AbstractContextManager[Shell]]
"""From the site file's `hyperv` and the host's name to its PowerShell."""


@contextmanager
def open_host(
    vm: Vm,
    client: Client,  # noqa: ARG001 (the carrier itself)
    accounts: Accounts | None = None,
    *,
    connect: Connect | None = None,
) -> Iterator[Drivers]:
    """`connect` opens the PowerShell; tests give their own."""
    connect = connect or partial(login.connect, accounts=accounts or Accounts())
    assert isinstance(vm.carrier.connection, Hyperv)
    paths = Paths(vm.carrier.connection.directory, vm.name)
    with connect(vm.carrier.connection, vm.carrier.name) as shell:
        session = Session(shell, vm.carrier.name, paths)
        session.run("lib.ps1", "start PowerShell")
        yield Drivers(HypervCarrier(vm, session), WindowsClient(session), WindowsContainers(session))


HYPERV = Kind(
    name="hyperv",
    image_format="vhdx",
    fetches=True,
    local=False,
    scripts=("powershell",),
    settings=settings.own,
    hot=settings.HOT,
    fixed=settings.FIXED,
    needs=lambda _vm, converts: controller.needs(converts=converts),
    findings=doctor.findings,
    open=open_host,
)
