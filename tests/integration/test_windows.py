"""The Windows host through the command line: what only it can be like, and what only it can get wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.integration.test_failures import says
from tests.winhost.hyperv.model import VM, hyperv
from tests.winhost.net.state import Network
from tests.winhost.system.state import System
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("hyperv",)

RANGE = "10.96.0.0/16"
VIA = "192.168.100.5"
POLICIES = r"HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System"


@pytest.fixture
def windows(world: HypervWorld) -> HypervWorld:
    return world


def change_hyperv(world: HypervWorld, **keys: object) -> None:
    """A value of None takes the key away."""
    about = {**world.site()["hosts"][0]["hyperv"], **keys}
    world.change_host(hyperv={key: value for key, value in about.items() if value is not None})


@contextmanager
def ours(world: HypervWorld) -> Iterator[VM]:
    """The VM as the host has it, put back as it was afterwards."""
    (vm,) = hyperv(world.windows.state).vms.values()
    name, notes = vm.name, vm.notes
    world.clean = False
    try:
        yield vm
    finally:
        vm.name, vm.notes = name, notes


def test_nothing_to_do_is_one_process_and_one_log_in(windows: HypervWorld) -> None:
    before, messages = windows.windows.processes, len(windows.windows.messages)
    ran = windows.apply()
    assert "nothing to do" in ran.out
    assert windows.windows.processes - before == 1
    sent = windows.windows.messages[messages:]
    assert (sent.count("Create"), sent.count("Command"), sent.count("Delete")) == (1, 1, 1)


def test_a_connection_from_the_host_to_a_clusterip_is_answered_through_the_vm(windows: HypervWorld) -> None:
    assert windows.curl("web") in {"web-1", "web-2"}
    assert windows.curl("web-pods", "/clientip") == VIA, "the backend sees the VM"
    assert f"{RANGE} via {VIA}" in windows.look_in("host", "ip", "route")


def test_ssh_runs_a_command_with_its_input_and_gives_its_exit_code(windows: HypervWorld) -> None:
    ran = windows.vmproxy("ssh", "win-01", "cat; exit 7", stdin="told\n")
    assert (ran.code, ran.out) == (7, "told\n")


def test_a_wrong_password_is_tried_once_and_never_told(windows: HypervWorld) -> None:
    account = windows.windows.administrator
    wrong = windows.folder / "wrong"
    wrong.write_text("Wr0ng-and-secret")
    change_hyperv(windows, password={"file": str(wrong)})
    before = account.failed
    ran = windows.vmproxy("plan")
    says(ran, 1, "the login was refused", "tried once")
    assert account.failed == before + 1
    assert "Wr0ng" not in ran.out + ran.err


def test_a_password_variable_that_is_not_set_is_named(windows: HypervWorld) -> None:
    change_hyperv(windows, password={"env": "NO_SUCH_VARIABLE"})
    says(windows.vmproxy("plan"), 2, "NO_SUCH_VARIABLE")


def test_a_certificate_of_another_ca_is_refused(windows: HypervWorld) -> None:
    assert windows.status.kubeconfig is not None
    change_hyperv(windows, ca=str(windows.status.kubeconfig.parent / "pki/ca.crt"))
    says(windows.vmproxy("plan"), 1, "certificate is not trusted", "ca:")


def test_a_certificate_for_another_name_is_refused(windows: HypervWorld) -> None:
    endpoint = windows.windows.endpoint.replace("localhost", "127.0.0.2")
    change_hyperv(windows, endpoint=endpoint)
    ran = windows.vmproxy("plan")
    assert ran.code == 1
    assert ran.err.count("error:") == 1


def test_nothing_listens_there(windows: HypervWorld) -> None:
    change_hyperv(windows, endpoint="https://localhost:9")
    says(windows.vmproxy("plan"), 1, "localhost:9", "refused")


def test_an_account_that_is_no_administrator(windows: HypervWorld) -> None:
    account = windows.windows.administrator
    account.administrator = False
    try:
        says(windows.vmproxy("plan"), 1, "Access is denied", "local administrator")
        assert windows.vmproxy("doctor").code == 4
    finally:
        account.administrator = True


def test_a_host_whose_hyperv_does_not_run(windows: HypervWorld) -> None:
    windows.clean = False
    windows.windows.state.services["vmms"] = "Stopped"
    try:
        ran = windows.vmproxy("plan")
        assert ran.code == 1
        assert "Virtual Machine Management" in ran.err, "Windows' own words"
        found = windows.vmproxy("doctor", "-o", "json")
        assert found.code == 4
        wrong = [item for item in found.json["hosts"][0]["findings"] if not item["ok"]]
        assert any("vmms" in item["check"] and item["next"] for item in wrong)
    finally:
        windows.windows.state.services["vmms"] = "Running"


def test_a_switch_that_is_not_there(windows: HypervWorld) -> None:
    windows.change_host(switch={"name": "Externa"})
    says(windows.vmproxy("plan"), 2, "Externa")


def test_the_vlan_changes_live(windows: HypervWorld) -> None:
    before = windows.started()
    windows.change_network(vlan=7)
    windows.change_host(vm={"bootTimeout": "15s"})
    assert windows.drift() == ["vlan"]
    ran = windows.vmproxy("apply")
    assert ran.code == 1, "nobody else is in VLAN 7: the VM is out of reach, and that is said"
    assert ran.err.count("error:") == 1
    (vm,) = hyperv(windows.windows.state).vms.values()
    assert (vm.adapters[0].vlan.mode, vm.adapters[0].vlan.access) == ("Access", 7)
    windows.reset()
    windows.apply()
    assert windows.drift() == []
    assert windows.curl("web") in {"web-1", "web-2"}
    assert windows.started() == before


def test_another_tool_s_vm_of_the_same_name_is_never_touched(windows: HypervWorld) -> None:
    with ours(windows) as vm:
        vm.notes = "made by another tool"
        for verb in (("plan",), ("apply", "--yes"), ("destroy", "--yes")):
            says(windows.vmproxy(*verb), 1, vm.name)
        assert vm.state == "Running"
        assert vm.notes == "made by another tool"


def test_a_vm_that_was_renamed_is_said(windows: HypervWorld) -> None:
    with ours(windows) as vm:
        vm.name = "proxy"
        says(windows.vmproxy("apply", "--yes"), 1, "renamed to proxy")
        assert vm.state == "Running"


def test_a_native_kube_proxy_is_found_by_doctor(windows: HypervWorld) -> None:
    system = windows.windows.state.part(System)
    process = system.start("kube-proxy.exe", "kube-proxy.exe --proxy-mode=kernelspace")
    try:
        ran = windows.vmproxy("doctor", "-o", "json")
        assert ran.code == 4
        wrong = {item["check"]: item["next"] for item in ran.json["hosts"][0]["findings"] if not item["ok"]}
        assert set(wrong) == {"native kube-proxy"}
        assert wrong["native kube-proxy"]
    finally:
        system.processes.remove(process)


def test_a_controller_that_is_killed_leaves_no_lock(windows: HypervWorld) -> None:
    """Its PowerShell, which holds the lock, ends soon after it."""
    windows.guest("rm /usr/local/lib/vmproxy/kube-proxy")
    process = windows.start_until("pushing", "apply")
    process.kill()
    process.communicate()
    windows.apply()
    assert windows.drift() == []


def test_after_a_restart_of_the_host_all_is_there_again(windows: HypervWorld) -> None:
    """The VM starts with the host, and the route is in the persistent store."""
    windows.clean = False
    windows.windows.reboot()
    (vm,) = hyperv(windows.windows.state).vms.values()
    wait.until("the VM to run", lambda: vm.state == "Running" or vm.state, timeout=60)

    def answers() -> tuple[str] | str:
        try:
            return (windows.curl("web"),)
        except subprocess.CalledProcessError as exc:
            return f"curl: {exc.returncode}"

    assert wait.until("an answer without any apply", answers, timeout=300, every=2.0)[0] in {"web-1", "web-2"}
    assert windows.drift() == []


def test_a_host_that_restarts_in_the_middle_of_an_apply(windows: HypervWorld) -> None:
    windows.guest("rm /usr/local/lib/vmproxy/kube-proxy")
    process = windows.start_until("pushing", "apply")
    windows.windows.reboot()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.count("error:") == 1
    assert "Traceback" not in err
    windows.apply()
    assert windows.drift() == []
    assert windows.curl("web") in {"web-1", "web-2"}


def test_secrets_are_in_no_command_line_notes_or_output(windows: HypervWorld) -> None:
    ran = windows.vmproxy("plan", "-o", "json", "-v")
    password = windows.windows.password
    assert password not in ran.out + ran.err
    (vm,) = hyperv(windows.windows.state).vms.values()
    assert "PRIVATE" not in vm.notes
    assert password not in vm.notes
    calls = json.dumps([dict(call.parameters) for call in windows.windows.state.calls], default=str)
    assert password not in calls


def test_destroy_leaves_nothing_behind_and_apply_makes_it_again(windows: HypervWorld) -> None:
    shown = windows.vmproxy("destroy")
    assert shown.code == 3
    assert RANGE in shown.out
    assert windows.vmproxy("destroy", "--yes").code == 0
    assert not hyperv(windows.windows.state).vms
    assert not (windows.windows.drive / "ProgramData/vmproxy").exists()
    assert "10.96" not in windows.look_in("host", "ip", "route")
    lasting = windows.windows.state.part(Network).routes
    assert not [route for route in lasting if str(route.to) == RANGE]
    assert windows.vmproxy("destroy", "--yes").code == 0
    windows.apply()
    assert windows.drift() == []
    assert windows.curl("web-pods") in {"pod-1", "pod-2"}
