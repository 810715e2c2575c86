"""Get-NetIPConfiguration: one object an interface, with the objects of the other cmdlets in it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.winhost.engine import Call, CmdletError, Item, UInt32, emulates
from tests.winhost.net import adapter, address, interface, route, settings
from tests.winhost.net.cim import Instance, refuse
from tests.winhost.net.naming import Place, places
from tests.winhost.state import Host
from tests.winhost.wildcards import matches

TYPE = "NetIPConfiguration"


@emulates("Get-NetIPConfiguration")
def get_net_ip_configuration(host: Host, call: Call) -> Iterator[Item | CmdletError]:
    refuse(call, "CimSession", "AsJob", "CompartmentId", "AllCompartments")
    everywhere = places(host)
    if call.has("InterfaceIndex"):
        found = [one for one in everywhere if one.index == call.get("InterfaceIndex")]
    elif call.has("InterfaceAlias"):
        alias = str(call.get("InterfaceAlias"))
        found = [one for one in everywhere if matches(alias, one.alias)]
    else:
        found = [one for one in everywhere if one.link != "lo" or call.switch("All")]
    if not found:
        yield _missing(call)
    for one in found:
        yield _configuration(host, one, detailed=call.switch("Detailed"))


def _missing(call: Call) -> CmdletError:
    asked = call.get("InterfaceAlias", call.get("InterfaceIndex"))
    name = "InterfaceAlias" if call.has("InterfaceAlias") else "InterfaceIndex"
    return CmdletError(
        f"No MSFT_NetIPInterface objects found with property '{name}' equal to '{asked}'.  "
        "Verify the value of the property and retry.",
        exception="Microsoft.PowerShell.Cmdletization.Cim.CimJobException",
        error_id=f"CmdletizationQuery_NotFound_{name}",
        category="ObjectNotFound",
        target=asked,
        terminating=False,
    )


def _configuration(host: Host, where: Place, *, detailed: bool) -> Item:
    adapters = [one for one in adapter.instances(host, hidden=True) if one.item.id == where.link]
    interfaces = _of(interface.instances(host, ["ActiveStore"]), where)
    addresses = _of(address.instances(host, ["ActiveStore"]), where)
    defaults = [
        one
        for one in _of(route.instances(host, ["ActiveStore"]), where)
        if one.raw["DestinationPrefix"] in ("0.0.0.0/0", "::/0")
    ]
    properties = {
        "InterfaceAlias": where.alias,
        "InterfaceIndex": UInt32(where.index),
        "InterfaceDescription": adapters[0].raw["InterfaceDescription"],
        "NetAdapter": adapters[0].item,
        "NetIPv4Interface": _first(interfaces, "IPv4"),
        "NetIPv6Interface": _first(interfaces, "IPv6"),
        "IPv4Address": _items(addresses, "IPv4"),
        "IPv6Address": _items(addresses, "IPv6"),
        "IPv4DefaultGateway": _items(defaults, "IPv4"),
        "IPv6DefaultGateway": _items(defaults, "IPv6"),
        "DNSServer": [one.item for one in settings.servers(host) if one.raw["InterfaceIndex"] == where.index],
        "Detailed": detailed,
    }
    return Item(TYPE, where.link, properties)


def _of(instances: list[Instance], where: Place) -> list[Instance]:
    return [one for one in instances if one.raw["link"] == where.link]


def _items(instances: list[Instance], family: str) -> list[Item]:
    return [one.item for one in instances if one.raw["AddressFamily"] == family]


def _first(instances: list[Instance], family: str) -> Item | None:
    return next(iter(_items(instances, family)), None)
