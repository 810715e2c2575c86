"""Makes endpoints real: a container is a network namespace on the bridge of its network's switch.

An endpoint that is attached to the host is an interface of the host, with its own index and its own settings.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from tests.undertaker import Undertaker
from tests.winhost.engine import not_emulated
from tests.winhost.hns.errors import ADAPTER_NOT_FOUND, HnsError
from tests.winhost.hns.schema import Network
from tests.winhost.hns.store import Kept, Store, Wired, short, store
from tests.winhost.hyperv.model import hyperv
from tests.winhost.hyperv.ports import FIRST
from tests.winhost.net.kernel import Kernel
from tests.winhost.net.state import Interface, kernel, network
from tests.winhost.net.state import Network as HostNetwork
from tests.winhost.state import Host
from vmproxy.util import netns
from vmproxy.util.run import run

_STRONG_HOST = {"arp_ignore": "1", "arp_announce": "2"}
"""An interface answers ARP for its own addresses only, as on Windows; two of them are on one bridge here."""
_KINDS = ("l2bridge", "transparent")
_ANSWER_SECONDS = 3.0


def bridge(host: Host, about: Network) -> str:
    """The bridge of the switch whose network card the network is on; without a name, of the first.

    That HNS refuses a card which another switch has is not emulated: it is as if the host had one more card
    in the same network. A nat network has a switch of its own."""
    if about.Type.lower() == "nat":
        return nat_bridge(about)
    cards = {one.description: one.name for one in host.part(HostNetwork).physical}
    for switch in hyperv(host).switches.values():
        named = (cards.get(switch.uplink), switch.uplink, f"vEthernet ({switch.name})", switch.name)
        if switch.kind == "External" and about.NetworkAdapterName in ("", *named) and switch.bridge:
            return switch.bridge
    raise HnsError(ADAPTER_NOT_FOUND)


def nat_bridge(about: Network) -> str:
    """In the switch's namespace."""
    return f"vn{short(about.ID)}"


def check_kind(about: Network, *others: str) -> None:
    if about.Type.lower() not in (*_KINDS, *others):
        raise not_emulated(f"an endpoint on a network of type {about.Type}")


def attach_container(host: Host, about: Network, kept: Kept, container: str) -> None:
    """A namespace with the endpoint's address, gateway and routes."""
    check_kind(about, "nat")
    assert host.switch_namespace is not None and host.namespace is not None  # noqa: PT018
    name = f"{host.namespace}-{short(kept.about.ID, 6)}"
    wired = Wired(name, "eth0", f"wc{short(kept.about.ID)}", container, _free_slot(host))
    _undertaker(host).run(wired.port, ["ip", "netns", "del", name])
    kept.wired = wired
    run(["ip", "netns", "add", name])
    run(["ip", "-n", name, "link", "set", "lo", "up"])
    _plug(host, about, kept, wired)
    for hop in kept.about.Routes:
        metric = ["metric", str(hop.Metric)] if hop.Metric else []
        Kernel(name).run("route", "add", hop.DestinationPrefix, "via", hop.NextHop, *metric)
    if kept.about.GatewayAddress:
        Kernel(name).run("route", "add", "default", "via", kept.about.GatewayAddress)


def attach_host(host: Host, about: Network, kept: Kept) -> None:
    """`vEthernet (NAME)`: an interface of the host in the endpoint's subnet."""
    check_kind(about)
    assert host.namespace is not None
    network(host)  # what is there now is lasting configuration, the new interface is not
    wired = Wired(host.namespace, f"vh{short(kept.about.ID)}", f"vi{short(kept.about.ID)}")
    _undertaker(host).run(wired.port, _unplug_command(host, wired))
    kept.wired = wired
    description = f"Hyper-V Virtual Ethernet Adapter #{len(network(host).interfaces) + 1}"
    network(host).interfaces[wired.device] = Interface(f"vEthernet ({kept.about.Name})", description)
    _plug(host, about, kept, wired)
    for device in (FIRST, wired.device):
        _make_strong(host, device)


def detach(host: Host, kept: Kept) -> None:
    """Take away what is real of an endpoint."""
    wired, part = kept.wired, store(host)
    if wired is None:
        return
    kept.wired = None
    if wired.container:
        run(["ip", "netns", "del", wired.namespace], ok=(0, 1))
        part.containers.pop(wired.container, None)
    else:
        network(host).interfaces.pop(wired.device, None)
    run(_unplug_command(host, wired), ok=(0, 1, 2))  # its link goes with a namespace, a moment later
    assert part.undertaker is not None
    part.undertaker.forget(wired.port)


def gateway_mac(host: Host) -> str | None:
    """Of the host's default gateway; None when it does not answer."""
    assert host.namespace is not None
    default = [one for one in kernel(host).routes(4) if one.to.prefixlen == 0 and one.via]
    if not default:
        return None
    via = str(default[0].via)
    end = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < end:
        found = [one.mac for one in kernel(host).neighbors() if one.address == via and one.mac]
        if found:
            return found[0]
        with netns.open_socket(host.namespace, "udp") as asking, contextlib.suppress(OSError):
            asking.sendto(b"", (via, 9))
        time.sleep(0.05)
    return None


def host_port(host: Host) -> tuple[str, str]:
    """The MAC address of the host's interface on its switch, and that interface's port on the bridge."""
    (inside,) = _links(str(host.namespace), "dev", FIRST)
    ports = [
        one["ifname"] for one in _links(str(host.switch_namespace)) if one["ifindex"] == inside["link_index"]
    ]
    if not ports:
        raise not_emulated("containers on a host that is not on a bridge")
    return inside["address"], ports[0]


def management_address(host: Host) -> str:
    """The host's address in its switch's network; empty without one."""
    if host.namespace is None:
        return ""
    found = [one for one in kernel(host).addresses() if one.link == FIRST and one.interface.version == 4]
    return str(found[0].interface.ip) if found else ""


def close(host: Host) -> None:
    """Take away all that is real."""
    part = host.part(Store)
    if part.undertaker is not None:
        part.undertaker.close()
        part.undertaker = None


def keep(host: Host, key: str, command: list[str]) -> None:
    """Have the command run at the end."""
    _undertaker(host).run(key, command)


def forget(host: Host, key: str) -> None:
    """It was done already."""
    _undertaker(host).forget(key)


def _undertaker(host: Host) -> Undertaker:
    part = host.part(Store)
    part.undertaker = part.undertaker or Undertaker()
    return part.undertaker


def _plug(host: Host, about: Network, kept: Kept, wired: Wired) -> None:
    switch = str(host.switch_namespace)
    ours = ["ip", "-n", switch, "link"]
    run([*ours, "add", wired.port, "type", "veth", "peer", "name", wired.device, "netns", wired.namespace])
    run([*ours, "set", wired.port, "master", bridge(host, about), "up"])
    inside = Kernel(wired.namespace)
    inside.run("link", "set", wired.device, "address", kept.mac, "up")
    inside.run("address", "add", f"{kept.about.IPAddress}/{kept.about.PrefixLength}", "dev", wired.device)


def _free_slot(host: Host) -> int:
    taken = {one.wired.slot for one in store(host).endpoints.values() if one.wired and one.wired.container}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _unplug_command(host: Host, wired: Wired) -> list[str]:
    return ["ip", "-n", str(host.switch_namespace), "link", "del", wired.port]


def _make_strong(host: Host, device: str) -> None:
    """Put back at the end for the interface that was there before."""
    for name, value in _STRONG_HOST.items():
        setting = f"ipv4/conf/{device}/{name}"
        before = kernel(host).sysctl(setting)
        if device == FIRST and before != value:
            back = netns.run_in(str(host.namespace), ["sysctl", "-qw", f"net/{setting}={before}"])
            _undertaker(host).run(setting, ["ip", *back[1:]])
        kernel(host).set_sysctl(setting, value)


def _links(namespace: str, *words: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(run(["ip", "-n", namespace, "-j", "link", "show", *words]).stdout)
    return told
