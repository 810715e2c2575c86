"""Get-, New-, Set- and Remove-NetRoute and Find-NetRoute, through PowerShell on a real namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.winhost import net
from tests.winhost.net.naming import GONE
from tests.winhost.tests.asking import Failure, Windows, namespace, windows

pytestmark = pytest.mark.winhost
STORE = "ForEach-Object { [string]$_.Store }"
SHOWN = '"$($_.Store) $($_.DestinationPrefix) $($_.NextHop) $($_.RouteMetric)"'
ALIAS = "'vEthernet (External)'"
NEW = f"New-NetRoute -DestinationPrefix 10.96.0.0/16 -InterfaceAlias {ALIAS} -NextHop 192.168.100.5"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Windows]:
    with namespace() as name, windows(tmp_path, namespace=name, bridges={"External": "br0"}) as running:
        yield running


def _table(host: Windows) -> list[str]:
    """The namespace's routes to the Service range, as the kernel tells them."""
    return [line.strip() for line in _in(host, "route", "show", "10.96.0.0/16").splitlines()]


def _in(host: Windows, *words: str) -> str:
    command = ["ip", "-n", str(host.host.namespace), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def _refused(answer: object, message: str, code: int, category: str) -> None:
    assert isinstance(answer, Failure)
    assert answer.message == message
    assert answer.type == "Microsoft.Management.Infrastructure.CimException"
    assert answer.id.split(",")[0] == f"Windows System Error {code}"
    assert answer.category == category


def _not_found(answer: object, error_id: str) -> str:
    assert isinstance(answer, Failure)
    assert answer.type == "Microsoft.PowerShell.Cmdletization.Cim.CimJobException"
    assert answer.category == "ObjectNotFound"
    assert answer.id.split(",")[0] == error_id
    return answer.message


def test_a_new_route_is_in_both_stores_and_the_kernel_takes_it(host: Windows) -> None:
    made, active, lasting, raw = host.ask(
        f"{NEW} -RouteMetric 50 | ForEach-Object {{ {SHOWN} }}",
        f"Get-NetRoute 10.96.0.0/16 | ForEach-Object {{ {SHOWN} }}",
        f"Get-NetRoute 10.96.0.0/16 -PolicyStore PersistentStore | ForEach-Object {{ {SHOWN} }}",
        "Get-NetRoute 10.96.0.0/16"
        " | Select-Object Store, AddressFamily, Protocol, TypeOfRoute, InterfaceMetric",
    )
    route = "10.96.0.0/16 192.168.100.5 50"
    assert made == [f"ActiveStore {route}", f"PersistentStore {route}"]
    assert (active, lasting) == (f"ActiveStore {route}", f"PersistentStore {route}")
    assert raw == {"Store": 1, "AddressFamily": 2, "Protocol": 3, "TypeOfRoute": 3, "InterfaceMetric": 15}
    assert _table(host) == ["10.96.0.0/16 via 192.168.100.5 dev eth0 metric 65"]


def test_each_store_can_be_written_and_cleared_alone_but_the_lasting_one_not_written(host: Windows) -> None:
    trial, lasting, refused, gone, both, left = host.ask(
        f"{NEW} -PolicyStore ActiveStore | ForEach-Object {{ [string]$_.Store }}",
        "Get-NetRoute 10.96.0.0/16 -PolicyStore PersistentStore",
        f"{NEW} -PolicyStore PersistentStore",
        "Remove-NetRoute 10.96.0.0/16 -PolicyStore ActiveStore -Confirm:$false",
        f"{NEW} | Out-Null; Remove-NetRoute 10.96.0.0/16 -Confirm:$false -PassThru | {STORE}",
        "Get-NetRoute 10.96.0.0/16 -PolicyStore PersistentStore",
    )
    assert trial == "ActiveStore"
    _not_found(lasting, "CmdletizationQuery_NotFound_DestinationPrefix")
    _refused(refused, "Invalid parameter PolicyStore PersistentStore", 87, "InvalidArgument")
    assert gone is None
    assert both == ["ActiveStore", "PersistentStore"]
    _not_found(left, "CmdletizationQuery_NotFound_DestinationPrefix")
    assert _table(host) == []


def test_what_windows_refuses_is_refused_with_its_errors(host: Windows) -> None:
    prefix = "New-NetRoute -NextHop 192.168.100.5 -InterfaceAlias"
    twice, bits, alias, index, far, family, hop, none, metric = host.ask(
        f"{NEW} | Out-Null; {NEW}",
        f"{prefix} {ALIAS} -DestinationPrefix 10.97.0.1/16",
        f"{prefix} 'vEthernet (Gone)' -DestinationPrefix 10.97.0.0/16",
        "New-NetRoute -DestinationPrefix 10.97.0.0/16 -NextHop 192.168.100.5 -InterfaceIndex 99",
        f"New-NetRoute -DestinationPrefix 10.97.0.0/16 -NextHop 172.20.0.1 -InterfaceAlias {ALIAS}",
        f"{prefix} {ALIAS} -DestinationPrefix 10.97.0.0/16 -AddressFamily IPv6",
        f"New-NetRoute -DestinationPrefix 10.97.0.0/16 -NextHop fe80::1 -InterfaceAlias {ALIAS}",
        "New-NetRoute -DestinationPrefix 10.97.0.0/16 -NextHop 192.168.100.5",
        f"{prefix} {ALIAS} -DestinationPrefix 10.97.0.0/16 -RouteMetric 70000",
    )
    _refused(twice, "Instance MSFT_NetRoute already exists", 87, "InvalidArgument")
    _refused(bits, "Invalid parameter DestinationPrefix 10.97.0.1/16", 87, "InvalidArgument")
    _refused(alias, "Invalid parameter InterfaceAlias vEthernet (Gone)", 87, "InvalidArgument")
    _refused(index, "Element not found.", 1168, "ObjectNotFound")
    assert far.message.startswith("The network location cannot be reached.")
    assert family.message == "Inconsistent parameters AddressFamily IPv6 and DestinationPrefix 10.97.0.0/16"
    _refused(hop, "Invalid parameter NextHop fe80::1", 87, "InvalidArgument")
    assert none.id in ("AmbiguousParameterSet,New-NetRoute", "MissingMandatoryParameter,New-NetRoute")
    assert metric.id == "ParameterArgumentTransformationError,New-NetRoute"


def test_a_query_names_the_value_that_found_nothing_or_shows_itself(host: Windows) -> None:
    one, several, some, wild, none = host.ask(
        "Get-NetRoute -DestinationPrefix 10.1.0.0/16",
        f"Get-NetRoute -DestinationPrefix 10.1.0.0/16 -InterfaceAlias {ALIAS} -AddressFamily IPv4",
        "Get-NetRoute -DestinationPrefix 0.0.0.0/0, 10.1.0.0/16 -ea SilentlyContinue -ErrorVariable Bad"
        " | ForEach-Object DestinationPrefix; $Bad.Count",
        "Get-NetRoute -DestinationPrefix '10.*'",
        "Get-NetRoute -AddressFamily IPv4 -PolicyStore PersistentStore | ForEach-Object DestinationPrefix",
    )
    assert _not_found(one, "CmdletizationQuery_NotFound_DestinationPrefix") == (
        "No MSFT_NetRoute objects found with property 'DestinationPrefix' equal to '10.1.0.0/16'.  "
        "Verify the value of the property and retry."
    )
    query = (
        "SELECT * FROM MSFT_NetRoute  WHERE ((DestinationPrefix LIKE '10.1.0.0/16')) "
        "AND ((InterfaceAlias LIKE 'vEthernet (External)')) AND ((AddressFamily = 2))"
    )
    assert query in _not_found(several, "CmdletizationQuery_NotFound")
    assert some == ["0.0.0.0/0", 1]
    assert wild is None
    assert none == "0.0.0.0/0"


def test_set_changes_the_metric_in_both_stores_and_nothing_that_identifies_a_route(host: Windows) -> None:
    changed, one, prefix, missing = host.ask(
        f"{NEW} | Out-Null;"
        f" Set-NetRoute 10.96.0.0/16 -RouteMetric 7 -PassThru | ForEach-Object {{ {SHOWN} }}",
        "$Active = Get-NetRoute 10.96.0.0/16; Set-NetRoute -InputObject $Active -RouteMetric 9;"
        " 'ActiveStore', 'PersistentStore' | ForEach-Object {"
        " [int](Get-NetRoute 10.96.0.0/16 -PolicyStore $_).RouteMetric }",
        "Set-NetRoute 10.96.0.0/16 -NextHop 192.168.100.6 -RouteMetric 1",
        "Set-NetRoute 10.1.0.0/16 -RouteMetric 1",
    )
    route = "10.96.0.0/16 192.168.100.5 7"
    assert changed == [f"ActiveStore {route}", f"PersistentStore {route}"]
    assert one == [9, 7]
    _not_found(prefix, "CmdletizationQuery_NotFound")
    _not_found(missing, "CmdletizationQuery_NotFound_DestinationPrefix")
    assert _table(host) == ["10.96.0.0/16 via 192.168.100.5 dev eth0 metric 24"]


def test_routes_come_through_the_pipeline_and_from_interfaces(host: Windows) -> None:
    piped, again, adapter, asks = host.ask(
        f"{NEW} | Out-Null; Get-NetRoute 10.96.0.0/16 | Remove-NetRoute -Confirm:$false -PassThru"
        " | ForEach-Object { [string]$_.Store }",
        "$Gone = Get-NetRoute 10.96.0.0/16 -PolicyStore PersistentStore;"
        " $Gone | Remove-NetRoute -Confirm:$false; $Gone | Remove-NetRoute -Confirm:$false",
        "Get-NetIPInterface -InterfaceAlias 'vEth*' -AddressFamily IPv4 | Get-NetRoute -AddressFamily IPv4"
        " | Where-Object { [string]$_.Protocol -eq 'NetMgmt' } | ForEach-Object DestinationPrefix",
        "Remove-NetRoute -DestinationPrefix 0.0.0.0/0",
    )
    assert piped == "ActiveStore"
    _refused(again, "Element not found.", 1168, "ObjectNotFound")
    assert adapter == "0.0.0.0/0"
    assert asks.type == "System.Management.Automation.PSInvalidOperationException"


def test_find_gives_the_source_and_the_route_that_packets_take(host: Windows) -> None:
    find = "Find-NetRoute -RemoteIPAddress"
    shown = '| ForEach-Object { "$($_.IPAddress)$($_.DestinationPrefix) $($_.NextHop)" }'
    service, neighbour, own, loop, none = host.ask(
        f"{NEW} | Out-Null; {find} 10.96.0.10 {shown}",
        f"{find} 192.168.100.5 {shown}",
        f"{find} 192.168.100.10 {shown}",
        f"{find} 127.0.0.1 {shown}",
        f"Remove-NetRoute 0.0.0.0/0 -Confirm:$false; {find} 8.8.8.8",
    )
    source = "192.168.100.10 "
    assert service == [source, "10.96.0.0/16 192.168.100.5"]
    assert neighbour == [source, "192.168.100.0/24 0.0.0.0"]
    assert own == [source, "192.168.100.10/32 0.0.0.0"]
    assert loop == ["127.0.0.1 ", "127.0.0.1/32 0.0.0.0"]
    assert none.message.startswith("The network location cannot be reached.")


def test_routes_of_ipv6_are_routes_too(host: Windows) -> None:
    new = f"New-NetRoute -DestinationPrefix fd00:96::/112 -InterfaceAlias {ALIAS} -NextHop"
    made, two, gone = host.ask(
        f"{new} fe80::5 -RouteMetric 5 | ForEach-Object {{ {SHOWN} }}",
        f"{new} fe80::6 -RouteMetric 5 | Out-Null;"
        " Get-NetRoute -AddressFamily IPv6 -DestinationPrefix fd00* | ForEach-Object NextHop",
        "Remove-NetRoute fd00:96::/112 -NextHop fe80::5 -Confirm:$false;"
        " (Get-NetRoute fd00:96::/112).NextHop",
    )
    route = "fd00:96::/112 fe80::5 5"
    assert made == [f"ActiveStore {route}", f"PersistentStore {route}"]
    assert sorted(two) == ["fe80::5", "fe80::6"]
    assert gone == "fe80::6"


def test_an_interface_metric_counts_and_the_lower_sum_wins(host: Windows) -> None:
    (both,) = host.ask(
        f"{NEW} -RouteMetric 20 | Out-Null; {NEW.replace('.5', '.6')} -RouteMetric 10 | Out-Null;"
        f" Set-NetIPInterface -InterfaceAlias {ALIAS} -AddressFamily IPv4 -InterfaceMetric 100;"
        " (Find-NetRoute -RemoteIPAddress 10.96.0.10)[1].NextHop; (Get-NetRoute 10.96.0.0/16).RouteMetric"
    )
    assert both == ["192.168.100.6", 10, 20]
    assert _table(host) == [
        "10.96.0.0/16 via 192.168.100.6 dev eth0 metric 110",
        "10.96.0.0/16 via 192.168.100.5 dev eth0 metric 120",
    ]


def test_a_reboot_leaves_what_lasts_and_numbers_interfaces_anew(host: Windows) -> None:
    (before,) = host.ask(
        f"{NEW} | Out-Null; {NEW.replace('10.96', '10.97')} -PolicyStore ActiveStore | ForEach-Object ifIndex"
    )
    net.reboot(host.host)
    kept, trial, default = host.ask(
        "Get-NetRoute 10.96.0.0/16 | ForEach-Object ifIndex",
        "Get-NetRoute 10.97.0.0/16",
        "(Find-NetRoute -RemoteIPAddress 8.8.8.8)[1].NextHop",
    )
    assert kept != before
    _not_found(trial, "CmdletizationQuery_NotFound_DestinationPrefix")
    assert default == "192.168.100.1"


def test_a_lasting_route_outlives_its_interface_and_only_route_exe_clears_it(host: Windows) -> None:
    _in(host, "link", "add", "spare", "type", "veth", "peer", "name", "other")
    _in(host, "link", "set", "spare", "up")
    host.ask("New-NetRoute -DestinationPrefix 10.98.0.0/16 -InterfaceAlias 'vEthernet (spare)'")
    _in(host, "link", "del", "spare")
    look = "Get-NetRoute 10.98.0.0/16 -PolicyStore PersistentStore"
    shown = ' | ForEach-Object { "$($_.InterfaceIndex) $($_.InterfaceAlias)|" }'
    orphan, by_its_index, active, still, gone = host.ask(
        look + shown,
        f"{look} -InterfaceIndex {GONE.index}",
        "Get-NetRoute 10.98.0.0/16",
        f"Remove-NetRoute 10.98.0.0/16 -Confirm:$false; {look}{shown}",
        f"route.exe delete 10.98.0.0 mask 255.255.0.0 0.0.0.0 | Out-Null; {look}",
    )
    assert orphan == still == f"{GONE.index} |"
    _not_found(by_its_index, "CmdletizationQuery_NotFound")
    _not_found(active, "CmdletizationQuery_NotFound_DestinationPrefix")
    _not_found(gone, "CmdletizationQuery_NotFound_DestinationPrefix")


def test_find_looks_from_an_interface_or_an_address_that_is_given(host: Windows) -> None:
    by_index, by_source, foreign, unknown, bad = host.ask(
        "$Index = (Get-NetAdapter -Name 'vEth*').ifIndex;"
        " (Find-NetRoute -RemoteIPAddress 8.8.8.8 -InterfaceIndex $Index)[1].NextHop",
        "(Find-NetRoute -RemoteIPAddress 8.8.8.8 -LocalIPAddress 192.168.100.10)[0].IPAddress",
        "Find-NetRoute -RemoteIPAddress 8.8.8.8 -LocalIPAddress 172.20.0.9",
        "Find-NetRoute -RemoteIPAddress 8.8.8.8 -InterfaceIndex 99",
        "Find-NetRoute -RemoteIPAddress example.com",
    )
    assert (by_index, by_source) == ("192.168.100.1", "192.168.100.10")
    assert foreign.message.startswith("The network location cannot be reached.")
    _refused(unknown, "Element not found.", 1168, "ObjectNotFound")
    _refused(bad, "Invalid parameter RemoteIPAddress example.com", 87, "InvalidArgument")


def test_parameters_that_a_version_lacks_are_refused(tmp_path: Path) -> None:
    with namespace() as name, windows(tmp_path, namespace=name, version="2016") as old:
        (answer,) = old.ask("Get-NetRoute -InterfaceMetric 15")
    assert answer.id == "NamedParameterNotFound,Get-NetRoute"


def test_without_a_namespace_no_route_of_this_machine_is_touched(tmp_path: Path) -> None:
    with windows(tmp_path) as nowhere:
        (answer,) = nowhere.ask("Get-NetRoute")
    assert answer.message.startswith("not emulated: a network without a namespace")
