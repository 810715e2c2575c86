"""The embedded host: this Linux machine. QEMU is its hypervisor, a bridge its switch, and a network
namespace of the lab plays the Windows host: its routes are the client's routes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vmproxy.errors import UsageError, VmproxyError
from vmproxy.hosts.linux import doctor
from vmproxy.hosts.linux.carrier import QemuCarrier
from vmproxy.hosts.linux.client import NamespaceClient
from vmproxy.hosts.linux.vm import ONLY_OWNER
from vmproxy.hosts.protocols import Drivers, Kind
from vmproxy.model.topology import Client, Vm
from vmproxy.site.model import Qemu
from vmproxy.transport.accounts import Accounts
from vmproxy.util import netns


@contextmanager
def _open(vm: Vm, client: Client, _accounts: Accounts) -> Iterator[Drivers]:
    assert isinstance(vm.carrier.connection, Qemu)
    lab = vm.carrier.connection.lab
    if os.geteuid() != 0:
        raise UsageError(f"cannot work on {vm.carrier.name}: root is needed", hint="run it with sudo")
    host, switch = f"vmproxy-{lab}-host", f"vmproxy-{lab}-switch"
    for namespace in (host, switch):
        if not netns.exists(namespace):
            raise VmproxyError(
                f"cannot reach {vm.carrier.name}: the namespace {namespace} is not there",
                hint="run: vmproxy lab up",
            )
    yield Drivers(
        QemuCarrier(vm, lab=lab, namespace=host, switch_namespace=switch),
        NamespaceClient(client.name, namespace=host),
    )


LINUX = Kind(
    name="qemu",
    image_format="raw",
    fetches=False,
    local=True,
    scripts=(),
    settings=lambda _: {"folderAccess": ONLY_OWNER},
    hot=frozenset({"switch", "vlan", "folderAccess"}),
    fixed=frozenset(),
    needs=lambda vm, _converts: doctor.needs(vm),
    findings=lambda _vm, _facts: iter(()),
    open=_open,
)
