"""The host's network: cmdlets over the interfaces, addresses, routes and neighbours of a real namespace."""

from tests.winhost.net import (
    adapter,
    address,
    configuration,
    interface,
    neighbor,
    nrpt,
    resolver,
    route,
    settings,
)
from tests.winhost.net.state import Interface, Network, Physical, interface_metric, network, reboot
from tests.winhost.net.state import interface as interface_of

__all__ = [
    "Interface",
    "Network",
    "Physical",
    "adapter",
    "address",
    "configuration",
    "interface",
    "interface_metric",
    "interface_of",
    "neighbor",
    "network",
    "nrpt",
    "reboot",
    "resolver",
    "route",
    "settings",
]
