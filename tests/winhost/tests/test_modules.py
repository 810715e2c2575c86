"""The generated modules: every cmdlet of the tables is there, and refuses what Windows refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.winhost import engine, tables
from tests.winhost.binding import attributes, position_in
from tests.winhost.clrtypes import Namespace, parameter_type
from tests.winhost.engine import Call, CmdletError, CmdletFault, Item, emulates
from tests.winhost.hyperv.model import hyperv
from tests.winhost.presence import require
from tests.winhost.state import VERSIONS, Host
from tests.winhost.tables import Cmdlet
from tests.winhost.tests.scripted import Session, new_host, session

pytestmark = pytest.mark.winhost
CLASS = "Microsoft.HyperV.PowerShell.Commands"
_LIST = r"""
foreach ($command in Get-Command -Module %s -CommandType Function, Cmdlet) {
    $parameters = @{}
    foreach ($one in $command.Parameters.Values) {
        $sets = @{}
        foreach ($set in $one.ParameterSets.Keys) {
            $in = $one.ParameterSets[$set]
            $sets[$set] = @($in.IsMandatory, $in.Position)
        }
        $parameters[$one.Name] = @{ sets = $sets; aliases = @($one.Aliases) }
    }
    @{ name = $command.Name; parameters = $parameters; default = [string] $command.DefaultParameterSet }
}
"""
_COMMON = {"Verbose", "Debug", "ErrorAction", "WarningAction", "InformationAction", "ProgressAction"}
_COMMON |= {"ErrorVariable", "WarningVariable", "InformationVariable", "OutVariable", "OutBuffer"}
_COMMON |= {"PipelineVariable", "WhatIf", "Confirm"}


@pytest.fixture(scope="module")
def running() -> Iterator[Session]:
    require()
    with session() as one:
        yield one


@pytest.fixture
def windows(running: Session) -> Session:
    running.reset(new_host(running.host.folder))
    return running


def _sets(cmdlet: Cmdlet, name: str) -> dict[str, list[Any]]:
    parameter = cmdlet.parameters[name]
    own = {key: position_in(cmdlet, parameter, key) for key in parameter.sets}
    return {
        key or "__AllParameterSets": [value, -2147483648 if own[key] is None else own[key]]
        for key, value in parameter.sets.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_cmdlet_has_the_parameters_sets_and_aliases_of_the_tables(version: str) -> None:
    require()
    known = tables.cmdlets(version)
    with session(version) as windows:
        listed = {one["name"]: one for module in tables.MODULES for one in windows(_LIST % module)}

    assert set(listed) == set(known)
    for name, cmdlet in known.items():
        made = listed[name]["parameters"]
        assert set(made) - _COMMON == set(cmdlet.parameters) - _COMMON, name
        assert listed[name]["default"] == (cmdlet.sets[0] if cmdlet.sets else ""), name
        for key in set(cmdlet.parameters) - _COMMON:
            assert made[key]["sets"] == _sets(cmdlet, key), (name, key)
            assert set(made[key]["aliases"]) == set(cmdlet.parameters[key].aliases), (name, key)


def test_parameters_have_windows_types(windows: Session) -> None:
    script = "(Get-Command {}).Parameters['{}'].ParameterType.FullName"
    space = "Microsoft.HyperV.PowerShell"
    for cmdlet, name, kind in (
        ("Set-VM", "VM", f"{space}.VirtualMachine[]"),
        ("Set-VM", "AutomaticStartAction", f"{space}.StartAction"),
        ("New-VM", "Generation", "System.Int16"),
        ("Set-VMFirmware", "SecureBootTemplateId", "System.Guid"),
        ("New-NetRoute", "RouteMetric", "System.UInt16"),
    ):
        read = windows.one(script.format(cmdlet, name))
        assert read.startswith(kind), (cmdlet, name)


def test_no_parameter_of_hyper_v_takes_just_anything() -> None:
    require()
    free = {
        (cmdlet.name, parameter.name)
        for cmdlet in tables.cmdlets("2022").values()
        for parameter in cmdlet.parameters.values()
        if cmdlet.module == "Hyper-V" and parameter.type.removesuffix("[]") not in {"CimSession", "Object"}
        if parameter_type(Namespace("2022", "Hyper-V"), cmdlet, parameter).name.startswith("object")
        if not parameter_type(Namespace("2022", "Hyper-V"), cmdlet, parameter).object
    }

    assert not free


@pytest.mark.parametrize(
    ("script", "error_id", "category"),
    [
        ("Get-VMM", "CommandNotFoundException", "ObjectNotFound"),
        ("Get-VM -Nonsense 1", f"NamedParameterNotFound,{CLASS}.GetVM", "InvalidArgument"),
        ("New-VM a -VHDPath b -NoVHD", f"AmbiguousParameterSet,{CLASS}.NewVM", "InvalidArgument"),
        ("New-VM a -Generation 3", f"ParameterArgumentValidationError,{CLASS}.NewVM", "InvalidData"),
        (
            "Set-VM a -AutomaticStartAction Perhaps",
            f"CannotConvertArgumentNoMessage,{CLASS}.SetVM",
            "InvalidArgument",
        ),
        ("Set-VM -VM 'a'", f"CannotConvertArgumentNoMessage,{CLASS}.SetVM", "InvalidArgument"),
        ("Get-VMHost | Set-VMHost", f"InputObjectNotBound,{CLASS}.SetVMHost", "InvalidArgument"),
        (
            "New-NetRoute 10.0.0.0/8 -InterfaceIndex 2 -Protocol Nonsense",
            "ParameterArgumentTransformationError,New-NetRoute",
            "InvalidData",
        ),
        (
            "New-NetRoute 10.0.0.0/8 -InterfaceIndex 2 -InterfaceAlias a",
            "AmbiguousParameterSet,New-NetRoute",
            "InvalidArgument",
        ),
        ("Get-NetRoute -Nonsense 1", "NamedParameterNotFound,Get-NetRoute", "InvalidArgument"),
        (
            "Remove-VM -Name $null -Force",
            f"ParameterArgumentValidationErrorNullNotAllowed,{CLASS}.RemoveVM",
            "InvalidData",
        ),
    ],
)
def test_what_windows_binding_refuses_is_refused(
    windows: Session, script: str, error_id: str, category: str
) -> None:
    error = windows.say(script).error

    assert (error["id"], error["category"]) == (error_id, category)
    assert not windows.host.calls or windows.host.calls[-1].cmdlet == "Get-VMHost"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("$vm = Get-VM one; Start-VM $vm; [string]$vm.State", ["Running"]),
        ("$vm = Get-VM one; Set-VM $vm -Notes q; $vm.Notes", ["q"]),
        ("$vm = Get-VM one; Add-VMNetworkAdapter $vm; $vm.NetworkAdapters.Count", [2]),
        ("$vm = Get-VM one; Rename-VM one -NewName two; $vm.Name", ["two"]),
        ("$vm = Get-VM one; Remove-VM one -Force; $vm.IsDeleted; $vm.Name", [True, "one"]),
        (
            "$a = Get-VMNetworkAdapter one; Connect-VMNetworkAdapter $a -SwitchName External; $a.SwitchName",
            ["External"],
        ),
    ],
)
def test_an_object_shows_what_is_now(windows: Session, script: str, expected: list[Any]) -> None:
    windows("New-VM one -Generation 2 | Out-Null")

    assert windows(script) == expected


def test_what_changes_by_itself_is_seen_a_moment_later(windows: Session) -> None:
    windows("New-VM one -Generation 2 | Out-Null; $global:Vm = Get-VM one")
    (vm,) = hyperv(windows.host).vms.values()
    vm.notes = "changed"

    assert windows("Start-Sleep -Milliseconds 300; $global:Vm.Notes") == ["changed"]


def test_every_property_can_be_read(windows: Session) -> None:
    """By reflection: PowerShell shows $null for one that throws."""
    windows("New-VM one -Generation 2 -NewVHDPath C:\\d\\one.vhdx -NewVHDSizeBytes 64MB | Out-Null")
    read = """
        foreach ($one in (Get-VM one), (Get-VMSwitch), (Get-VMHost), (Get-VHD C:\\d\\one.vhdx),
            (Get-VMHardDiskDrive one), (Get-VMNetworkAdapter one), (Get-VMFirmware one)) {
            foreach ($property in $one.GetType().GetProperties()) { $null = $property.GetValue($one) }
        }"""
    assert windows(read) == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("(New-VHD C:\\d\\a.vhdx 128MB).Size", [128 << 20]),
        ("$null = New-VM old; (Get-VMIdeController old).ControllerNumber", [0, 1]),
        (
            "New-VHD C:\\d\\a.vhdx 64MB | % Path; (New-VHD C:\\d\\b.vhdx C:\\d\\a.vhdx).ParentPath",
            [r"C:\d\a.vhdx"] * 2,
        ),
        (
            "Connect-VMNetworkAdapter one 'Network Adapter' External; (Get-VMNetworkAdapter one).SwitchName",
            ["External"],
        ),
        (
            "Connect-VMNetworkAdapter (Get-VMNetworkAdapter one) External -Passthru | % SwitchName",
            ["External"],
        ),
        (
            "Get-VMHardDiskDrive one | Set-VMHardDiskDrive -ToControllerLocation 3 -Passthru | % VMName",
            ["one"],
        ),
    ],
)
def test_positions_and_drives(windows: Session, script: str, expected: list[Any]) -> None:
    windows("New-VM one -NewVHDPath C:\\d\\one.vhdx -NewVHDSizeBytes 64MB -Generation 2 | Out-Null")

    assert windows(script) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_no_set_of_an_emulated_cmdlet_has_a_position_twice(version: str) -> None:
    twice = []
    for cmdlet in tables.cmdlets(version).values():
        if cmdlet.name.lower() not in engine.BEHAVIOURS:
            continue
        for name in cmdlet.sets or [""]:
            taken = [
                one["Position"]
                for parameter in cmdlet.parameters.values()
                for one in attributes(cmdlet, parameter)
                if one.get("ParameterSetName", name) == name and "Position" in one
            ]
            twice += [(cmdlet.name, name)] if len(taken) != len(set(taken)) else []
    assert twice == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("Get-VMHardDiskDrive one | Get-VHD | % Path", [r"C:\d\one.vhdx"]),
        ("Get-ChildItem C:\\d\\*.vhdx | Get-VHD | % Path", [r"C:\d\one.vhdx"]),
        ("Get-VM one | Select-Object VMId | Get-VHD | % Path", [r"C:\d\one.vhdx"]),
        ("'C:\\d\\one.vhdx' | Test-VHD", [True]),
        ("'C:\\d\\a.vhdx', 'C:\\d\\b.vhdx' | New-VHD -SizeBytes 64MB | % Size", [64 << 20, 64 << 20]),
        ("'two' | New-VM | % Name", ["two"]),
        (
            "'one' | Set-VMNetworkAdapter -StaticMacAddress 00155D000001 -Passthru | % MacAddress",
            ["00155D000001"],
        ),
        (
            "Get-VMNetworkAdapter * | Set-VMNetworkAdapterVlan -Access -VlanId 5 -Passthru | % AccessVlanId",
            [5],
        ),
        (
            "Get-VMSwitch | Connect-VMNetworkAdapter -VMName one -Passthru | % SwitchName",
            ["External"],
        ),
        ("(Get-VM one).Id | Get-VM | % Name", ["one"]),
    ],
)
def test_what_windows_takes_from_the_pipeline(windows: Session, script: str, expected: list[Any]) -> None:
    windows("New-VM one -NewVHDPath C:\\d\\one.vhdx -NewVHDSizeBytes 64MB -Generation 2 | Out-Null")

    assert windows(script) == expected


@pytest.mark.parametrize(
    "script",
    [
        "'External' | Get-VMSwitch",
        "'one' | Set-VMDvdDrive -Path $null",
        "'one' | Connect-VMNetworkAdapter -SwitchName External",
    ],
)
def test_what_windows_does_not_take_from_the_pipeline(windows: Session, script: str) -> None:
    assert windows.say(script).error["id"].startswith("InputObjectNotBound,")


def test_a_mandatory_parameter_cannot_be_asked_for(windows: Session) -> None:
    error = windows.say("Remove-VM -Force").error

    assert "Name" in error["error"]
    assert not windows.host.calls


def test_what_is_not_emulated_ends_the_script(windows: Session) -> None:
    said = windows.say("try { Export-VM a -Path C:\\x } finally { }; 'never'")

    assert said.ended
    assert said.error["error"] == "not emulated: Export-VM"
    assert said.error["category"] == "NotImplemented"


@pytest.mark.parametrize(
    "option", ["-ComputerName other", "-CimSession other", "-ComputerName localhost, other"]
)
def test_other_computers_are_refused(windows: Session, option: str) -> None:
    assert windows.say(f"Get-VM {option}").error["error"].startswith("not emulated: Get-VM -C")


def test_this_computer_may_be_named(windows: Session) -> None:
    assert windows(f"Get-VM -ComputerName localhost, {windows.host.name}, .") == []


def test_background_jobs_are_refused(windows: Session) -> None:
    assert windows.say("Start-VM a -AsJob").error["error"] == "not emulated: Start-VM -AsJob"


def test_what_if_does_nothing(windows: Session) -> None:
    windows("New-VM -Name a -WhatIf; Remove-VM a -WhatIf -Force")

    assert not windows.host.calls


def test_a_cmdlet_that_asks_fails_where_nobody_can_answer(windows: Session) -> None:
    windows("$null = New-VM -Name a; $null = New-VM -Name b; $null = New-VM -Name c")

    error = windows.say("Remove-VM a").error
    assert error["id"] == f"InvalidOperation,{CLASS}.RemoveVM"
    assert error["type"] == "System.Management.Automation.PSInvalidOperationException"
    assert "NonInteractive" in error["error"]
    assert windows.say("Remove-VM b -Force -Confirm").errors
    windows("Remove-VM a -Confirm:$false; Remove-VM b -Force; $ConfirmPreference = 'None'; Remove-VM c")
    assert windows("Get-VM") == []


def test_the_switchboard_makes_a_cmdlet_slow_or_fail(windows: Session) -> None:
    broken = CmdletError("The RPC server is unavailable.", error_id="Broken", category="ResourceUnavailable")
    windows.host.faults += [
        CmdletFault("Get-VMHost", seconds=0.3),
        CmdletFault("New-VM", nth=2, error=broken, after=True),
    ]

    took = windows.one("(Measure-Command { Get-VMHost }).TotalSeconds")
    error = windows.say("$null = New-VM -Name a; $null = New-VM -Name b").error

    assert took >= 0.3
    assert error["id"].startswith("Broken,")
    assert windows("Get-VM | ForEach-Object Name") == ["a", "b"]


def test_a_mistake_of_the_emulator_is_an_error_and_is_kept(windows: Session) -> None:
    windows.host.faults.append(CmdletFault("Get-VMHost", seconds=-1))

    assert "mistake in the emulator" in windows.say("Get-VMHost").error["error"]
    assert len(windows.host.mistakes) == 1


def test_windows_types_come_with_the_module(windows: Session) -> None:
    said = windows("""
        $vm = New-VM -Name a
        $vm.GetType().FullName; $vm.State.GetType().FullName; $vm.Id.GetType().FullName
        $vm.MemoryStartup.GetType().FullName; "$vm"; [int] [Microsoft.HyperV.PowerShell.VMState]::Off
        $vm.VMId -eq $vm.Id; $vm.State -eq 'Off'""")

    assert said[:4] == [
        "Microsoft.HyperV.PowerShell.VirtualMachine",
        "Microsoft.HyperV.PowerShell.VMState",
        "System.Guid",
        "System.Int64",
    ]
    assert said[4].startswith("VirtualMachine (Name = 'a') [Id = '")
    assert said[5:] == [3, True, True]


def test_properties_are_read_only(windows: Session) -> None:
    assert windows.say("$vm = New-VM -Name a; $vm.Notes = 'x'").ended


def test_an_item_with_a_property_that_the_class_has_not_is_a_mistake(windows: Session) -> None:
    def broken(host: Host, call: Call) -> Iterator[Item]:
        yield Item("Microsoft.HyperV.PowerShell.VMHost", "1", {"Nonsense": 1})

    before = engine.BEHAVIOURS.pop("get-vmhost")
    try:
        emulates("Get-VMHost")(broken)
        assert "Nonsense" in windows.say("Get-VMHost").error["error"]
    finally:
        engine.BEHAVIOURS["get-vmhost"] = before


def test_hyper_v_loads_quickly(windows: Session) -> None:
    with session() as fresh:
        seconds = fresh.one("(Measure-Command { Import-Module Hyper-V }).TotalSeconds")

    assert seconds < 3


def test_a_compiled_cmdlet_goes_by_its_callers_preference(windows: Session) -> None:
    said = windows.say("""
        & { $ErrorActionPreference = 'Stop'; try { Get-VM nobody; 'on' } catch { $_.FullyQualifiedErrorId } }
        & { $ErrorActionPreference = 'SilentlyContinue'; Get-VM nobody; 'went on' }
        & { $ErrorActionPreference = 'Stop'; Get-VM nobody -ErrorAction SilentlyContinue; 'went on' }
        Get-VM nobody""")

    assert said.values == [
        f"InvalidParameter,{CLASS}.GetVM",
        "went on",
        "went on",
    ]
    assert said.error["error"] == 'Hyper-V was unable to find a virtual machine with name "nobody".'


def test_a_cim_cmdlet_is_a_function_and_sees_global_preferences_only(windows: Session) -> None:
    broken = CmdletError("No.", error_id="Broken", terminating=False)
    windows.host.faults.append(CmdletFault("Get-NetRoute", times=9, error=broken))

    said = windows.say("""
        & { $ErrorActionPreference = 'Stop'; Get-NetRoute; 'not stopped' }
        & { try { Get-NetRoute -ErrorAction Stop; 'not stopped' } catch { $_.FullyQualifiedErrorId } }""")

    assert said.values == ["not stopped", "Broken,Get-NetRoute"]


def test_only_modules_that_windows_compiles_have_cmdlets(windows: Session) -> None:
    names = "Get-VM, Get-CimInstance, Get-NetRoute, Get-HnsNetwork"
    kinds = windows(f"Get-Command {names} | ForEach-Object {{ [string] $_.CommandType }}")

    assert kinds == ["Cmdlet", "Cmdlet", "Function", "Function"]


def test_a_relative_path_starts_where_powershell_is(windows: Session) -> None:
    said = windows("""
        Set-Location C:\\d; (New-VHD one.vhdx -SizeBytes 64MB).Path
        (Get-VHD .\\x\\..\\one.vhdx).Path; Test-VHD one.vhdx
        (New-VM a -VHDPath one.vhdx).HardDrives[0].Path; (New-VM b -Path vms).Path
        (New-VM c -NewVHDPath c.vhdx -NewVHDSizeBytes 64MB).HardDrives[0].Path; Set-Location C:\\""")

    disks = r"C:\Users\Public\Documents\Hyper-V\Virtual Hard Disks"
    assert said == [
        r"C:\d\one.vhdx",
        r"C:\d\one.vhdx",
        True,
        r"C:\d\one.vhdx",
        r"C:\d\vms\b",
        rf"{disks}\c.vhdx",
    ]


def test_without_a_feature_its_cmdlets_are_not_there() -> None:
    require()
    with session(features=set()) as bare:
        for cmdlet in ("Get-VM", "Get-HnsNetwork"):
            error = bare.say(cmdlet).error
            assert (error["id"], error["category"]) == ("CommandNotFoundException", "ObjectNotFound")
        assert bare("(Get-Command Get-NetRoute).Name") == ["Get-NetRoute"]


def test_a_machine_looks_in_a_console_as_it_does_on_windows(windows: Session) -> None:
    shown = windows.one("$null = New-VM a; Get-VM | Out-String")
    heads, _, row = [line.split() for line in shown.splitlines() if line.strip()]

    assert [one.partition("\x1b")[0] for one in heads] == [
        *("Name", "State", "CPUUsage(%)", "MemoryAssigned(M)", "Uptime", "Status", "Version"),
    ]
    assert row == ["a", "Off", "0", "0", "00:00:00", "Operating", "normally", "10.0"]
