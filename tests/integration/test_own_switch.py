"""A Windows host without an External switch: the VM on a switch of its own, behind the host's NAT."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.integration.test_failures import says
from tests.integration.world import World
from tests.winhost import engine
from tests.winhost.hyperv.model import hyperv
from tests.winhost.net.state import network
from vmproxy.lab.network import ADDRESSES
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("hyperv",)

RANGE, PODS = "10.96.0.0/16", "10.244.1.0/24"
HOST = ADDRESSES["host"]
NAME = "vmproxy-it-win-01"
INTERNAL = "172.30.255.0/29"
ALIAS = f"vEthernet ({NAME})"


def cmdlet(world: HypervWorld, name: str, **parameters: Any) -> list[Any]:
    """What another administrator does on the host."""
    world.clean = False
    return list(engine.outputs(world.windows.state, engine.Call(name, parameters)))


@pytest.fixture(scope="module")
def host(bare: World) -> Iterator[HypervWorld]:
    """One network card, no switch, nothing of vmproxy; put back afterwards."""
    assert isinstance(bare, HypervWorld)
    bare.clean = False
    bare.reset()
    assert bare.vmproxy("destroy", "--yes").code == 0
    cmdlet(bare, "Remove-VMSwitch", Name=["External"], Force=True)
    try:
        yield bare
    finally:
        write(bare)
        bare.vmproxy("destroy", "--yes")
        cmdlet(bare, "New-VMSwitch", Name="External", NetAdapterName=["Ethernet"])
        bare.reset()


def write(world: HypervWorld, **switch: object) -> None:
    """Neither the VM's address nor its gateway is in the site file."""
    site = world.original()
    (entry,) = site["hosts"]
    entry["switch"] = {"internal": INTERNAL, **switch}
    entry["network"] = {"podRoutes": "nodes"}
    world.write(site)


@pytest.fixture
def nothing(host: HypervWorld) -> HypervWorld:
    write(host)
    if host.has_vm() or own_switches(host):
        assert host.vmproxy("destroy", "--yes").code == 0
    return host


@pytest.fixture
def behind(host: HypervWorld) -> HypervWorld:
    """Made, and in sync."""
    write(host)
    host.settle()
    return host


def own_switches(world: HypervWorld) -> list[str]:
    return [one.name for one in hyperv(world.windows.state).switches.values()]


def is_gone(world: HypervWorld) -> None:
    part = network(world.windows.state)
    assert own_switches(world) == []
    assert (part.nats, part.mappings) == ([], [])
    assert not [one for one in part.addresses if str(one.interface).startswith("172.30.")]
    assert not [one for one in part.routes if str(one.to) in (RANGE, PODS)]
    shown = world.look_in("host", "ip", "address") + world.look_in("host", "ip", "route")
    assert "172.30.255" not in shown
    assert "10.96" not in shown
    assert PODS not in shown


def test_doctor_has_nothing_against_a_host_on_which_all_is_still_to_be_made(nothing: HypervWorld) -> None:
    ran = nothing.vmproxy("doctor", "-o", "json")
    wrong = [item for item in ran.json["hosts"][0]["findings"] if not item["ok"]]
    assert (ran.code, wrong) == (0, [])
    (made,) = [item for item in ran.json["hosts"][0]["findings"] if item["check"] == "switch"]
    assert "apply makes it" in made["detail"]


def test_another_nat_network_is_refused_before_anything_is_made(nothing: HypervWorld) -> None:
    cmdlet(nothing, "New-NetNat", Name="Lab", InternalIPInterfaceAddressPrefix="172.20.0.0/16")
    try:
        for verb in ("plan", "apply"):
            says(nothing.vmproxy(verb), 1, "Windows allows one", "Lab: 172.20.0.0/16", "Remove-NetNat")
        assert nothing.vmproxy("doctor").code == 4
    finally:
        cmdlet(nothing, "Remove-NetNat", Name=["Lab"])
    assert not nothing.has_vm()
    is_gone(nothing)


def test_from_nothing_one_apply_and_services_see_the_hosts_address(nothing: HypervWorld) -> None:
    planned = nothing.vmproxy("plan")
    assert planned.code == 0
    for part in (f"switch {NAME}", f"vm {NAME}", f"route {PODS}", f"route {RANGE}"):
        assert part in planned.out
    nothing.apply()
    assert "nothing to do" in nothing.apply().out
    assert nothing.curl("web") in {"web-1", "web-2"}
    assert nothing.curl("web-pods", "/clientip") == HOST
    assert nothing.vmproxy("verify").code == 0
    status = nothing.vmproxy("status", "-o", "json").json["hosts"][0]
    assert (status["converged"], status["vm"]["address"]) == (True, "172.30.255.2/29")
    ran = nothing.vmproxy("ssh", "win-01", "cat; exit 7", stdin="told\n")
    assert (ran.code, ran.out) == (7, "told\n")


def test_nothing_to_do_is_still_one_process(behind: HypervWorld) -> None:
    before = behind.windows.processes
    assert "nothing to do" in behind.apply().out
    assert behind.windows.processes - before == 1


@contextmanager
def routed(world: HypervWorld, role: str) -> Iterator[None]:
    """A machine of the LAN tries the host as its way to Services."""
    world.in_namespace(role, "ip", "route", "add", RANGE, "via", HOST)
    try:
        yield
    finally:
        world.in_namespace(role, "ip", "route", "del", RANGE)


def answers(world: HypervWorld, role: str) -> bool:
    url = f"http://{world.cluster_ip('web')}/hostname"
    try:
        return bool(world.look_in(role, "curl", "-sS", "-m", "3", url))
    except subprocess.CalledProcessError:
        return False


def test_a_machine_of_the_lan_reaches_no_service_by_way_of_the_host(behind: HypervWorld) -> None:
    with routed(behind, "web-1"):
        assert not answers(behind, "web-1")
        for alias in ("Ethernet", ALIAS):
            cmdlet(
                behind,
                "Set-NetIPInterface",
                InterfaceAlias=[alias],
                AddressFamily=["IPv4"],
                Forwarding="Enabled",
            )
        try:
            assert not answers(behind, "web-1"), "the VM's guard stops it, too"
        finally:
            for alias in ("Ethernet", ALIAS):
                cmdlet(
                    behind,
                    "Set-NetIPInterface",
                    InterfaceAlias=[alias],
                    AddressFamily=["IPv4"],
                    Forwarding="Disabled",
                )
    assert answers(behind, "host")
    assert behind.vmproxy("status", "-o", "json").json["hosts"][0]["drops"]["transit"] > 0


def test_only_the_controller_gets_in(behind: HypervWorld) -> None:
    def greeted(role: str) -> bool:
        try:
            return "SSH-2.0" in behind.in_namespace(
                role, "timeout", "5", "bash", "-c", f"head -c 8 < /dev/tcp/{HOST}/2222"
            )
        except subprocess.CalledProcessError:
            return False

    assert greeted("client")
    assert not greeted("web-1")


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (("Remove-NetNatStaticMapping", {"NatName": [NAME]}), ["mapping"]),
        (("Remove-NetNat", {"Name": [NAME]}), ["nat", "mapping"]),
        (
            (
                "Set-NetIPInterface",
                {"InterfaceAlias": [ALIAS], "AddressFamily": ["IPv4"], "AutomaticMetric": "Enabled"},
            ),
            ["metric"],
        ),
        (
            ("Set-DnsClient", {"InterfaceAlias": [ALIAS], "RegisterThisConnectionsAddress": True}),
            ["dnsRegistration"],
        ),
        (("Remove-NetRoute", {"DestinationPrefix": [PODS]}), [f"route {PODS}"]),
    ],
)
def test_each_piece_is_named_and_repaired_while_the_vm_runs(
    behind: HypervWorld, change: tuple[str, dict[str, Any]], fields: list[str]
) -> None:
    started = behind.started()
    name, parameters = change
    cmdlet(behind, name, **parameters)
    assert behind.drift() == fields
    behind.apply()
    assert behind.drift() == []
    assert behind.curl("web-pods", "/clientip") == HOST
    assert behind.started() == started


def test_a_lost_address_takes_the_route_with_it_and_one_apply_brings_both_back(behind: HypervWorld) -> None:
    cmdlet(behind, "Remove-NetIPAddress", IPAddress=["172.30.255.1"])
    ran = behind.vmproxy("status", "-o", "json")
    assert any("address: wanted 172.30.255.1/29" in text for text in ran.json["hosts"][0]["problems"])
    behind.apply()
    assert behind.drift() == []
    assert behind.curl("web") in {"web-1", "web-2"}


def test_a_killed_apply_leaves_what_the_next_one_goes_on_from(nothing: HypervWorld) -> None:
    process = nothing.start_until("making the VM's disk", "apply")
    process.kill()
    process.communicate()
    assert own_switches(nothing) == [NAME]
    nothing.apply()
    assert nothing.drift() == []
    assert nothing.curl("web-pods", "/clientip") == HOST


def test_after_a_restart_of_the_host_there_is_nothing_to_do(behind: HypervWorld) -> None:
    behind.clean = False
    behind.windows.reboot()
    (vm,) = hyperv(behind.windows.state).vms.values()
    wait.until("the VM to run", lambda: vm.state == "Running" or vm.state, timeout=60)

    def answer() -> tuple[str] | str:
        try:
            return (behind.curl("web-pods", "/clientip"),)
        except subprocess.CalledProcessError as exc:
            return f"curl: {exc.returncode}"

    assert wait.until("an answer without any apply", answer, timeout=300, every=2.0) == (HOST,)
    assert behind.drift() == []


def test_back_to_a_switch_of_somebody_else_needs_destroy_and_says_so(behind: HypervWorld) -> None:
    behind.change_host(
        switch={"name": "External"}, network={"address": "192.168.100.5/24", "gateway": "192.168.100.1"}
    )
    says(behind.vmproxy("apply"), 1, "still has a switch of its own", "vmproxy destroy")
    write(behind)


def test_destroy_leaves_nothing_behind(behind: HypervWorld) -> None:
    shown = behind.vmproxy("destroy")
    assert shown.code == 3
    for part in (f"switch {NAME}", RANGE, PODS):
        assert part in shown.out
    assert behind.vmproxy("destroy", "--yes").code == 0
    assert not behind.has_vm()
    is_gone(behind)
    calls = json.dumps([dict(call.parameters) for call in behind.windows.state.calls], default=str)
    assert '"NetAdapterName": ["Ethernet"]' not in calls, "no network card was touched"
