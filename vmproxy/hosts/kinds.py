"""Every kind of host, by how the site file says that it is reached."""

from __future__ import annotations

from vmproxy.hosts.hyperv.kind import HYPERV
from vmproxy.hosts.linux.kind import LINUX
from vmproxy.hosts.protocols import Kind
from vmproxy.model.topology import Carrier
from vmproxy.site.model import Hyperv, Qemu

_KINDS: dict[type[Hyperv | Qemu], Kind] = {Hyperv: HYPERV, Qemu: LINUX}


def kind_of(carrier: Carrier) -> Kind:
    return _KINDS[type(carrier.connection)]
