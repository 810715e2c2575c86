"""Virtual machines through PowerShell: every way to name them, and what a running one refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.winhost.hyperv import model
from tests.winhost.hyperv.model import VM, GiB, MiB, hyperv
from tests.winhost.presence import require
from tests.winhost.tests.scripted import Pretence, Session, new_host, session

pytestmark = pytest.mark.winhost
VIRTUALIZATION = "Microsoft.HyperV.PowerShell.VirtualizationException"
SUFFIX = "Microsoft.HyperV.PowerShell.Commands"


@pytest.fixture(scope="module")
def running() -> Iterator[Session]:
    require()
    with session() as one:
        yield one


@pytest.fixture
def windows(running: Session) -> Session:
    running.reset(new_host(running.host.folder))
    return running


def vm(windows: Session, name: str = "a") -> VM:
    return next(one for one in hyperv(windows.host).vms.values() if one.name == name)


def test_a_new_machine_has_windows_defaults(windows: Session) -> None:
    shown = windows.one("""
        $vm = New-VM -Name a
        @{ g = $vm.Generation; m = $vm.MemoryStartup; p = $vm.ProcessorCount; s = [string] $vm.State
           start = [string] $vm.AutomaticStartAction; stop = [string] $vm.AutomaticStopAction
           checkpoint = [string] $vm.CheckpointType; automatic = $vm.AutomaticCheckpointsEnabled
           version = $vm.Version; folder = $vm.Path; nics = @($vm.NetworkAdapters).Count
           nic = $vm.NetworkAdapters[0].Name; mac = $vm.NetworkAdapters[0].MacAddress
           disks = @($vm.HardDrives).Count; dvds = @($vm.DVDDrives).Count; heart = $vm.Heartbeat }""")

    assert shown == {
        "g": 1,
        "m": 512 * MiB,
        "p": 1,
        "s": "Off",
        "start": "StartIfRunning",
        "stop": "Save",
        "checkpoint": "Production",
        "automatic": False,
        "version": "10.0",
        "folder": r"C:\ProgramData\Microsoft\Windows\Hyper-V",
        "nics": 1,
        "nic": "Network Adapter",
        "mac": "000000000000",
        "disks": 0,
        "dvds": 1,
        "heart": None,
    }


def test_a_generation_2_machine_with_its_own_folder_disk_and_switch(windows: Session) -> None:
    shown = windows.one(r"""
        $null = New-VHD -Path C:\d\one.vhdx -SizeBytes 1GB
        $vm = New-VM a 1GB 2 -VHDPath C:\d\one.vhdx -SwitchName external -Path C:\vms
        $disk = $vm.HardDrives[0]; $firmware = Get-VMFirmware -VM $vm
        @{ folder = $vm.ConfigurationLocation; disk = $disk.Path; type = [string] $disk.ControllerType
           switch = $vm.NetworkAdapters[0].SwitchName; connected = $vm.NetworkAdapters[0].Connected
           secure = [string] $firmware.SecureBoot; template = $firmware.SecureBootTemplate
           boot = @($firmware.BootOrder | ForEach-Object { [string] $_.BootType }) -join ' ' }""")

    assert shown == {
        "folder": r"C:\vms\a",
        "disk": r"C:\d\one.vhdx",
        "type": "SCSI",
        "switch": "External",
        "connected": True,
        "secure": "On",
        "template": "MicrosoftWindows",
        "boot": "Drive Network",
    }
    assert windows.host.local(rf"C:\vms\a\Virtual Machines\{vm(windows).id}.vmcx").exists()


@pytest.mark.parametrize(
    ("options", "error_id", "says"),
    [
        ("-SwitchName nosuch", "InvalidParameter", 'unable to find a virtual switch with name "nosuch"'),
        (r"-VHDPath C:\nosuch.vhdx", "ObjectNotFound", "0x80070002"),
        ("-MemoryStartupBytes 1000000001", "InvalidParameter", "multiple of 2 MB"),
        ("-MemoryStartupBytes 1MB", "InvalidParameter", "memory amount"),
        ("-Version 99.0", "InvalidParameter", "99.0"),
        (r"-Path Q:\vms", "ObjectNotFound", "0x80070003"),
        ("-Generation 2 -BootDevice Floppy", "InvalidParameter", "Floppy"),
        ("-BootDevice VHD", "InvalidParameter", "VHD"),
    ],
)
def test_a_machine_that_cannot_be_made_leaves_nothing(
    windows: Session, options: str, error_id: str, says: str
) -> None:
    said = windows.say(f"New-VM -Name a {options}; Get-VM; Get-ChildItem C:\\vms -ErrorAction Ignore")

    assert said.error["id"] == f"{error_id},{SUFFIX}.NewVM"
    assert said.error["type"] == VIRTUALIZATION
    assert says in said.error["error"]
    assert said.values == []
    assert not list(windows.host.drives["C"].rglob("*.vmcx"))


def test_a_missing_default_folder_is_an_error_unless_path_is_given(windows: Session) -> None:
    windows.host.local(hyperv(windows.host).machines_folder).rmdir()

    assert windows.say("New-VM -Name a").error["category"] == "ObjectNotFound"
    assert windows("(New-VM -Name a -Path C:\\vms).Name") == ["a"]


@pytest.mark.parametrize("name", ["a/b", "a*", "", "x" * 101])
def test_a_bad_name_is_refused(windows: Session, name: str) -> None:
    assert windows.say(f"New-VM -Name '{name}'").error["category"] == "InvalidArgument"


def test_names_are_not_unique_and_ids_are(windows: Session) -> None:
    windows(
        "$null = New-VM -Name a; $null = New-VM -Name A; $null = New-VM -Name 'a[1]'; $null = New-VM -Name b"
    )

    assert windows("(Get-VM).Count, (Get-VM a).Count, (Get-VM -Name a*).Count") == [4, 2, 3]
    assert windows("(Get-VM '*[1-3]*').Count, (Get-VM 'a`[1`]').Name, @(Get-VM c*).Count") == [1, "a[1]", 0]
    assert (
        windows("$id = (Get-VM b).Id; (Get-VM -Id $id).Name; (Get-VM $id).Name; ($id | Get-VM).Name")
        == ["b"] * 3
    )
    assert windows("(Get-VM A, b | Get-VM | ForEach-Object Name) -join ' '") == ["a A b"]


@pytest.mark.parametrize(
    ("script", "says", "target"),
    [
        ("Get-VM nobody", 'unable to find a virtual machine with name "nobody"', "nobody"),
        ("Get-VM -Id ([guid]::Empty)", "unable to find a virtual machine with id", "00000000-0000"),
        ("Start-VM nobody", 'unable to find a virtual machine with name "nobody"', "nobody"),
        ("Get-VMProcessor nobody", 'unable to find a virtual machine with name "nobody"', "nobody"),
        ("Get-VMNetworkAdapter nobody", 'unable to find a virtual machine with name "nobody"', "nobody"),
        ("Get-VMSnapshot nobody", 'unable to find a virtual machine with name "nobody"', "nobody"),
    ],
)
def test_a_machine_that_is_not_there_is_an_invalid_argument(
    windows: Session, script: str, says: str, target: str
) -> None:
    said = windows.say(f"{script}; 'went on'")

    cmdlet = script.split(maxsplit=1)[0].replace("-", "")
    assert said.values == ["went on"]
    assert says in said.error["error"]
    assert said.error["id"] == f"InvalidParameter,{SUFFIX}.{cmdlet}"
    assert (said.error["category"], said.error["type"]) == ("InvalidArgument", VIRTUALIZATION)
    assert said.error["target"].startswith(target)


def test_one_that_is_missing_does_not_keep_the_others_from_it(windows: Session) -> None:
    said = windows.say("$null = New-VM -Name a; Get-VM nobody, a, noone | ForEach-Object Name")

    assert said.values == ["a"]
    assert [one["target"] for one in said.errors] == ["nobody", "noone"]


def test_settings_by_name_by_object_and_by_pipeline(windows: Session) -> None:
    windows("""
        $null = New-VM -Name a -Generation 2; $null = New-VM -Name b -Generation 2
        Set-VM a -Notes one -AutomaticStartAction Start -AutomaticStopAction ShutDown -CheckpointType Disabled
        Set-VM -VM (Get-VM b) -ProcessorCount 2 -StaticMemory -MemoryStartupBytes 1GB -AutomaticStartDelay 9
        Get-VM | Set-VM -AutomaticCheckpointsEnabled $true -Passthru | Rename-VM -NewName both""")

    first, second = hyperv(windows.host).vms.values()
    assert (first.notes, first.start_action, first.stop_action, first.checkpoint_type) == (
        *("one", "Start", "ShutDown"),
        "Disabled",
    )
    assert (second.processor.count, second.memory.startup, second.start_delay) == (2, GiB, 9)
    assert [one.name for one in (first, second)] == ["both", "both"]
    assert first.automatic_checkpoints
    assert second.automatic_checkpoints


def test_notes_of_several_lines_come_back_as_they_were(windows: Session) -> None:
    text = '[vmproxy] {"a": 1}\nsecond: \u00e4\u20ac'

    assert windows.one(f"$n = @'\n{text}\n'@; (New-VM -Name a | Set-VM -Notes $n -Passthru).Notes") == text


def test_nothing_is_changed_when_one_setting_is_refused(windows: Session) -> None:
    said = windows.say("$null = New-VM -Name a; Set-VM a -Notes changed -ProcessorCount 99")

    assert "logical" in said.error["error"]
    assert vm(windows).notes == ""


_COLD = {
    "Set-VM a -ProcessorCount 2": "Processor",
    "Set-VM a -DynamicMemory": "Memory",
    "Set-VM a -AutomaticStopAction TurnOff": "modify settings",
    "Set-VMProcessor a -Count 2": "Processor",
    "Set-VMProcessor a -ExposeVirtualizationExtensions $true": "Processor",
    "Set-VMMemory a -DynamicMemoryEnabled $true": "Memory",
    "Set-VMFirmware a -EnableSecureBoot Off": "Firmware",
    "Set-VMFirmware a -SecureBootTemplateId 272e7447-90a4-4563-a4b9-8e4ab00526ce": "Firmware",
    "Set-VMComPort a -Number 1 -Path \\\\.\\pipe\\x": "COM 1",
    "Set-VMNetworkAdapter a -StaticMacAddress 00155D0A0B0C": "Network Adapter",
    "Remove-VM a -Force": "",
}


@pytest.mark.parametrize("script", _COLD)
def test_what_stays_as_it_is_while_a_machine_runs(windows: Session, script: str) -> None:
    windows("$null = New-VM -Name a -Generation 2; Start-VM a")

    error = windows.say(script).error
    assert error["id"].startswith("InvalidState,Microsoft.HyperV")
    assert (error["category"], error["type"]) == ("InvalidOperation", VIRTUALIZATION)
    assert _COLD[script] in error["error"]
    windows(f"Stop-VM a -TurnOff; {script}")


def test_what_may_change_while_a_machine_runs(windows: Session) -> None:
    windows("""
        $null = New-VM -Name a -Generation 2 -MemoryStartupBytes 1GB; Start-VM a
        Set-VM a -Notes hot -AutomaticStartAction Start -CheckpointType Disabled -MemoryStartupBytes 2GB
        Set-VMMemory a -Priority 70; Set-VMProcessor a -RelativeWeight 200 -Count 1
        Set-VMNetworkAdapter a -MacAddressSpoofing On; Connect-VMNetworkAdapter a -SwitchName External
        Set-VMNetworkAdapterVlan a -Access -VlanId 12
        Get-VMIntegrationService a -Name VSS | Disable-VMIntegrationService
        Rename-VM a b""")

    one = vm(windows, "b")
    assert (one.notes, one.memory.startup, one.memory.priority, one.processor.weight) == (
        "hot",
        2 * GiB,
        70,
        200,
    )
    power = hyperv(windows.host).power
    assert isinstance(power, Pretence)
    assert len(power.connected) == 2


def test_a_running_machine_cannot_have_more_memory_than_the_host(windows: Session) -> None:
    windows("$null = New-VM -Name a; Start-VM a")

    assert windows.say("Set-VM a -MemoryStartupBytes 64GB").error["id"].startswith("OutOfMemory,")
    assert windows("Stop-VM a -TurnOff; Set-VM a -MemoryStartupBytes 64GB") == []


def test_dynamic_memory_keeps_its_order(windows: Session) -> None:
    windows("$null = New-VM a 1GB; Set-VMMemory a -DynamicMemoryEnabled $true -MaximumBytes 4GB")

    assert windows.say("Set-VMMemory a -StartupBytes 8GB").error["category"] == "InvalidArgument"
    assert windows.one("(Get-VM a).MemoryMaximum") == 4 * GiB
    windows("Start-VM a; Set-VMMemory a -MaximumBytes 5GB -MinimumBytes 256MB")
    assert windows.say("Set-VMMemory a -MaximumBytes 2GB").error["id"].startswith("InvalidState,")


def test_starting_and_stopping(windows: Session) -> None:
    said = windows.say("""
        $null = New-VM -Name a; Start-VM a -Passthru | ForEach-Object { [string] $_.State }
        Start-VM a; (Get-VM a).Uptime -gt [timespan]::Zero; [string] (Get-VM a).Heartbeat
        (Get-VM a).MemoryAssigned -eq 512MB
        Restart-VM a -Force; Wait-VM a -For Heartbeat -Timeout 5
        Get-VM | Stop-VM -Force; Stop-VM a; [string] (Get-VM a).State; (Get-VM a).Uptime.Ticks""")

    assert not said.errors
    assert said.warnings == ["The virtual machine is already in the specified state."] * 2
    assert said.values == ["Running", True, "OkApplicationsUnknown", True, "Off", 0]


def test_waiting_for_a_heart_that_does_not_beat_times_out(windows: Session) -> None:
    hyperv(windows.host).power = Pretence(heart="NoContact")
    windows("$null = New-VM -Name a; Start-VM a")

    assert windows.say("Wait-VM a -For Heartbeat -Timeout 1").error["category"] == "OperationTimeout"


def test_a_dynamic_address_is_given_at_the_first_start_and_kept(windows: Session) -> None:
    said = windows("""
        $null = New-VM -Name a; $null = New-VM -Name b
        Get-VM | Start-VM; Get-VM | Stop-VM -TurnOff; Get-VM | Start-VM
        Get-VM | ForEach-Object { $_.NetworkAdapters[0].MacAddress }""")

    assert said == ["00155D010A00", "00155D010A01"]


def test_removing_a_machine_leaves_its_disks(windows: Session) -> None:
    windows(r"""
        $vm = New-VM -Name a -NewVHDPath C:\d\two.vhdx -NewVHDSizeBytes 64MB -Path C:\vms
        Remove-VM -VM $vm -Force""")

    assert windows.host.local(r"C:\d\two.vhdx").exists()
    assert windows.host.local(r"C:\vms\a").is_dir()
    assert not list(windows.host.local(r"C:\vms").rglob("*.vmcx"))


def test_an_object_of_a_machine_that_is_gone_is_an_error(windows: Session) -> None:
    error = windows.say("$vm = New-VM -Name a; Remove-VM a -Force; Set-VM -VM $vm -Notes x").error

    assert (error["category"], error["type"]) == ("ObjectNotFound", VIRTUALIZATION)


def test_firmware_by_id_by_name_and_its_boot_order(windows: Session) -> None:
    said = windows(r"""
        $vm = New-VM -Name a -Generation 2 -NewVHDPath C:\d\three.vhdx -NewVHDSizeBytes 64MB
        Set-VMFirmware $vm -SecureBootTemplateId ([guid] '272e7447-90a4-4563-a4b9-8e4ab00526ce')
        (Get-VMFirmware a).SecureBootTemplate
        Set-VMFirmware -VM $vm -SecureBootTemplate MicrosoftWindows -FirstBootDevice $vm.NetworkAdapters[0]
        [string] (Get-VMFirmware a).SecureBootTemplateId; [string] (Get-VMFirmware a).BootOrder[0].BootType
        Get-VMFirmware a | Set-VMFirmware -FirstBootDevice $vm.HardDrives[0] -EnableSecureBoot Off
        [string] (Get-VMFirmware a).BootOrder[0].BootType; [string] (Get-VMFirmware a).SecureBoot
        Set-VMFirmware a -BootOrder (Get-VMFirmware a).BootOrder[1]
        (Get-VMFirmware a).BootOrder[0].Device.Name""")

    assert said == [
        *("MicrosoftUEFICertificateAuthority", model.WINDOWS, "Network", "Drive", "Off"),
        "Network Adapter",
    ]


def test_firmware_is_for_generation_2(windows: Session) -> None:
    windows("$null = New-VM -Name a")

    assert windows.say("Get-VMFirmware a").error["category"] == "InvalidOperation"
    assert windows.say("Set-VMFirmware a -EnableSecureBoot Off").error["category"] == "InvalidOperation"
    error = windows.say("$null = New-VM b -Generation 2; Set-VMFirmware b -SecureBootTemplate None").error
    assert "matches none of the secure boot templates" in error["error"]


def test_com_ports(windows: Session) -> None:
    said = windows(r"""
        $vm = New-VM -Name a; Set-VMComPort a -Number 1 -Path \\.\pipe\a-com1
        Get-VMComPort a | ForEach-Object { "$($_.Name)=$($_.Path)" }
        $vm | Get-VMComPort -Number 2 | ForEach-Object Name
        (Get-VM a).ComPort1.Path""")

    assert said == ["COM 1=\\\\.\\pipe\\a-com1", "COM 2=", "COM 2", "\\\\.\\pipe\\a-com1"]
    assert windows.say("Set-VMComPort a -Number 3 -Path x").errors
    assert windows.say("Set-VMComPort a -Number 1 -Path C:\\file").error["category"] == "InvalidArgument"


_SERVICES = "Get-VMIntegrationService a | ForEach-Object { [string] $_.Enabled + ' ' + $_.Name }"


def test_integration_services_by_id(windows: Session) -> None:
    said = windows(f"""
        $null = New-VM -Name a; (Get-VMIntegrationService a).Count
        Get-VMIntegrationService a | Where-Object Id -Match '2497F4DE-E9FA-4204-80E4-4B75C46419C0' |
            Disable-VMIntegrationService
        Enable-VMIntegrationService -VMName a -Name 'Guest Service Interface'
        {_SERVICES}""")

    assert said == [
        *(6, "True Guest Service Interface", "True Heartbeat", "True Key-Value Pair Exchange"),
        *("True Shutdown", "False Time Synchronization", "True VSS"),
    ]


def test_a_german_host_has_german_names(windows: Session) -> None:
    windows.host.language = "de-DE"
    said = windows(f"$vm = New-VM -Name a; $vm.NetworkAdapters[0].Name; $vm.Status; {_SERVICES}")

    assert said[:2] == ["Netzwerkadapter", "Normaler Betrieb"]
    assert "True Zeitsynchronisierung" in said
    error = windows.say("Disable-VMIntegrationService -VMName a -Name 'Time Synchronization'").error
    assert error["category"] == "InvalidArgument"


def test_a_heartbeat_that_is_switched_off_is_told(windows: Session) -> None:
    windows("$null = New-VM -Name a; Start-VM a; Disable-VMIntegrationService -VMName a -Name Heartbeat")

    assert windows.one("[string] (Get-VM a).Heartbeat") == "Disabled"


def test_without_its_service_no_cmdlet_works(windows: Session) -> None:
    windows.host.services["vmms"] = "Stopped"

    for script in ("Get-VM", "Get-VMHost", "Get-VMSwitch", "New-VM -Name a", "Get-VHD C:\\x.vhdx"):
        error = windows.say(script).error
        assert "Verify that the Virtual Machine Management service" in error["error"]
        assert (error["category"], error["type"]) == ("ObjectNotFound", VIRTUALIZATION)


def test_the_hosts_own_facts(windows: Session) -> None:
    shown: dict[str, Any] = windows.one("""
        $h = Get-VMHost
        @{ cpus = $h.LogicalProcessorCount; memory = $h.MemoryCapacity; name = $h.ComputerName
           low = $h.MacAddressMinimum; high = $h.MacAddressMaximum; versions = $h.SupportedVmVersions[-1]
           templates = @($h.SecureBootTemplates | ForEach-Object { [string] $_.Id }) -join ' ' }""")

    assert shown["templates"].split() == [model.WINDOWS, model.UEFI_CA, model.SHIELDED]
    assert (shown["cpus"], shown["memory"], shown["versions"]) == (8, 16 * GiB, "10.0")
    assert (shown["low"], shown["high"]) == ("00155D010A00", "00155D010AFF")
    error = windows.say("Set-VMHost -VirtualMachinePath C:\\nosuch").error
    assert error["category"] == "InvalidArgument"
    windows("Set-VMHost -VirtualMachinePath C:\\Users")
    assert windows.one("(Get-VMHost).VirtualMachinePath") == "C:\\Users"


def test_checkpoints_are_none_or_refused(windows: Session) -> None:
    windows("$null = New-VM -Name a; Set-VM a -CheckpointType Disabled")

    assert windows("Get-VMSnapshot a; Get-VM a | Get-VMCheckpoint") == []
    assert "disabled" in windows.say("Checkpoint-VM a").error["error"]
    windows("Set-VM a -CheckpointType Standard")
    assert windows.say("Checkpoint-VM a").error["error"] == "not emulated: Checkpoint-VM"


def test_security_of_a_machine_without_a_tpm(windows: Session) -> None:
    assert windows.one("$null = New-VM a -Generation 2; (Get-VMSecurity a).TpmEnabled") is False


def test_automatic_checkpoints_are_unknown_on_2016() -> None:
    require()
    with session("2016") as old:
        assert old("(Get-Command Set-VM).Parameters.ContainsKey('AutomaticCheckpointsEnabled')") == [False]
        shown = old(
            "$vm = New-VM a; $vm.Version; $vm.PSObject.Properties['AutomaticCheckpointsEnabled'] -eq $null"
        )
        error = old.say("Set-VM a -AutomaticCheckpointsEnabled $false").error

    assert shown == ["8.0", True]
    assert error["id"].startswith("NamedParameterNotFound,")
