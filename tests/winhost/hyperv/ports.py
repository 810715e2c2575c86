"""The management system's own ports on its switches: each is a network interface of the host.

The one that a host with an external switch has from the start is the namespace's eth0.
"""

from __future__ import annotations

from hashlib import sha256

from tests.winhost.engine import not_emulated
from tests.winhost.hyperv.model import Adapter, Switch, hyperv
from tests.winhost.net.state import Interface, Network, kernel
from tests.winhost.state import Host
from vmproxy.run import run

FIRST = "eth0"


def link(host: Host, adapter: Adapter) -> str:
    """The interface's device in the host's namespace."""
    return f"vp{_hash(adapter)}" if adapter.id in hyperv(host).ports else FIRST


def _peer(adapter: Adapter) -> str:
    """The other end, on the switch's bridge."""
    return f"vq{_hash(adapter)}"


def _hash(adapter: Adapter) -> str:
    return sha256(adapter.id.encode()).hexdigest()[:10]


def address(host: Host, adapter: Adapter) -> str:
    """The interface's MAC, twelve digits; without a namespace the adapter's own."""
    if host.namespace is None:
        return adapter.mac
    found = (one.mac for one in kernel(host).links() if one.name == link(host, adapter))
    return next(found, adapter.mac).replace("-", "").replace(":", "").upper()


def give(host: Host, switch: Switch, name: str) -> Adapter:
    """A new port; without namespaces it is there in name only."""
    adapter = Adapter(None, name, switch.id)
    part = hyperv(host)
    part.management.append(adapter)
    part.ports.add(adapter.id)
    if switch.bridge is None or host.namespace is None:
        return adapter
    inside, peer = link(host, adapter), _peer(adapter)
    ours = ["ip", "-n", str(host.switch_namespace), "link"]
    run([*ours, "add", peer, "type", "veth", "peer", "name", inside, "netns", host.namespace])
    run([*ours, "set", peer, "master", switch.bridge, "up"])
    run(["ip", "-n", host.namespace, "link", "set", inside, "up"])
    interfaces = host.part(Network).interfaces
    described = f"Hyper-V Virtual Ethernet Adapter #{len(interfaces) + 1}"
    interfaces[inside] = Interface(f"vEthernet ({name})", described)
    return adapter


def rename(host: Host, adapter: Adapter, name: str) -> None:
    """The interface is called after it."""
    adapter.name = name
    interface = host.part(Network).interfaces.get(link(host, adapter))
    if interface is not None:
        interface.alias = f"vEthernet ({name})"


def take(host: Host, adapter: Adapter) -> None:
    part = hyperv(host)
    if adapter.id not in part.ports:
        raise not_emulated("taking away the interface that the host is reached by")
    host.part(Network).interfaces.pop(link(host, adapter), None)
    if host.namespace is not None:
        run(["ip", "-n", str(host.switch_namespace), "link", "del", _peer(adapter)], ok=(0, 1))
    part.management.remove(adapter)
    part.ports.discard(adapter.id)
