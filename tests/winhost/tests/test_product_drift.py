"""Drift of the product's VM on the emulated host: each one is repaired by one apply, whoever caused it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.opened import Opened
from tests.winhost.hyperv.model import hyperv
from tests.winhost.hyperv.storage import Storage
from tests.winhost.presence import require
from tests.winhost.tests.product import DIRECTORY, IMAGE, MIB, NAME, SEED, Windows, windows
from tests.winhost.tests.scripted import Pretence
from vmproxy.errors import VmproxyError
from vmproxy.model.drift import Drift
from vmproxy.transport.powershell import PowerShell

pytestmark = pytest.mark.winhost
OFF = "Stop-VM -VM $Vm -TurnOff -Force; "
USER = "S-1-5-21-1004336348-1177238915-682003330-1013"
SEED_FILE, DISK_FILE = rf"{DIRECTORY}\{NAME}\seed-{SEED}.iso", rf"{DIRECTORY}\{NAME}\disk-{IMAGE}.vhdx"
OTHER = r"C:\Data.vhdx"
_ACL = "$Acl = Get-Acl -LiteralPath '{path}'; %s; Set-Acl -LiteralPath '{path}' -AclObject $Acl"
CHANGED = _ACL % "$Acl.SetSecurityDescriptorSddlForm('{sddl}')"
GRANTED = _ACL % '$Acl.SetSecurityDescriptorSddlForm($Acl.Sddl + "{entry}")'
OWNED = _ACL % f"$Acl.SetOwner([Security.Principal.SecurityIdentifier]'{USER}')"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    require()
    with windows(tmp_path_factory.mktemp("windows")) as running:
        yield running


@pytest.fixture(scope="module")
def place(world: Windows) -> Iterator[Opened]:
    """The product's, open for the whole file; each test ends in sync."""
    with world.place() as opened, opened.lock(world.said.append):
        world.converge(opened)
        yield opened


@pytest.fixture(scope="module")
def other(world: Windows) -> Iterator[PowerShell]:
    """Another administrator on the host."""
    with world.connect() as shell:
        yield shell


@pytest.mark.parametrize(
    ("script", "verbs"),
    [
        (OFF + "Set-VM -VM $Vm -ProcessorCount 4", ["reconfigure"]),
        (OFF + "Set-VM -VM $Vm -MemoryStartupBytes 512MB", ["reconfigure"]),
        (OFF + "Set-VM -VM $Vm -DynamicMemory", ["reconfigure"]),
        (OFF + "Set-VMFirmware -VM $Vm -EnableSecureBoot Off", ["reconfigure"]),
        (OFF + "Set-VMFirmware -VM $Vm -SecureBootTemplate MicrosoftWindows", ["reconfigure"]),
        (OFF + "Set-VMComPort -VM $Vm -Number 1 -Path ''", ["reconfigure"]),
        (OFF + "Get-VMNetworkAdapter -VM $Vm | Set-VMNetworkAdapter -DynamicMacAddress", ["reconfigure"]),
        (OFF + "Get-VMNetworkAdapter -VM $Vm | Remove-VMNetworkAdapter", ["set", "reconfigure"]),
        ("Get-VMNetworkAdapter -VM $Vm | Disconnect-VMNetworkAdapter", ["set"]),
        ("Get-VMNetworkAdapter -VM $Vm | Set-VMNetworkAdapter -MacAddressSpoofing On", ["set"]),
        ("Get-VMNetworkAdapter -VM $Vm | Set-VMNetworkAdapterVlan -Access -VlanId 7", ["set"]),
        (OFF + "Set-VM -VM $Vm -AutomaticStopAction Save", ["reconfigure"]),
        ("Set-VM -VM $Vm -AutomaticStartAction Nothing", ["set"]),
        ("Set-VM -VM $Vm -AutomaticStartDelay 30", ["set"]),
        ("Set-VM -VM $Vm -CheckpointType Production", ["set"]),
        ("Set-VM -VM $Vm -AutomaticCheckpointsEnabled $true", ["set"]),
        ("Get-VMIntegrationService -VM $Vm | Disable-VMIntegrationService", ["set"]),
        (OFF + "Get-VMDvdDrive -VM $Vm | Remove-VMDvdDrive", ["recreate"]),
        (OFF + "Get-VMHardDiskDrive -VM $Vm | Remove-VMHardDiskDrive", ["recreate"]),
        (OFF + "Remove-VM -VM $Vm -Force", ["create", "mark"]),
        (
            f"$Acl = Get-Acl -LiteralPath '{DIRECTORY}'; $Acl.SetAccessRuleProtection($false, $true); "
            f"Set-Acl -LiteralPath '{DIRECTORY}' -AclObject $Acl",
            ["set"],
        ),
        (
            f"$Acl = Get-Acl -LiteralPath '{DIRECTORY}'; "
            "$Acl.SetOwner([Security.Principal.WindowsIdentity]::GetCurrent().User); "
            f"Set-Acl -LiteralPath '{DIRECTORY}' -AclObject $Acl",
            ["set"],
        ),
        (CHANGED.format(path=DIRECTORY, sddl="D:PAI(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;SY)"), ["set"]),
        (CHANGED.format(path=DIRECTORY, sddl="D:PAI(A;OICI;FA;;;BA)(A;;FA;;;SY)"), ["set"]),
        (
            CHANGED.format(path=DIRECTORY, sddl="D:PAI(D;OICI;FW;;;BA)(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)"),
            ["set"],
        ),
        (GRANTED.format(path=SEED_FILE, entry="(A;;FR;;;BU)"), ["set"]),
        (OWNED.format(path=SEED_FILE), ["set"]),
        (GRANTED.format(path=DISK_FILE, entry="(A;;FR;;;WD)"), ["set"]),
        (GRANTED.format(path=rf"{DIRECTORY}\images", entry="(A;OICI;FW;;;BU)"), ["set"]),
        (OFF + "Add-VMNetworkAdapter -VM $Vm -SwitchName External", ["set"]),
        (
            OFF
            + "Add-VMNetworkAdapter -VM $Vm -SwitchName External -Name Own -StaticMacAddress 00155D0A0B0C; "
            "Set-VMNetworkAdapter -VM $Vm -Name Own -MacAddressSpoofing On; "
            "Set-VMNetworkAdapterVlan -VM $Vm -VMNetworkAdapterName Own -Access -VlanId 7",
            ["set"],
        ),
        (f"New-VHD '{OTHER}' -SizeBytes 1GB; Add-VMHardDiskDrive -VM $Vm -Path '{OTHER}'", ["set"]),
        ("Add-VMHardDiskDrive -VM $Vm", ["set"]),
        ("Add-VMDvdDrive -VM $Vm", ["set"]),
        (
            OFF + "Set-VMFirmware -VM $Vm -FirstBootDevice @(Get-VMNetworkAdapter -VM $Vm)[0]",
            ["reconfigure"],
        ),
        (OFF + "Set-VMFirmware -VM $Vm -FirstBootDevice @(Get-VMDvdDrive -VM $Vm)[0]", ["reconfigure"]),
    ],
)
def test_each_drift_is_repaired_by_one_apply(
    world: Windows, place: Opened, other: PowerShell, script: str, verbs: list[str]
) -> None:
    other.call(f"$Vm = Get-VM; {script}")
    assert world.converge(place) == verbs


def test_a_disk_that_is_not_the_vms_own_is_taken_off_and_its_file_stays(
    world: Windows, place: Opened, other: PowerShell
) -> None:
    path = rf"{DIRECTORY}\{NAME}\data.vhdx"
    other.call(
        f"$Vm = Get-VM; {OFF}$null = New-VHD '{path}' -SizeBytes 1GB; "
        f"Add-VMHardDiskDrive -VM $Vm -Path '{path}'; "
        "Get-VM | Add-VMNetworkAdapter -SwitchName External"
    )
    (step,) = world.plan(place, place.observe(), starts=False)
    assert [(one.field, one.wanted, one.seen) for one in step.drift] == [
        ("otherAdapters", "none", "one on External"),
        ("otherDisks", "none", path),
    ]
    assert world.converge(place) == ["set"]
    assert world.state.local(path).exists()
    world.state.local(path).unlink()


CHILDREN = ["_1f0c7d36-9f0e-4bb5-9b69-0a3f1c2d4e5f", "-AutoRecovery"]


@pytest.mark.parametrize("child", CHILDREN)
def test_while_it_is_backed_up_the_vm_s_disk_is_its_own_and_stays(
    world: Windows, place: Opened, other: PowerShell, child: str
) -> None:
    """Hyper-V writes to a child of the disk then; of another disk that is there, one is."""
    path = DISK_FILE.replace(".vhdx", f"{child}.avhdx")
    world.state.local(path).write_bytes(world.state.local(DISK_FILE).read_bytes())
    (drive,) = world.state.part(Storage).hard_disks
    drive.path = path
    try:
        assert world.plan(place, place.observe(), starts=False) == ()
        other.call("Get-VM | Add-VMDvdDrive; Get-VM | Add-VMHardDiskDrive")
        assert world.converge(place) == ["set"]
        assert [one.path for one in world.state.part(Storage).hard_disks] == [path]
    finally:
        drive.path = DISK_FILE
        world.state.local(path).unlink()


def test_the_vm_s_own_disk_is_never_taken_off(world: Windows, place: Opened) -> None:
    """It has another name than when it was looked at."""
    (step,) = world.plan(place, place.observe(), starts=False, vlan=12)
    (drive,) = world.state.part(Storage).hard_disks
    wrong = replace(step, drift=(Drift("otherDisks", "none", "another"),))
    drive.path = DISK_FILE.replace("disk-", "moved-")
    try:
        with pytest.raises(VmproxyError, match="was changed meanwhile"):
            world.apply(place, [wrong])
        assert world.state.part(Storage).hard_disks == [drive]
    finally:
        drive.path = DISK_FILE


def test_drives_of_a_saved_vm_go_with_what_was_saved(
    world: Windows, place: Opened, other: PowerShell
) -> None:
    other.call("Get-VM | Add-VMDvdDrive")
    (vm,) = hyperv(world.state).vms.values()
    vm.state = "Saved"
    assert world.converge(place) == ["set"]
    assert vm.state == "Off"


def test_what_a_guests_boot_loader_puts_first_is_no_drift(world: Windows, place: Opened) -> None:
    (vm,) = hyperv(world.state).vms.values()
    vm.firmware.loaders.append(r"\EFI\debian\shimx64.efi")
    assert world.converge(place) == []


def test_drives_and_adapters_of_others_go_while_the_vm_runs(
    world: Windows, place: Opened, other: PowerShell
) -> None:
    part = hyperv(world.state)
    part.power = power = Pretence()
    try:
        other.call("Get-VM | Start-VM")
        other.call(
            "$Vm = Get-VM; Add-VMNetworkAdapter -VM $Vm -Name More -SwitchName External; "
            "Add-VMDvdDrive -VM $Vm; Add-VMHardDiskDrive -VM $Vm"
        )
        assert world.converge(place) == ["set"]
        assert power.unplugged == ["More"]
        other.call("Get-VM | Stop-VM -TurnOff -Force")
    finally:
        part.power = None


def test_the_exposed_seed_is_named_with_who_may_read_it(
    world: Windows, place: Opened, other: PowerShell
) -> None:
    other.call(GRANTED.format(path=SEED_FILE, entry="(A;;FR;;;BU)") + "; " + OWNED.format(path=SEED_FILE))
    (step,) = world.plan(place, place.observe(), starts=False)
    assert [one.seen for one in step.drift] == [
        rf"Administrators, SYSTEM; {NAME}\seed-{SEED}.iso: Administrators, BU (FR), SYSTEM, owner {USER}"
    ]
    assert world.converge(place) == ["set"]


@pytest.mark.parametrize(
    ("changes", "verbs"),
    [({"cpus": 4}, ["reconfigure"]), ({"memory": 512 * MIB}, ["reconfigure"]), ({"vlan": 12}, ["set"])],
)
def test_a_changed_wish_is_one_change(
    world: Windows, place: Opened, changes: dict[str, Any], verbs: list[str]
) -> None:
    assert world.converge(place, **changes) == verbs
    assert world.converge(place) == verbs
