"""The product's VM on the emulated host: made, changed, removed, and what is not ours left alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.winhost import modules
from tests.winhost.engine import CmdletError, CmdletFault
from tests.winhost.hyperv.model import hyperv
from tests.winhost.hyperv.starting import WORKER
from tests.winhost.presence import require
from tests.winhost.tests.product import DIRECTORY, IMAGE, NAME, ROUTES, SEED, VIA, Windows, windows
from vmproxy.errors import Conflict, RemoteFailed, VmproxyError
from vmproxy.hosts.hyperv.seen import access
from vmproxy.hosts.hyperv.settings import ONLY_US
from vmproxy.model.names import UEFI_CA

pytestmark = pytest.mark.winhost


@pytest.fixture(params=["2022"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Windows]:
    require()
    with windows(tmp_path, version=request.param) as running:
        yield running


@pytest.fixture
def made(world: Windows) -> Windows:
    world.run()
    return world


everywhere = pytest.mark.parametrize("world", ["2016", "2019", "2022", "2025"], indirect=True)


@everywhere
def test_an_empty_host_gets_its_vm_in_one_process_and_a_second_run_changes_nothing(world: Windows) -> None:
    assert world.run() == ["create", "add"]
    assert world.winhost.processes == 1
    with world.place() as place:
        seen = place.observe()
        assert world.plan(place, seen, starts=False) == ()
        assert seen.vm is not None
        assert dict(seen.vm.settings) == dict(world.wanted(place).settings)
    assert seen.vm.marker is not None
    assert (seen.vm.disk, seen.vm.seed, seen.vm.marker.routes) == (IMAGE, SEED, ROUTES)
    assert seen.images == {IMAGE}
    assert seen.free_memory > 0
    assert seen.free_disk > 0
    assert world.winhost.processes == 2


def test_what_was_made_is_what_hyperv_shows(made: Windows) -> None:
    (shown,) = made.powershell(
        "$Vm = Get-VM; $Firmware = Get-VMFirmware -VM $Vm; $Nic = Get-VMNetworkAdapter -VM $Vm; "
        "@{ secure = [string]$Firmware.SecureBoot; template = [string]$Firmware.SecureBootTemplateId; "
        "mac = $Nic.MacAddress; switch = $Nic.SwitchName; checkpoints = [string]$Vm.CheckpointType; "
        "automatic = $Vm.AutomaticCheckpointsEnabled; com = $Vm.ComPort1.Path; generation = $Vm.Generation; "
        "disk = (Get-VMHardDiskDrive -VM $Vm).Path; dvd = (Get-VMDvdDrive -VM $Vm).Path }"
    )
    assert shown == {
        "secure": "On",
        "template": UEFI_CA,
        "mac": "00155D010203",
        "switch": "External",
        "checkpoints": "Disabled",
        "automatic": False,
        "com": rf"\\.\pipe\{NAME}-com1",
        "generation": 2,
        "disk": rf"{DIRECTORY}\{NAME}\disk-{IMAGE}.vhdx",
        "dvd": rf"{DIRECTORY}\{NAME}\seed-{SEED}.iso",
    }


def test_the_folder_is_open_to_administrators_and_system_only(made: Windows) -> None:
    with made.place() as place:
        seen = place.observe()
    assert seen.vm is not None
    assert seen.vm.settings["folderAccess"] == ONLY_US


def test_the_seed_arrives_whole(made: Windows) -> None:
    seed = made.state.local(rf"{DIRECTORY}\{NAME}\seed-{SEED}.iso")
    assert seed.read_bytes() == b"seed" * 512


def test_destroy_leaves_nothing_behind(made: Windows) -> None:
    made.destroy()
    assert not made.state.local(DIRECTORY).exists()
    assert hyperv(made.state).vms == {}
    assert VIA not in made.routes()


def test_the_base_image_stays_on_the_host_for_the_next_vm(made: Windows) -> None:
    made.powershell("Get-VM | Remove-VM -Force")
    made.file.unlink()
    assert made.run() == ["create", "mark"]


def test_a_vm_of_the_same_name_that_is_not_ours_is_never_touched(world: Windows) -> None:
    world.powershell(f"New-VM -Name {NAME} -Generation 2 -NoVHD -SwitchName External | Out-Null")
    with pytest.raises(Conflict, match="not made by vmproxy"):
        world.run()
    assert world.files() == []
    assert [vm.name for vm in hyperv(world.state).vms.values()] == [NAME]


def test_names_are_matched_by_case_and_not_as_patterns(world: Windows) -> None:
    world.powershell(f"New-VM -Name {NAME.upper()} -Generation 2 -NoVHD | Out-Null")
    assert world.run() == ["create", "add"]
    assert len(hyperv(world.state).vms) == 2


def test_two_vms_of_our_name_are_an_error(made: Windows) -> None:
    made.powershell(f"New-VM -Name {NAME} -Generation 2 -NoVHD | Out-Null")
    with pytest.raises(Conflict, match="2 VMs named"):
        made.run()


def test_a_renamed_vm_is_named(made: Windows) -> None:
    made.powershell("Get-VM | Rename-VM -NewName proxy")
    with pytest.raises(Conflict, match="renamed to proxy"):
        made.run()


def test_cleared_notes_are_told_from_a_stranger_and_nothing_is_touched(made: Windows) -> None:
    made.powershell("Get-VM | Set-VM -Notes 'cleared'")
    with pytest.raises(Conflict, match="no marker of vmproxy, though its files are in"):
        made.run()


def test_other_text_in_the_notes_is_kept(made: Windows) -> None:
    made.powershell('$Vm = Get-VM; Set-VM -VM $Vm -Notes "ask Anna`r`n$($Vm.Notes)"')
    made.powershell("Remove-NetRoute -DestinationPrefix 10.96.0.0/16 -Confirm:$false")
    assert made.run() == ["add"]
    (notes,) = made.powershell("(Get-VM).Notes")
    assert str(notes).startswith("ask Anna\r\n[vmproxy]{")


def test_a_missing_switch_is_seen_as_missing(world: Windows) -> None:
    world.switch = "Elsewhere"
    with world.place() as place:
        assert place.observe().switch is None


@pytest.mark.parametrize(("kind", "why"), [("Private", "private"), ("Internal", "")])
def test_whether_the_host_is_on_the_switch_is_seen(world: Windows, kind: str, why: str) -> None:
    world.powershell(f"New-VMSwitch -Name Own -SwitchType {kind} | Out-Null")
    world.switch = "Own"
    with world.place() as place:
        seen = place.observe().switch
    assert seen is not None
    assert (seen.reachable, why in seen.why) == (not why, True)


def test_a_host_without_hyperv_says_what_to_install(world: Windows) -> None:
    world.winhost.environment["PSModulePath"] = modules.module_path("2022", without=["Hyper-V"])
    with world.place() as place, pytest.raises(RemoteFailed) as caught:
        place.observe()
    assert "Install-WindowsFeature Hyper-V" in str(caught.value.hint)


def test_hyperv_that_does_not_run_is_told_in_its_own_words(world: Windows) -> None:
    world.state.services["vmms"] = "Stopped"
    with world.place() as place, pytest.raises(VmproxyError, match="cannot look at Hyper-V"):
        place.observe()


def test_a_mac_address_that_another_vm_has_stops_the_making(world: Windows) -> None:
    world.powershell(
        "$Vm = New-VM -Name web -Generation 2 -NoVHD -SwitchName External; "
        "Get-VMNetworkAdapter -VM $Vm | Set-VMNetworkAdapter -StaticMacAddress 00155D010203"
    )
    with pytest.raises(RemoteFailed, match="is already used by an adapter of web"):
        world.run()


def test_a_cmdlet_that_fails_is_told_in_windows_words(world: Windows) -> None:
    full = CmdletError("Nicht genügend Arbeitsspeicher", error_id="OutOfMemory")
    world.state.faults.append(CmdletFault("Add-VMDvdDrive", error=full))
    with pytest.raises(RemoteFailed, match=r"cannot create vm .* Nicht genügend Arbeitsspeicher"):
        world.run()
    assert world.run() == ["recreate", "add"]


def test_a_leftover_folder_and_image_go_at_the_next_create(world: Windows) -> None:
    image = "c" * 64
    _write(
        world,
        *("vmproxy.lock", f"images/{image}.vhdx", f"images/{image}.part", f"images/{image}.draft"),
        *(f"{NAME}/disk-{image}.vhdx", "vmproxy-gone-x/seed-0.iso", "vmproxy-gone-x/disk-0.vhdx.rct"),
    )
    world.run()
    assert not [path for path in world.files() if image in path or "gone" in path]


def test_the_folder_of_a_vm_that_another_node_of_a_cluster_knows_stays(world: Windows) -> None:
    theirs = ("vmproxy-plant-b-win-02/disk-0.vhdx", "vmproxy-plant-b-win-02/Virtual Machines/1.vmcx")
    _write(world, "vmproxy.lock", *theirs)
    world.run()
    world.destroy()
    assert [name for name in theirs if not (world.state.local(DIRECTORY) / name).exists()] == []


def test_what_others_left_in_the_folder_stays(world: Windows) -> None:
    theirs = ("images/windows.iso", "images/golden.vhdx", "vmproxy-notes/readme.txt", "other/disk-0.vhdx")
    _write(world, "vmproxy.lock", *theirs)
    world.run()
    world.destroy()
    assert [name for name in theirs if not (world.state.local(DIRECTORY) / name).exists()] == []


def test_a_folder_with_other_things_in_it_is_refused_before_its_rights_are_changed(world: Windows) -> None:
    world.directory = r"C:\Data"
    _write(world, "letter.txt")
    (rights,) = world.powershell("(Get-Acl C:\\Data).Sddl")
    with pytest.raises(RemoteFailed, match="contains files that are not vmproxy's"):
        world.run()
    assert world.powershell("(Get-Acl C:\\Data).Sddl") == [rights]
    assert world.powershell("(Get-ChildItem C:\\Data).Name") == ["letter.txt"]


def test_a_folder_of_an_ordinary_user_is_refused(world: Windows) -> None:
    """Who owns a folder can open it again, whatever its rights say."""
    user = "S-1-5-21-1004336348-1177238915-682003330-1007"
    world.state.local(DIRECTORY).mkdir(parents=True)
    assert _own(world, user) == [user]
    with pytest.raises(RemoteFailed, match=f"belongs to {user}, who could always read"):
        world.run()
    assert world.powershell(f"(Get-Acl {DIRECTORY}).Owner") == [user]
    _own(world, "S-1-5-18")
    world.run()
    assert world.powershell(f"(Get-Acl {DIRECTORY}).Owner") == [r"BUILTIN\Administrators"]


def _own(world: Windows, user: str, path: str = DIRECTORY) -> list[object]:
    return world.powershell(
        f"$Acl = Get-Acl {path}; $User = New-Object Security.Principal.SecurityIdentifier {user};"
        f"$Acl.SetOwner($User); Set-Acl {path} -AclObject $Acl; (Get-Acl {path}).Owner"
    )


USER = "S-1-5-21-1004336348-1177238915-682003330-1007"


def test_a_folder_that_was_there_before_is_closed_before_anything_is_put_into_it(world: Windows) -> None:
    world.state.local(DIRECTORY).mkdir(parents=True)
    world.winhost.switchboard.add("drop", operation="Send", nth=4)
    with pytest.raises(VmproxyError):
        world.run()
    assert world.files() in ([], ["vmproxy.lock"])
    assert _access(world) == ONLY_US


def _access(world: Windows) -> str:
    return access({"sddl": world.powershell(f"(Get-Acl {DIRECTORY}).Sddl")[0]}, DIRECTORY)


def test_an_image_that_another_user_planted_is_not_used(world: Windows) -> None:
    _write(world, "vmproxy.lock", f"images/{IMAGE}.vhdx", f"images/{IMAGE}.sha256")
    for name in (f"{IMAGE}.vhdx", f"{IMAGE}.sha256"):
        _own(world, USER, rf"{DIRECTORY}\images\{name}")
    world.run()
    disk = world.state.local(rf"{DIRECTORY}\{NAME}\disk-{IMAGE}.vhdx")
    assert disk.read_bytes()[:8] == b"vhdxfile"


def test_a_folder_for_images_that_another_user_made_is_refused(world: Windows) -> None:
    _write(world, "vmproxy.lock", "images/x")
    _own(world, USER, rf"{DIRECTORY}\images")
    with pytest.raises(RemoteFailed, match=f"was put there by {USER}: remove it"):
        world.run()


def test_a_lock_file_of_another_user_does_not_make_a_folder_ours(world: Windows) -> None:
    _write(world, "vmproxy.lock")
    _own(world, USER, rf"{DIRECTORY}\vmproxy.lock")
    with pytest.raises(RemoteFailed, match="contains files that are not vmproxy's"):
        world.run()


def test_a_base_image_without_its_own_hash_is_transferred_again(made: Windows) -> None:
    made.state.local(rf"{DIRECTORY}\images\{IMAGE}.sha256").unlink()
    made.powershell("Get-VM | Remove-VM -Force")
    made.said.clear()
    assert made.run() == ["create", "mark"]
    assert any("sending the image" in line for line in made.said)


def test_a_base_image_that_was_changed_is_not_copied(made: Windows) -> None:
    base = made.state.local(rf"{DIRECTORY}\images\{IMAGE}.vhdx")
    with base.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"backdoor")
    with made.place() as place, place.lock(made.said.append):
        seed_lost = made.plan(place, place.observe(), starts=False)
        assert seed_lost == ()
    made.powershell("Get-VMDvdDrive * | Remove-VMDvdDrive")
    with pytest.raises(RemoteFailed, match="was changed after it was unpacked"):
        made.run()
    assert len(hyperv(made.state).vms) == 1
    assert made.run() == ["recreate"]


def test_what_hyperv_gives_to_vms_on_the_folder_is_no_drift_and_stays(made: Windows) -> None:
    right = r"NT VIRTUAL MACHINE\Virtual Machines"
    assert right in made.allowed(DIRECTORY)
    assert made.run() == []
    made.powershell(
        f"$Acl = Get-Acl {DIRECTORY}; $Acl.SetAccessRuleProtection($false, $true); Set-Acl {DIRECTORY} $Acl"
    )
    made.run()
    assert right in made.allowed(DIRECTORY)
    assert _access(made) == ONLY_US


@everywhere
def test_what_hyperv_gives_to_a_worker_process_on_disk_and_seed_stays(made: Windows) -> None:
    files = [rf"{DIRECTORY}\{NAME}\{name}" for name in (f"disk-{IMAGE}.vhdx", f"seed-{SEED}.iso")]
    has_it = [made.state.version != "2016"] * 2
    assert [WORKER in made.allowed(path) for path in files] == has_it
    assert made.run(starts=True) == ["start"]
    for path in files:
        made.powershell(
            f"$Acl = Get-Acl {path}; $Acl.SetSecurityDescriptorSddlForm($Acl.Sddl + '(A;;FR;;;BU)'); "
            f"Set-Acl {path} $Acl"
        )
    assert made.run(starts=True) == ["set"]
    assert [WORKER in made.allowed(path) for path in files] == has_it
    made.powershell("Get-VM | Stop-VM -TurnOff -Force")
    assert made.run(starts=True) == ["start"]


def test_a_file_that_a_virus_scanner_holds_for_a_moment_is_tried_again(world: Windows) -> None:
    held = CmdletError("Failed: being used by another process (0x80070020).", error_id="OperationFailed")
    world.state.faults.append(CmdletFault("New-VM", times=2, error=held))
    assert world.run() == ["create", "add"]


def test_another_vm_that_vanishes_while_all_are_listed_is_no_failure(world: Windows) -> None:
    gone = CmdletError("the virtual machine was not found", error_id="ObjectNotFound", terminating=False)
    for nth in (1, 3, 5, 7):
        world.state.faults.append(CmdletFault("Get-VM", nth=nth, error=gone, after=True))
    assert world.run() == ["create", "add"]


def test_a_vm_between_two_states_is_waited_for(made: Windows) -> None:
    (vm,) = hyperv(made.state).vms.values()
    vm.state = "Stopping"
    threading.Timer(3.0, lambda: setattr(vm, "state", "Off")).start()
    assert made.run(cpus=4) == ["reconfigure"]


def test_sriov_is_drift(made: Windows) -> None:
    made.powershell("Get-VMNetworkAdapter -VMName * | Set-VMNetworkAdapter -IovWeight 100")
    assert made.run() == ["set"]


def test_a_switch_whose_name_differs_in_case_is_named(world: Windows) -> None:
    world.switch = "external"
    with world.place() as place:
        seen = place.observe().switch
    assert seen is not None
    assert "'External'" in seen.why


def test_a_link_in_the_folders_place_is_refused(world: Windows, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    world.state.local(DIRECTORY).parent.mkdir(parents=True, exist_ok=True)
    world.state.local(DIRECTORY).symlink_to(elsewhere)
    with pytest.raises(RemoteFailed, match="is a link: use the folder that it points to"):
        world.run()
    assert list(elsewhere.iterdir()) == []


def test_a_folder_that_was_there_before_is_still_there_afterwards(world: Windows) -> None:
    world.state.local(DIRECTORY).mkdir(parents=True)
    world.run()
    world.destroy()
    assert list(world.state.local(DIRECTORY).iterdir()) == []


@pytest.mark.parametrize("left", [[], ["images/"], ["vmproxy.lock"], ["vmproxy.lock", "images/"]])
def test_a_folder_that_a_killed_run_was_creating_or_removing_is_ours(world: Windows, left: list[str]) -> None:
    folder = world.state.local(DIRECTORY)
    folder.mkdir(parents=True)
    unfinished = folder.with_name("vmproxy.unfinished")
    unfinished.touch()
    for name in left:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    world.run()
    assert not unfinished.exists()
    world.destroy()
    assert not folder.exists()
    assert not unfinished.exists()


def test_a_folder_that_another_user_calls_unfinished_stays_theirs(world: Windows) -> None:
    folder = world.state.local(DIRECTORY)
    folder.mkdir(parents=True)
    folder.with_name("vmproxy.unfinished").touch()
    _own(world, "S-1-5-21-1004336348-1177238915-682003330-1007", rf"{DIRECTORY}.unfinished")
    world.run()
    world.destroy()
    assert list(folder.iterdir()) == []
    folder.rmdir()
    world.run()
    world.destroy()
    assert not folder.exists()
    assert not folder.with_name("vmproxy.unfinished").exists()


def test_the_folder_of_a_vm_that_lost_its_name_and_marker_is_not_removed(made: Windows) -> None:
    made.powershell("Get-VMNetworkAdapter * | Set-VMNetworkAdapter -DynamicMacAddress")
    made.powershell("Get-VM | Set-VM -Notes '' -Passthru | Rename-VM -NewName proxy")
    made.powershell("Remove-NetRoute -DestinationPrefix 10.96.0.0/16 -Confirm:$false")
    with pytest.raises(RemoteFailed, match=r"cannot remove the folder .*: VM proxy uses"):
        made.run()
    assert made.state.local(rf"{DIRECTORY}\{NAME}\disk-{IMAGE}.vhdx").exists()


def test_a_saved_vm_is_removed(made: Windows) -> None:
    (vm,) = hyperv(made.state).vms.values()
    vm.state = "Saved"
    made.destroy()
    assert not hyperv(made.state).vms


def _write(world: Windows, *names: str) -> None:
    for name in names:
        path = world.state.local(world.directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_the_marker_in_the_notes_is_json_that_another_tool_can_read(made: Windows) -> None:
    (notes,) = made.powershell("(Get-VM).Notes")
    block = str(notes).partition("[vmproxy]")[2].partition("[/vmproxy]")[0]
    assert json.loads(block)["routes"] == [["10.96.0.0/16", VIA]]


def test_too_little_memory_is_told_in_windows_words_with_what_to_do(world: Windows) -> None:
    world.state.memory = 1 << 30
    with pytest.raises(VmproxyError, match="cannot start vm") as caught:
        world.run(starts=True, memory=4 << 30)
    assert "vm.memory" in str(caught.value.hint)


def test_another_directory_means_a_new_vm_there_and_none_of_its_files_stay_behind(made: Windows) -> None:
    old = made.state.local(rf"{DIRECTORY}\{NAME}")
    assert old.exists()
    made.directory = r"C:\Elsewhere"
    assert made.run() == ["recreate"]
    assert not old.exists()
    assert made.state.local(rf"C:\Elsewhere\{NAME}\disk-{IMAGE}.vhdx").exists()
