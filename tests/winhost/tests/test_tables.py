"""What the tables of cmdlets say of each Windows version."""

from __future__ import annotations

import pytest

from tests.winhost import tables
from tests.winhost.clrtypes import wanted
from tests.winhost.state import VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_cmdlets_that_a_vm_needs(version: str) -> None:
    known = tables.cmdlets(version)

    for name in (
        "New-VM",
        "Wait-VM",
        "New-NetRoute",
        "Get-WindowsFeature",
        "Get-CimInstance",
    ):
        assert known[name].parameters


@pytest.mark.parametrize("version", VERSIONS)
def test_the_languages_own_cmdlets_are_left_to_the_stand_in(version: str) -> None:
    assert not {"Get-Item", "ConvertTo-Json", "Get-Acl", "Where-Object"} & set(tables.cmdlets(version))


def test_the_module_of_hns_came_after_2016() -> None:
    assert [v for v in VERSIONS if "Get-HnsNetwork" in tables.cmdlets(v)] == ["2019", "2022", "2025"]


def test_automatic_checkpoints_came_after_2016() -> None:
    having = [v for v in VERSIONS if "AutomaticCheckpointsEnabled" in tables.cmdlets(v)["Set-VM"].parameters]

    assert having == ["2019", "2022", "2025"]


def test_an_entry_that_is_the_same_as_another_is_read_there() -> None:
    assert tables.cmdlets("2019")["New-VM"] == tables.cmdlets("2016")["New-VM"]
    assert "GuestStateIsolationType" not in tables.cmdlets("2022")["New-VM"].parameters
    assert "GuestStateIsolationType" in tables.cmdlets("2025")["New-VM"].parameters


def test_parameter_sets_say_where_a_parameter_is_mandatory() -> None:
    cmdlet = tables.cmdlets("2022")["New-VM"]

    assert cmdlet.sets == ("No VHD", "New VHD", "Existing VHD")
    assert cmdlet.parameters["NewVHDPath"].sets == {"New VHD": True}
    assert cmdlet.parameters["Generation"].sets == {"": False}
    assert cmdlet.parameters["Generation"].values == ("1", "2")
    assert cmdlet.parameters["Name"].aliases == ("VMName",)
    assert cmdlet.parameters["MemoryStartupBytes"].position == 1


def test_enums_have_windows_numbers() -> None:
    enums = wanted("2022")["enums"]

    assert enums["Microsoft.HyperV.PowerShell.OnOffState"] == {"On": 0, "Off": 1}
    assert enums["Microsoft.HyperV.PowerShell.VMState"]["Running"] == 2
    assert enums["Microsoft.Vhd.PowerShell.VhdType"]["Differencing"] == 4
    route = enums["Microsoft.PowerShell.Cmdletization.GeneratedTypes.NetRoute.Protocol"]
    assert (route["NetMgmt"], route["Dhcp"]) == (3, 19)
    assert enums["Microsoft.PowerShell.Cmdletization.GeneratedTypes.NetRoute.AddressFamily"]["IPv6"] == 23
