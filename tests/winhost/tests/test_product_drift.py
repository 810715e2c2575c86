"""Drift of the product's VM on the emulated host: each one is repaired by one apply, whoever caused it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.opened import Opened
from tests.winhost.presence import require
from tests.winhost.tests.product import DIRECTORY, MIB, Windows, windows
from vmproxy.transport.powershell import PowerShell

pytestmark = pytest.mark.winhost
OFF = "Stop-VM -VM $Vm -TurnOff -Force; "


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
    ],
)
def test_each_drift_is_repaired_by_one_apply(
    world: Windows, place: Opened, other: PowerShell, script: str, verbs: list[str]
) -> None:
    other.call(f"$Vm = Get-VM; {script}")
    assert world.converge(place) == verbs


@pytest.mark.parametrize(
    ("changes", "verbs"),
    [({"cpus": 4}, ["reconfigure"]), ({"memory": 512 * MIB}, ["reconfigure"]), ({"vlan": 12}, ["set"])],
)
def test_a_changed_wish_is_one_change(
    world: Windows, place: Opened, changes: dict[str, Any], verbs: list[str]
) -> None:
    assert world.converge(place, **changes) == verbs
    assert world.converge(place) == verbs
