"""Interfaces, adapters, addresses and neighbours, through PowerShell on a real namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.winhost import net
from tests.winhost.net.kernel import Kernel
from tests.winhost.tests.asking import Failure, Windows, namespace, peer_of, windows
from vmproxy.util import netns

pytestmark = pytest.mark.winhost
ALIAS = "'vEthernet (External)'"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Windows]:
    with namespace() as name, windows(tmp_path, namespace=name, bridges={"External": "br0"}) as running:
        yield running


def _kernel(host: Windows) -> Kernel:
    return Kernel(str(host.host.namespace))


def _is_not_found(answer: object, error_id: str) -> bool:
    kind = "Microsoft.PowerShell.Cmdletization.Cim.CimJobException"
    return isinstance(answer, Failure) and (answer.type, answer.id.split(",")[0]) == (kind, error_id)


def test_the_port_on_the_switch_is_an_adapter_and_so_is_the_card_below_it(host: Windows) -> None:
    port, all_, physical, hidden, none = host.ask(
        f"Get-NetAdapter -Name {ALIAS} | Select-Object Name, Status, MacAddress, LinkSpeed, Virtual, ifIndex",
        "Get-NetAdapter | ForEach-Object Name",
        'Get-NetAdapter -Physical | ForEach-Object { "$($_.Name) $($_.HardwareInterface)" }',
        "(Get-NetAdapter -IncludeHidden).Name.Count",
        "Get-NetAdapter -Name Ethernet2",
    )
    link = next(one for one in _kernel(host).links() if one.name == "eth0")
    assert port == {
        "Name": "vEthernet (External)",
        "Status": "Up",
        "MacAddress": link.mac.upper().replace(":", "-"),
        "LinkSpeed": "10 Gbps",
        "Virtual": True,
        "ifIndex": link.index,
    }
    assert all_ == ["vEthernet (External)", "Ethernet"]
    assert physical == "Ethernet True"
    assert hidden == 3
    assert _is_not_found(none, "CmdletizationQuery_NotFound_Name")


def test_mtu_and_forwarding_are_the_namespaces_own(host: Windows) -> None:
    before, after, refused, family = host.ask(
        "Get-NetIPInterface -AddressFamily IPv4 | ForEach-Object {"
        ' "$($_.InterfaceAlias) $($_.NlMtu) $($_.Forwarding) $($_.ConnectionState) $($_.InterfaceMetric)" }',
        f"Set-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4 -NlMtuBytes 1400 -Forwarding Enabled"
        ' -PassThru | ForEach-Object { "$($_.NlMtu) $($_.Forwarding)" }',
        f"Set-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4 -NlMtuBytes 100",
        f"Set-NetIPInterface -InterfaceAlias {ALIAS} -Forwarding Sometimes",
    )
    assert before == [
        "Loopback Pseudo-Interface 1 4294967295 Disabled Connected 75",
        "vEthernet (External) 1500 Disabled Connected 15",
    ]
    assert after == "1400 Enabled"
    assert refused.message == "The parameter is incorrect."
    assert family.id == "ParameterArgumentTransformationError,Set-NetIPInterface"
    link = next(one for one in _kernel(host).links() if one.name == "eth0")
    assert (link.mtu, _kernel(host).sysctl("ipv4/conf/eth0/forwarding")) == (1400, "1")


def test_interfaces_are_selected_and_changed_by_what_comes_in(host: Windows) -> None:
    metric, automatic, by_route, by_adapter, none = host.ask(
        f"Get-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4"
        " | Set-NetIPInterface -InterfaceMetric 7 -WeakHostSend Enabled -PassThru"
        ' | ForEach-Object { "$($_.InterfaceMetric) $($_.AutomaticMetric) $($_.WeakHostSend)" }',
        f"Set-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4 -AutomaticMetric Enabled -PassThru"
        " | ForEach-Object InterfaceMetric",
        "Get-NetRoute -DestinationPrefix 0.0.0.0/0 | Get-NetIPInterface -AddressFamily IPv4"
        " | ForEach-Object InterfaceAlias",
        f"Get-NetAdapter -Name {ALIAS} | Get-NetIPInterface -AddressFamily IPv4"
        " | ForEach-Object InterfaceAlias",
        "Get-NetIPInterface -Dhcp Enabled",
    )
    assert (metric, automatic) == ("7 Disabled Enabled", 15)
    assert (by_route, by_adapter) == ("vEthernet (External)", "vEthernet (External)")
    assert _is_not_found(none, "CmdletizationQuery_NotFound_Dhcp")


def test_an_adapter_is_renamed_and_switched_off_and_its_routes_come_back_with_it(host: Windows) -> None:
    renamed, off, on, taken = host.ask(
        f"Rename-NetAdapter -Name {ALIAS} -NewName Lab -PassThru | ForEach-Object Name;"
        " (Get-NetIPInterface -InterfaceAlias Lab -AddressFamily IPv4).InterfaceAlias",
        "Disable-NetAdapter -Name Lab -Confirm:$false; (Get-NetAdapter -Name Lab).Status;"
        " @(Get-NetRoute -DestinationPrefix 0.0.0.0/0 -ErrorAction SilentlyContinue).Count",
        "Enable-NetAdapter -Name Lab; (Get-NetAdapter -Name Lab).Status;"
        " (Get-NetRoute -DestinationPrefix 0.0.0.0/0).NextHop",
        "Rename-NetAdapter -Name Lab -NewName Ethernet",
    )
    assert renamed == ["Lab", "Lab"]
    assert off == ["Disabled", 0]
    assert on == ["Up", "192.168.100.1"]
    assert isinstance(taken, Failure)


def test_an_address_is_made_in_both_stores_changed_and_removed(host: Windows) -> None:
    new = f"New-NetIPAddress -IPAddress 10.1.1.1 -InterfaceAlias {ALIAS}"
    made, twice, changed, gone, bad, far = host.ask(
        f'{new} -PrefixLength 24 | ForEach-Object {{ "$($_.Store) $($_.IPAddress) $($_.PrefixLength)" }}',
        f"{new} -PrefixLength 24",
        "Set-NetIPAddress -IPAddress 10.1.1.1 -PrefixLength 16 -PassThru | ForEach-Object PrefixLength",
        "Remove-NetIPAddress -IPAddress 10.1.1.1 -Confirm:$false; Get-NetIPAddress -IPAddress 10.1.1.1",
        f"New-NetIPAddress -IPAddress 10.1.1 -PrefixLength 24 -InterfaceAlias {ALIAS}",
        f"{new} -PrefixLength 24 -DefaultGateway 10.9.9.1",
    )
    assert made == ["ActiveStore 10.1.1.1 24", "PersistentStore 10.1.1.1 24"]
    assert (twice.message, twice.id) == (
        "Instance MSFT_NetIPAddress already exists",
        "Windows System Error 87,New-NetIPAddress",
    )
    assert changed == [16, 16]
    assert _is_not_found(gone, "CmdletizationQuery_NotFound_IPAddress")
    assert bad.message == "Invalid parameter IPAddress 10.1.1"
    assert far.message == "Invalid parameter DefaultGateway"


def test_a_lasting_address_needs_dhcp_off_and_survives_a_reboot(host: Windows) -> None:
    new = f"New-NetIPAddress -PrefixLength 24 -InterfaceAlias {ALIAS}"
    dhcp, _, _, listed = host.ask(
        f"Set-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4 -Dhcp Enabled;"
        f" try {{ {new} -IPAddress 10.1.1.1 }}"
        f" finally {{ Set-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4 -Dhcp Disabled }}",
        f"{new} -IPAddress 10.1.1.1 | Out-Null",
        f"{new} -IPAddress 10.1.1.2 -PolicyStore ActiveStore | Out-Null",
        "Get-NetIPAddress -IPAddress '10.1.1.*' | ForEach-Object IPAddress",
    )
    assert dhcp.message == "Inconsistent parameters PolicyStore PersistentStore and Dhcp Enabled"
    assert listed == ["10.1.1.1", "10.1.1.2"]
    net.reboot(host.host)
    assert host.ask("Get-NetIPAddress -IPAddress '10.1.1.*' | ForEach-Object IPAddress") == ["10.1.1.1"]


def test_neighbours_are_those_that_the_kernel_met(host: Windows) -> None:
    peer = next(one for one in Kernel(peer_of(str(host.host.namespace))).links() if one.name == "eth0")
    with pytest.raises(ConnectionRefusedError):
        netns.connect(str(host.host.namespace), ("192.168.100.5", 9), timeout=5)
    met, fixed, again, gone, unknown = host.ask(
        "Get-NetNeighbor -IPAddress 192.168.100.5 | ForEach-Object { $_.LinkLayerAddress; [string]$_.State }",
        f"New-NetNeighbor -IPAddress 192.168.100.9 -LinkLayerAddress 00155D010203 -InterfaceAlias {ALIAS}"
        ' | ForEach-Object { "$($_.Store) $($_.State) $($_.LinkLayerAddress)" }',
        f"New-NetNeighbor -IPAddress 192.168.100.9 -LinkLayerAddress 00155D010203 -InterfaceAlias {ALIAS}",
        "Remove-NetNeighbor -IPAddress 192.168.100.9 -Confirm:$false;"
        " Get-NetNeighbor -IPAddress 192.168.100.9",
        f"New-NetNeighbor -IPAddress 192.168.100.8 -LinkLayerAddress xyz -InterfaceAlias {ALIAS}",
    )
    assert met == [peer.mac.upper().replace(":", "-"), "Reachable"]
    entry = "Permanent 00-15-5D-01-02-03"
    assert fixed == [f"ActiveStore {entry}", f"PersistentStore {entry}"]
    assert again.message == "Instance MSFT_NetNeighbor already exists"
    assert _is_not_found(gone, "CmdletizationQuery_NotFound_IPAddress")
    assert unknown.message == "Invalid parameter LinkLayerAddress xyz"


def test_the_configuration_of_an_interface_has_the_objects_of_the_other_cmdlets(host: Windows) -> None:
    net.network(host.host)
    net.interface_of(host.host, "eth0").servers = ["192.168.100.2"]
    shown, none = host.ask(
        f"Get-NetIPConfiguration -InterfaceAlias {ALIAS} | ForEach-Object {{ $_.IPv4Address.IPAddress;"
        " $_.IPv4DefaultGateway.NextHop; $_.NetAdapter.Status; [string]$_.NetIPv4Interface.Dhcp;"
        " ($_.DNSServer | Where-Object AddressFamily -eq 2).ServerAddresses }",
        "Get-NetIPConfiguration -InterfaceAlias Gone",
    )
    assert shown == ["192.168.100.10", "192.168.100.1", "Up", "Disabled", "192.168.100.2"]
    assert _is_not_found(none, "CmdletizationQuery_NotFound_InterfaceAlias")


def test_protocol_firewall_and_nat_are_as_the_host_is_set(host: Windows) -> None:
    net.network(host.host).firewall["Public"] = False
    net.network(host.host).nats.append(("Lab", "172.20.0.0/16"))
    redirects, profiles, nat, none = host.ask(
        "Set-NetIPv4Protocol -IcmpRedirects Disabled; [string](Get-NetIPv4Protocol).IcmpRedirects",
        'Get-NetFirewallProfile | ForEach-Object { "$($_.Name) $($_.Enabled)" }',
        "(Get-NetNat).InternalIPInterfaceAddressPrefix",
        "Get-NetNat -Name Other",
    )
    assert redirects == "Disabled"
    assert _kernel(host).sysctl("ipv4/conf/eth0/accept_redirects") == "0"
    assert profiles == ["Domain True", "Private True", "Public False"]
    assert nat == "172.20.0.0/16"
    assert _is_not_found(none, "CmdletizationQuery_NotFound_Name")


def test_a_network_cmdlet_without_behaviour_is_an_error(host: Windows) -> None:
    (answer,) = host.ask("Get-NetCompartment")
    assert (answer.message, answer.category) == ("not emulated: Get-NetCompartment", "NotImplemented")
