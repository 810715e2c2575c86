"""The host's network: cmdlets over the interfaces, addresses, routes and neighbours of a real namespace."""

from tests.winhost.net import (
    adapter,
    address,
    configuration,
    interface,
    nat,
    neighbor,
    nrpt,
    registration,
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
    "nat",
    "neighbor",
    "network",
    "nrpt",
    "reboot",
    "registration",
    "resolver",
    "route",
    "settings",
]
