"""A network of type nat, as Docker makes one by default: an internal switch, the host's own interface on it
as the containers' gateway, and WinNAT behind that."""

from __future__ import annotations

from ipaddress import IPv4Network

from tests.winhost.hns import wiring
from tests.winhost.hns.schema import Network
from tests.winhost.hns.store import short
from tests.winhost.net import nat
from tests.winhost.net.kernel import Kernel
from tests.winhost.net.state import Interface, network
from tests.winhost.state import Host
from vmproxy.util.run import run


def start(host: Host, about: Network) -> None:
    """Nothing for a network that is kept only: its host has no namespaces, or it has no gateway."""
    if not _real(host, about):
        return
    (subnet,), device, port = about.Subnets, _device(about), f"vm{short(about.ID)}"
    prefix = IPv4Network(subnet.AddressPrefix)
    ours = ["ip", "-n", str(host.switch_namespace), "link"]
    wiring.keep(host, about.ID, [*ours, "del", wiring.nat_bridge(about)])
    wiring.keep(host, device, [*ours, "del", port])
    run([*ours, "add", wiring.nat_bridge(about), "up", "type", "bridge"])
    run([*ours, "add", port, "type", "veth", "peer", "name", device, "netns", host.namespace])
    run([*ours, "set", port, "master", wiring.nat_bridge(about), "up"])
    described = f"Hyper-V Virtual Ethernet Adapter #{len(network(host).interfaces) + 1}"
    network(host).interfaces[device] = Interface(f"vEthernet ({about.Name})", described)
    inside = Kernel(host.namespace)
    inside.run("link", "set", device, "up")
    inside.run("address", "add", f"{subnet.GatewayAddress}/{prefix.prefixlen}", "dev", device)
    network(host).nats.append((_name(about), str(prefix)))
    nat.start(host)


def stop(host: Host, about: Network) -> None:
    if not _real(host, about):
        return
    part = network(host)
    part.interfaces.pop(_device(about), None)
    part.nats = [one for one in part.nats if one[0] != _name(about)]
    nat.start(host)
    for key, link in ((_device(about), f"vm{short(about.ID)}"), (about.ID, wiring.nat_bridge(about))):
        run(["ip", "-n", str(host.switch_namespace), "link", "del", link], ok=(0, 1))
        wiring.forget(host, key)


def _real(host: Host, about: Network) -> bool:
    gateways = [one.GatewayAddress for one in about.Subnets]
    return bool(host.namespace and host.switch_namespace) and len(gateways) == 1 and all(gateways)


def _device(about: Network) -> str:
    """The host's own interface on the switch."""
    return f"vh{short(about.ID)}"


def _name(about: Network) -> str:
    """As Get-NetNat shows it. No source says how HNS calls it."""
    return f"H{about.ID.lower()}"
