from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.hosts.test_hyperv import MEMBER, NAME, World
from tests.unit.hosts.windows import failed
from vmproxy.hosts.hyperv import doctor
from vmproxy.model.finding import Finding
from vmproxy.model.mac import static_mac
from vmproxy.model.names import UEFI_CA


def facts() -> dict[str, dict[str, object]]:
    """Of a host where all is well, as doctor.ps1 gives them."""
    values: dict[str, object] = {
        "powershell": "5.1.20348.2849",
        "user": r"WIN-01\Administrator",
        "administrator": True,
        "remoteAccounts": 0,
        "time": datetime.now(UTC).isoformat().replace("+00:00", "7Z"),
        "feature": "Installed",
        "services": {"name": "vmms", "status": "Running"},
        "programs": {},
        "balancers": {},
        "hypervisor": True,
        "switch": {"type": "External", "coalescing": True, "nat": False},
        "extensions": {},
        "hnsSwitch": {},
        "portRules": 0,
        "redirects": "Enabled",
        "interface": {"alias": "vEthernet (External)", "mtu": 1500, "forwarding": "Disabled"},
        "defaultRoutes": "192.168.10.1",
        "secureBoot": ["1734c6e8-3154-4dda-ba5f-a874cc483422", UEFI_CA.upper()],
        "macPool": {"macMinimum": "00155D0AC800", "macMaximum": "00155D0AC8FF"},
        "adapters": [{"vm": "", "mac": "00155D0AC801"}, {"vm": NAME, "mac": mac()}],
    }
    return {name: {"value": value} for name, value in values.items()}


def mac() -> str:
    return static_mac(NAME).replace(":", "").upper()


def findings(tmp_path: Path, **changes: dict[str, object]) -> dict[str, Finding]:
    world = World(tmp_path)
    world.windows.examined = {**facts(), **changes}
    with world.place() as place:
        return {item.check: item for item in doctor.findings(MEMBER.vm, place.drivers.carrier.examine())}


def test_a_good_host_has_no_problem(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert [item for item in found.values() if not item.ok] == []
    assert found["service vmms"].detail == "Running"


PROBLEMS = [
    ("PowerShell", "powershell", "4.0.1.1", "4.0", "Framework 5.1"),
    ("rights on the host", "administrator", False, "not a local administrator", "Administrators"),
    ("Hyper-V", "feature", "Available", "Available", "Install-WindowsFeature Hyper-V"),
    ("service vmms", "services", {"name": "vmms", "status": "Stopped"}, "Stopped", "Start-Service vmms"),
    ("hypervisor", "hypervisor", False, "does not run", "bcdedit"),
    ("who made the switch", "hnsSwitch", ["l2bridge", "l2bridge"], "of type l2bridge", "whenever it resets"),
    ("switch extensions", "extensions", "Microsoft Azure VFP Switch Extension", "VFP", "port profile"),
    ("port rules", "portRules", 2, "2 on the VM's adapter", "Get-VMNetworkAdapterAcl"),
    (
        "VM's way out",
        "switch",
        {"type": "Internal", "coalescing": False, "nat": False},
        "without a way out",
        "New-NetNat",
    ),
    ("Secure Boot", "secureBoot", "1734c6e8-3154-4dda-ba5f-a874cc483422", "no template", "update"),
    (
        "VM's network",
        "interface",
        {"alias": "x", "mtu": 1450, "forwarding": "Disabled"},
        "MTU 1450",
        "same MTU",
    ),
    (
        "default routes",
        "defaultRoutes",
        ["10.0.0.1", "10.0.0.2"],
        "10.0.0.1, 10.0.0.2",
        "Remove-NetRoute",
    ),
    (
        "clock",
        "time",
        (datetime.now(UTC) - timedelta(minutes=9)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z",
        "s from this machine's",
        "w32tm",
    ),
    ("HNS load balancers", "balancers", ["10.96.0.1"], "1: 10.96.0.1", "kube-proxy"),
    ("native kube-proxy", "programs", ["kube-proxy.exe"], "kube-proxy.exe", "stop it"),
    ("Antrea", "programs", "antrea-agent.exe", "antrea-agent.exe", "one of the two"),
    ("MAC address", "adapters", {"vm": "web", "mac": mac()}, "web", "change that adapter"),
]


@pytest.mark.parametrize(
    ("check", "fact", "value", "seen", "next_step"), PROBLEMS, ids=[row[0] for row in PROBLEMS]
)
def test_each_problem_is_found_with_its_next_step(
    tmp_path: Path, check: str, fact: str, value: object, seen: str, next_step: str
) -> None:
    found = findings(tmp_path, **{fact: {"value": value}})
    problems = {name for name, item in found.items() if not item.ok}
    assert check in problems
    assert problems <= {check, "service vmms"}
    assert seen in found[check].detail
    assert next_step in found[check].next_step


def test_the_address_is_looked_for_that_the_vm_would_get_beside_the_host_s_own(tmp_path: Path) -> None:
    everything = {"macMinimum": mac()[:6] + "000000", "macMaximum": mac()}
    taken = static_mac(NAME, pool=(everything["macMinimum"], everything["macMaximum"]))
    assert taken.replace(":", "").upper() != mac()
    others = [{"vm": "another", "mac": taken}]
    changes: dict[str, dict[str, object]] = {"macPool": {"value": everything}, "adapters": {"value": others}}
    assert taken in findings(tmp_path, **changes)["MAC address"].detail
    assert not findings(tmp_path, **changes)["MAC address"].ok


def test_what_can_not_be_looked_at_hides_nothing_else(tmp_path: Path) -> None:
    found = findings(tmp_path, feature={"error": "Access is denied."}, programs={"error": "Invalid class"})
    assert found["Hyper-V"].detail == "Access is denied."
    assert not found["programs"].ok
    assert found["PowerShell"].ok


def test_a_host_where_the_scripts_do_not_run_is_an_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.windows.breaks["doctor.ps1"] = failed("out of memory")
    with world.place() as place, pytest.raises(Exception, match="cannot look at the host on win-01"):
        list(doctor.findings(MEMBER.vm, place.drivers.carrier.examine()))
