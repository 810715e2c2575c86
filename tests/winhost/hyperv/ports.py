"""The management system's own ports on its switches: each is a network interface of the host.

The one that a host with an external switch has from the start is the namespace's eth0.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from tests.winhost.engine import not_emulated
from tests.winhost.hyperv.model import Adapter, Switch, hyperv
from tests.winhost.net.state import Interface, Network, Physical, kernel
from tests.winhost.state import Host
from vmproxy.util.run import run

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
    interfaces[inside] = Interface(f"vEthernet ({name})", described, {(4, "Dhcp"): "Enabled"})
    return adapter


def release_card(host: Host, switch: Switch) -> None:
    """An external switch goes: the host is reached by the card itself, with the same addresses."""
    part, network = hyperv(host), host.part(Network)
    part.management = [one for one in part.management if one.switch != switch.id]
    card = next(one for one in network.physical if one.description == switch.uplink)
    network.physical.remove(card)
    part.free_cards[card.description] = switch.bridge or ""
    _call_first(host, card.name, card.description)


def bind_card(host: Host, switch: Switch) -> None:
    """The way back: the host is reached by its port on the switch."""
    part, network = hyperv(host), host.part(Network)
    switch.bridge = part.free_cards.pop(switch.uplink) or None
    card = Physical(network.interfaces[FIRST].alias, switch.uplink)
    network.physical.append(card)
    part.management.append(Adapter(None, switch.name, switch.id))
    _call_first(host, f"vEthernet ({switch.name})", "Hyper-V Virtual Ethernet Adapter")


def _call_first(host: Host, alias: str, description: str) -> None:
    interfaces = host.part(Network).interfaces
    known = interfaces.get(FIRST) or Interface(alias, description)
    interfaces[FIRST] = replace(known, alias=alias, description=description)


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
