"""Network adapters, VLANs and switches of virtual machines, through PowerShell."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.names import namespace
from tests.winhost import wildcards
from tests.winhost.engine import CmdletError
from tests.winhost.hyperv import items, switches
from tests.winhost.hyperv.model import UPLINK, hyperv
from tests.winhost.presence import require
from tests.winhost.tests.scripted import Pretence, Session, new_host, session

pytestmark = pytest.mark.winhost


@pytest.fixture(scope="module")
def running() -> Iterator[Session]:
    require()
    with session() as one:
        yield one


@pytest.fixture
def windows(running: Session) -> Session:
    running.reset(new_host(running.host.folder))
    running("$null = New-VM -Name a -Generation 2; $null = New-VM -Name b -Generation 2")
    return running


def test_adapters_by_machine_by_name_and_of_the_management_system(windows: Session) -> None:
    windows(
        "Add-VMNetworkAdapter a -Name second -SwitchName External; Rename-VMNetworkAdapter b -NewName only"
    )

    for script, names in {
        "Get-VMNetworkAdapter a": ["Network Adapter", "second"],
        "Get-VMNetworkAdapter a s*": ["second"],
        "Get-VMNetworkAdapter *": ["Network Adapter", "second", "only"],
        "Get-VM | Get-VMNetworkAdapter -Name only, 'Network*' -ErrorAction Ignore": [],
        "Get-VM b | Get-VMNetworkAdapter": ["only"],
        "Get-VMNetworkAdapter -ManagementOS": ["External"],
        "Get-VMNetworkAdapter -ManagementOS -SwitchName Ext*": ["External"],
        "Get-VMNetworkAdapter -All": ["External", "Network Adapter", "second", "only"],
        "Get-VMNetworkAdapter a -IsLegacy $true": [],
        "(Get-VM a).NetworkAdapters": ["Network Adapter", "second"],
    }.items():
        if names:
            assert windows(f"{script} | ForEach-Object Name") == names, script
    assert windows.say("Get-VMNetworkAdapter a -Name nosuch").error["category"] == "InvalidArgument"


@pytest.mark.parametrize("written", ["00155D0A0B0C", "00-15-5d-0a-0b-0c", "00:15:5d:0a:0b:0c"])
def test_a_static_address_is_twelve_upper_case_digits(windows: Session, written: str) -> None:
    shown = windows(f"""
        $nic = Set-VMNetworkAdapter a -StaticMacAddress {written} -Passthru
        $nic.MacAddress; $nic.DynamicMacAddressEnabled
        Start-VM a; (Get-VMNetworkAdapter a).MacAddress; Stop-VM a -TurnOff
        Set-VMNetworkAdapter a -DynamicMacAddress; (Get-VMNetworkAdapter a).MacAddress""")

    assert shown == ["00155D0A0B0C", False, "00155D0A0B0C", "000000000000"]


@pytest.mark.parametrize("written", ["0015", "00155D0A0B0G", "01155D0A0B0C"])
def test_a_bad_address_is_refused(windows: Session, written: str) -> None:
    error = windows.say(f"Set-VMNetworkAdapter a -StaticMacAddress '{written}'").error

    assert error["category"] == "InvalidArgument"
    assert windows.one("(Get-VMNetworkAdapter a).MacAddress") == "000000000000"


def test_connecting_and_disconnecting(windows: Session) -> None:
    said = windows("""
        Connect-VMNetworkAdapter a -SwitchName External; (Get-VMNetworkAdapter a).SwitchName
        Get-VMNetworkAdapter a | Disconnect-VMNetworkAdapter; (Get-VMNetworkAdapter a).Connected
        Get-VMNetworkAdapter a | Connect-VMNetworkAdapter -VMSwitch (Get-VMSwitch External)
        (Get-VMNetworkAdapter a).SwitchId -eq (Get-VMSwitch).Id""")

    assert said == ["External", False, True]
    error = windows.say("Connect-VMNetworkAdapter a -SwitchName nosuch").error
    assert error["id"].startswith("InvalidParameter,")
    assert 'unable to find a virtual switch with name "nosuch"' in error["error"]


def test_a_running_machines_port_is_moved_at_once(windows: Session) -> None:
    windows("""
        Connect-VMNetworkAdapter a -SwitchName External; Start-VM a
        Set-VMNetworkAdapterVlan a -Access -VlanId 7; Disconnect-VMNetworkAdapter a
        Set-VMNetworkAdapterVlan b -Access -VlanId 7""")

    power = hyperv(windows.host).power
    assert isinstance(power, Pretence)
    assert [one.vlan.access for one in power.connected] == [7, 7]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("-Access -VlanId 42", ["Access", 42, 0, "", 0]),
        ("-Trunk -AllowedVlanIdList '1-3,7' -NativeVlanId 5", ["Trunk", 0, 5, "1-3,7", 0]),
        ("-Isolated -PrimaryVlanId 10 -SecondaryVlanId 200", ["Private", 0, 0, "", 10]),
        ("-Access -VlanId 42; Set-VMNetworkAdapterVlan a -Untagged", ["Untagged", 0, 0, "", 0]),
    ],
)
def test_vlans(windows: Session, options: str, shown: list[object]) -> None:
    said = windows(f"""
        Set-VMNetworkAdapterVlan a {options}; $v = Get-VMNetworkAdapterVlan a
        [string] $v.OperationMode; $v.AccessVlanId; $v.NativeVlanId; $v.AllowedVlanIdListString
        $v.PrimaryVlanId
        [string] (Get-VMNetworkAdapter a).VlanSetting.OperationMode; $v.ParentAdapter.VMName""")

    assert said == [*shown, shown[0], "a"]


@pytest.mark.parametrize(
    "options",
    [
        "-Access",
        "-Access -VlanId 0",
        "-Access -VlanId 4095",
        "-Access -Untagged",
        "-VlanId 4",
        "-Trunk -AllowedVlanIdList x -NativeVlanId 0",
        "-Trunk -AllowedVlanIdList 1-5000 -NativeVlanId 0",
    ],
)
def test_a_bad_vlan_is_refused(windows: Session, options: str) -> None:
    assert windows.say(f"Set-VMNetworkAdapterVlan a {options}").error["category"] == "InvalidArgument"
    assert windows.one("[string] (Get-VMNetworkAdapterVlan a).OperationMode") == "Untagged"


def test_adapters_come_and_go(windows: Session) -> None:
    said = windows("""
        1..3 | ForEach-Object { Add-VMNetworkAdapter a -Name "n$_" -StaticMacAddress "00155D0A0B0$_" }
        (Get-VM a).NetworkAdapters.Count; Remove-VMNetworkAdapter a -Name n1
        Get-VMNetworkAdapter a -Name n2 | Remove-VMNetworkAdapter; (Get-VMNetworkAdapter a).Name""")

    assert said == [4, "Network Adapter", "n3"]
    assert windows.say("Add-VMNetworkAdapter b -IsLegacy $true").error["category"] == "InvalidArgument"
    assert windows.say("Add-VMNetworkAdapter b -SwitchName nosuch").error["category"] == "InvalidArgument"
    for _ in range(7):
        windows("Add-VMNetworkAdapter b")
    assert windows.say("Add-VMNetworkAdapter b").error["category"] == "InvalidArgument"


def test_adapters_come_and_go_while_a_generation_2_machine_runs(windows: Session) -> None:
    windows("Start-VM a; Add-VMNetworkAdapter a -Name more -SwitchName External")
    assert windows.one("(Get-VMNetworkAdapter a -Name more).MacAddress") != "000000000000"
    windows("Get-VMNetworkAdapter a -Name more | Remove-VMNetworkAdapter")

    assert windows("(Get-VM a).NetworkAdapters.Count") == [1]
    power = hyperv(windows.host).power
    assert isinstance(power, Pretence)
    assert power.unplugged == ["more"]


def test_switches_by_name_by_id_and_by_type(windows: Session) -> None:
    windows("$null = New-VMSwitch -Name Inside -SwitchType Internal -Notes n")
    windows("$null = New-VMSwitch Alone -SwitchType Private")

    for script, names in {
        "Get-VMSwitch": ["External", "Inside", "Alone"],
        "Get-VMSwitch *e": ["Alone", "Inside"],
        "Get-VMSwitch -SwitchType Private, External": ["External", "Alone"],
        "Get-VMSwitch -Id (Get-VMSwitch Inside).Id": ["Inside"],
        "Get-VMSwitch nosuch*": [],
    }.items():
        assert windows(f"{script} | ForEach-Object Name") == names, script
    assert windows("(Get-VMSwitch Inside).Notes; [string] (Get-VMSwitch inside).SwitchType") == [
        "n",
        "Internal",
    ]
    assert windows.one("(Get-VMSwitch External).AllowManagementOS") is True
    error = windows.say("Get-VMSwitch nosuch").error
    assert error["id"] == "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVMSwitch"


def test_a_switch_that_goes_leaves_its_ports_unconnected(windows: Session) -> None:
    windows("$null = New-VMSwitch Alone -SwitchType Private; Connect-VMNetworkAdapter a -SwitchName Alone")

    assert windows.say("Remove-VMSwitch Alone").error["category"] == "InvalidOperation"
    windows("Remove-VMSwitch Alone -Force")
    assert windows("(Get-VMNetworkAdapter a).Connected; (Get-VMSwitch).Name") == [False, "External"]


def test_the_switch_of_a_running_machine_stays(windows: Session) -> None:
    windows("Connect-VMNetworkAdapter a -SwitchName External; Start-VM a")

    assert "running virtual machines" in windows.say("Remove-VMSwitch External -Force").error["error"]
    assert windows("(Get-VMNetworkAdapter a).SwitchName") == ["External"]


def test_the_card_of_an_external_switch_is_free_for_another(windows: Session) -> None:
    windows("Connect-VMNetworkAdapter a -SwitchName External")
    error = windows.say("New-VMSwitch Second -NetAdapterName Ethernet").error
    assert "already bound" in error["error"]

    windows("Remove-VMSwitch External -Force")
    assert windows("(Get-VMNetworkAdapter a).Connected; @(Get-VMSwitch).Count") == [False, 0]
    assert windows("Get-VMNetworkAdapter -ManagementOS") == []
    assert windows.say("New-VMSwitch Second -NetAdapterName nosuch").error["category"] == "InvalidArgument"
    assert windows.say("New-VMSwitch Second -SwitchType External").errors
    said = windows("""
        $one = New-VMSwitch Second -NetAdapterName Ethernet -AllowManagementOS $true; [string] $one.SwitchType
        $one.NetAdapterInterfaceDescription; (Get-VMNetworkAdapter -ManagementOS).Name""")
    assert said == ["External", UPLINK, "Second"]
    assert [one.bridge for one in hyperv(windows.host).switches.values()] == ["br0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")
def test_an_internal_switch_is_a_bridge_that_the_host_is_on(windows: Session) -> None:
    host, switch = both = namespace("c-host"), namespace("c-switch")
    try:
        for name in both:
            subprocess.run(["ip", "netns", "add", name], check=True)
        windows.host.namespace, windows.host.switch_namespace = both
        windows("$null = New-VMSwitch Inside -SwitchType Internal")
        bridge = next(one.bridge for one in hyperv(windows.host).switches.values() if one.name == "Inside")
        ports = _links(switch, "master", str(bridge))
        ours = [one for one in _links(host) if one.startswith("vp")]

        assert len(ports) == 1
        assert len(ours) == 1
        windows("Add-VMNetworkAdapter -ManagementOS -Name more -SwitchName Inside")
        windows("Rename-VMNetworkAdapter -ManagementOS -Name more -NewName other")
        macs = windows("Get-VMNetworkAdapter -ManagementOS -SwitchName Inside | ForEach-Object MacAddress")
        assert len(_links(switch, "master", str(bridge))) == 2
        assert len({*macs, "000000000000"}) == 3
        windows("Remove-VMNetworkAdapter -ManagementOS -Name other")
        assert len(_links(switch, "master", str(bridge))) == 1

        switches.close(windows.host)
        assert _links(switch, "type", "bridge") == []
        assert not [one for one in _links(host) if one.startswith("vp")]
    finally:
        for name in both:
            subprocess.run(["ip", "netns", "del", name], check=True)


def _links(namespace: str, *options: str) -> list[str]:
    command = ["ip", "-br", "-n", namespace, "link", "show", *options]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split()[0].split("@")[0] for line in shown.splitlines()]


def test_ports_of_the_management_system(windows: Session) -> None:
    said = windows("""
        Add-VMNetworkAdapter -ManagementOS -SwitchName External -Name extra
        Rename-VMNetworkAdapter -ManagementOS -Name extra -NewName more
        (Get-VMNetworkAdapter -ManagementOS).Name
        (Get-VMNetworkAdapter -ManagementOS -Name more).IsManagementOs
        Remove-VMNetworkAdapter -ManagementOS -Name more; (Get-VMNetworkAdapter -ManagementOS).Name""")

    assert said == ["External", "more", True, "External"]
    for script in (
        "Remove-VMNetworkAdapter -ManagementOS -Name External",
        "Set-VMNetworkAdapterVlan -ManagementOS -VMNetworkAdapterName External -Access -VlanId 3",
    ):
        assert windows.say(script).error["category"] == "NotImplemented"
    windows("$null = New-VMSwitch Alone -SwitchType Private")
    error = windows.say("Add-VMNetworkAdapter -ManagementOS -SwitchName Alone").error
    assert error["category"] == "InvalidArgument"


def test_settings_without_an_effect_are_kept(windows: Session) -> None:
    said = windows("""
        Set-VMNetworkAdapter a -IovWeight 5 -IeeePriorityTag On -DhcpGuard On
        Set-VMNetworkAdapter a -PortMirroring Source -VmqWeight 7
        $nic = Get-VMNetworkAdapter a; $nic.IovWeight; [string] $nic.IeeePriorityTag; [string] $nic.DhcpGuard
        [string] $nic.PortMirroringMode; $nic.VMQWeight; $nic.IovWeight.GetType().Name""")

    assert said == [5, "On", "On", "Source", 7, "UInt32"]
    error = windows.say("Set-VMNetworkAdapter a -MaximumBandwidth 1000000").error
    assert error["error"] == "not emulated: Set-VMNetworkAdapter -MaximumBandwidth"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a*", "ABC", True),
        ("a?c", "abc", True),
        ("a[b-d]c", "aCc", True),
        ("a[b-d]c", "aec", False),
        ("a`*", "a*", True),
        ("a`*", "ab", False),
        ("a.c", "abc", False),
        ("abc", "abcd", False),
        ("[^a]", "^", True),
        ("[^a]", "b", False),
        ("[a-]", "-", True),
    ],
)
def test_wildcards(pattern: str, name: str, fits: bool) -> None:
    assert wildcards.matches(pattern, name) is fits


@pytest.mark.parametrize("pattern", ["[", "[]", "[c-6]"])
def test_what_is_no_wildcard_pattern(pattern: str) -> None:
    with pytest.raises(CmdletError, match=f"pattern is not valid: {re.escape(pattern)}"):
        wildcards.matches(pattern, "c")


def test_ranges_of_numbers() -> None:
    assert items.ranges([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"
    assert items.ranges([]) == ""
