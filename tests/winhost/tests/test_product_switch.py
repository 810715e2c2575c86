"""The VM's own switch on the emulated host: real cmdlets' rules, and real packets through its NAT."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.opened import HostSeen
from tests.winhost.engine import CmdletError, CmdletFault
from tests.winhost.hyperv.model import hyperv
from tests.winhost.net import nat
from tests.winhost.net.state import network
from tests.winhost.presence import require
from tests.winhost.tests.product import ADDRESS, NAME, Windows, windows
from vmproxy.errors import Conflict, RemoteFailed
from vmproxy.model.drift import ABSENT
from vmproxy.model.seen import ClusterSeen, Entrance
from vmproxy.model.steps import RemoveSwitch, SwitchStep
from vmproxy.model.topology import compile_site
from vmproxy.resources import switch
from vmproxy.transport.powershell import PowerShellFailed
from vmproxy.util import netns

pytestmark = pytest.mark.winhost
NETWORK, HOST, VM = "172.30.255.0/29", "172.30.255.1/29", "172.30.255.2"
CONTROLLER = "192.168.77.9"
MAPPING = f"tcp 2222 from {CONTROLLER} to {VM}:22"
CLUSTER = ClusterSeen(
    "v1.36.3", "", "", (ip_network("10.96.0.0/16"),), (), (), (ip_address("10.96.0.1"), 443)
)
everywhere = pytest.mark.parametrize("world", ["2016", "2019", "2022", "2025"], indirect=True)


@pytest.fixture(params=["2022"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Windows]:
    require()
    with windows(tmp_path, version=request.param) as running:
        running.own = {"internal": NETWORK}
        yield running


@pytest.fixture
def made(world: Windows) -> Windows:
    assert verbs(world) == ["create"]
    return world


def planned(world: Windows, seen: HostSeen) -> tuple[SwitchStep, ...]:
    own = compile_site(world.site).members[0].carrier.own
    assert own is not None
    known = replace(seen, entrance=Entrance(ip_address(ADDRESS), ip_address(CONTROLLER)))
    want = switch.wanted(own, known, host="win-01")
    return switch.plan(want, known, CLUSTER, seen.client, host="win-01")


def run(world: Windows) -> list[SwitchStep]:
    """One apply: the steps that it took until nothing was left to do."""
    done: list[SwitchStep] = []
    with world.place() as place, place.lock(world.said.append):
        while steps := planned(world, place.observe()):
            assert len(done) < 3, [step.drift for step in steps]
            for step in steps:
                place.drivers.carrier.change_switch(step)
            done += steps
    return done


def verbs(world: Windows) -> list[str]:
    return [step.verb for step in run(world)]


def repaired(world: Windows) -> dict[str, Any]:
    """What was named, and is as it should be again."""
    (step,) = run(world)
    assert step.verb == "set"
    return {item.field: item.seen for item in step.drift}


def destroy(world: Windows) -> list[str]:
    carrier = compile_site(world.site).members[0].carrier
    with world.place() as place, place.lock(world.said.append):
        steps = switch.destroy_plan(carrier, NAME, place.observe())
        for step in steps:
            place.drivers.carrier.change_switch(step)
    return [step.verb for step in steps]


def is_gone(world: Windows) -> None:
    part = network(world.state)
    assert [one.name for one in hyperv(world.state).switches.values()] == ["External"]
    assert (part.nats, part.mappings) == ([], [])
    there = inside(world, "ip", "-br", "link")
    assert not [one for one in part.addresses if str(one.interface) == HOST and one.link in there]
    assert "winnat" not in nft(world)
    assert "172.30" not in inside(world, "ip", "address")


def inside(world: Windows, *command: str) -> str:
    assert world.state.namespace is not None
    words = netns.run_in(world.state.namespace, command)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def nft(world: Windows) -> str:
    return inside(world, "nft", "list", "ruleset")


ALIAS = f"vEthernet ({NAME})"


@everywhere
def test_it_is_made_whole_and_removed_whole(world: Windows) -> None:
    assert verbs(world) == ["create"]
    with world.place() as place:
        seen = place.observe()
    assert seen.own is not None
    assert (seen.own.ours, seen.own.internal) == (True, True)
    assert seen.own.settings == {
        "address": HOST,
        "dnsRegistration": "off",
        "metric": 5000,
        "forwarding": "Disabled",
        "nat": NETWORK,
        "mapping": MAPPING,
    }
    assert ip_interface(HOST) in seen.client.addresses
    (notes,) = [one.notes for one in hyperv(world.state).switches.values() if one.name == NAME]
    assert notes == "vmproxy:plant-a:win-01"
    assert destroy(world) == ["remove"]
    is_gone(world)
    assert destroy(world) == []


def test_it_survives_a_restart_of_the_host(made: Windows) -> None:
    assert made.winhost.emulation is not None
    made.winhost.emulation.reboot()
    assert verbs(made) == []
    assert "dnat to 172.30.255.2:22" in nft(made)


ON_IT = f"-InterfaceAlias '{ALIAS}'"
ADD = f"Add-NetNatStaticMapping -NatName {NAME} -InternalIPAddress {VM}"
PIECES: list[tuple[str, dict[str, object]]] = [
    ("Remove-NetIPAddress -IPAddress 172.30.255.1 -Confirm:$false", {"address": ABSENT}),
    (
        "Remove-NetIPAddress -IPAddress 172.30.255.1 -PolicyStore PersistentStore -Confirm:$false",
        {"address": f"{HOST} (active store only: lost at the next restart)"},
    ),
    (
        f"New-NetIPAddress {ON_IT} -IPAddress 172.30.255.5 -PrefixLength 29 | Out-Null",
        {"address": f"{HOST}, 172.30.255.5/29"},
    ),
    (f"Set-DnsClient {ON_IT} -RegisterThisConnectionsAddress $true", {"dnsRegistration": "on"}),
    (f"Set-NetIPInterface {ON_IT} -AutomaticMetric Enabled", {"metric": 15}),
    (f"Remove-NetNatStaticMapping -NatName {NAME} -Confirm:$false", {"mapping": ABSENT}),
    (
        f"Remove-NetNatStaticMapping -NatName {NAME} -Confirm:$false; "
        f"{ADD} -Protocol TCP -ExternalIPAddress 0.0.0.0/0 -ExternalPort 2222 -InternalPort 22 | Out-Null",
        {"mapping": f"tcp 2222 from 0.0.0.0/0 to {VM}:22"},
    ),
    (
        f"{ADD} -Protocol UDP -ExternalIPAddress {ADDRESS} -ExternalPort 53 | Out-Null",
        {"mapping": f"{MAPPING}; udp 53 from 0.0.0.0/0 to {VM}:53 at {ADDRESS}"},
    ),
    (f"Remove-NetNat -Name {NAME} -Confirm:$false", {"nat": ABSENT, "mapping": ABSENT}),
    (
        f"Rename-NetAdapter -Name '{ALIAS}' -NewName proxy; "
        "Set-DnsClient -InterfaceAlias proxy -RegisterThisConnectionsAddress $true",
        {"dnsRegistration": "on"},
    ),
]


def test_each_piece_is_named_alone_and_repaired(made: Windows) -> None:
    for script, drift in PIECES:
        made.powershell(script)
        assert repaired(made) == drift
    assert verbs(made) == []


def test_a_switch_that_is_gone_is_made_again_with_the_nat_that_is_left(made: Windows) -> None:
    made.powershell(f"Remove-VMSwitch -Name {NAME} -Force")
    assert network(made.state).nats == [(NAME, NETWORK)]
    assert verbs(made) == ["create"]
    made.powershell(f"Remove-VMSwitch -Name {NAME} -Force")
    assert destroy(made) == ["remove"], "the NAT that is left"
    is_gone(made)


def test_a_second_nat_is_refused_by_name_and_by_windows(world: Windows) -> None:
    world.powershell("New-NetNat -Name Lab -InternalIPInterfaceAddressPrefix 172.20.0.0/16 | Out-Null")
    with pytest.raises(Conflict, match="Windows allows one") as caught:
        run(world)
    assert tuple(caught.value.details) == ("Lab: 172.20.0.0/16",)
    with pytest.raises(PowerShellFailed, match="The parameter is incorrect"):
        world.powershell("New-NetNat -Name Other -InternalIPInterfaceAddressPrefix 172.21.0.0/16")
    assert NAME not in [one.name for one in hyperv(world.state).switches.values()]


def test_a_switch_of_that_name_without_the_mark_is_never_touched(world: Windows) -> None:
    world.powershell(f"New-VMSwitch -Name {NAME} -SwitchType Internal -Notes mine | Out-Null")
    with pytest.raises(Conflict, match="was not made by vmproxy"):
        run(world)
    with (
        world.place() as place,
        place.lock(world.said.append),
        pytest.raises(RemoteFailed, match="does not remove it"),
    ):
        place.drivers.carrier.change_switch(RemoveSwitch(NAME))
    assert NAME in [one.name for one in hyperv(world.state).switches.values()]


def test_a_switch_that_another_vm_is_on_stays_and_the_vm_is_named(made: Windows) -> None:
    made.powershell(f"$null = New-VM -Name other -Generation 2 -MemoryStartupBytes 256MB -SwitchName {NAME}")
    with pytest.raises(RemoteFailed, match=r"used by other VMs.*: other"):
        destroy(made)
    assert verbs(made) == []


@pytest.mark.parametrize(
    "cmdlet", ["New-VMSwitch", "New-NetIPAddress", "New-NetNat", "Add-NetNatStaticMapping"]
)
def test_what_fails_half_way_is_an_error_and_the_next_run_goes_on(world: Windows, cmdlet: str) -> None:
    fault = CmdletFault(cmdlet, times=3, error=CmdletError("no", error_id="Windows System Error 50"))
    world.state.faults.append(fault)
    with pytest.raises(RemoteFailed, match=f"create switch {NAME}"):
        run(world)
    world.state.faults.clear()
    assert len(run(world)) == 1
    assert network(world.state).mappings


def test_a_host_whose_network_is_busy_for_a_moment_makes_it_at_the_second_try(world: Windows) -> None:
    world.state.faults.append(CmdletFault("New-VMSwitch", error=CmdletError("busy")))
    assert verbs(world) == ["create"]


def test_without_nat_the_interface_forwards_and_nothing_else_changes(world: Windows) -> None:
    world.own = {"internal": NETWORK, "nat": False}
    assert verbs(world) == ["create"]
    assert (network(world.state).nats, nft(world)) == ([], "")
    assert inside(world, "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding").strip() == "0"
    world.powershell(f"Set-NetIPInterface {ON_IT} -Forwarding Disabled")
    assert repaired(world) == {"forwarding": "Disabled"}
    world.own = {"internal": NETWORK}
    assert repaired(world) == {"nat": ABSENT, "mapping": ABSENT}
    assert network(world.state).nats == [(NAME, NETWORK)]


# Packets: a namespace in the VM's place, and others on the LAN.


@contextmanager
def machine(world: Windows, name: str, bridge: str, address: str, gateway: str | None) -> Iterator[str]:
    space, switches = f"{world.state.namespace}-{name}", str(world.state.switch_namespace)

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", space)
    try:
        ip("-n", switches, "link", "add", f"m-{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", switches, "link", "set", f"m-{name}", "master", bridge, "up")
        ip("-n", space, "address", "add", address, "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        if gateway:
            ip("-n", space, "route", "add", "default", "via", gateway)
        yield space
    finally:
        ip("netns", "del", space)


@contextmanager
def serving(space: str, address: str, port: int) -> Iterator[list[str]]:
    """Answers a connection with the address that it came from."""
    listener = netns.open_socket(space, "tcp")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    seen: list[str] = []

    def work() -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            seen.append(peer[0])
            with connection:
                connection.sendall(peer[0].encode())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def reaches(space: str, address: str, port: int) -> str | None:
    """What it answers; None: nothing comes back."""
    try:
        with netns.connect(space, (address, port), timeout=2.0) as connection:
            connection.settimeout(5.0)
            return connection.recv(64).decode()
    except OSError:
        return None


def test_the_vm_goes_out_under_the_hosts_address_and_only_the_controller_gets_in(made: Windows) -> None:
    (own,) = [one for one in hyperv(made.state).switches.values() if one.name == NAME]
    assert own.bridge is not None
    with (
        machine(made, "vm", own.bridge, f"{VM}/29", "172.30.255.1") as vm,
        machine(made, "ctl", "br0", f"{CONTROLLER}/24", None) as controller,
        machine(made, "lan", "br0", "192.168.77.8/24", ADDRESS) as lan,
        serving(lan, "192.168.77.8", 80),
        serving(vm, VM, 22) as guests,
    ):
        assert reaches(vm, "192.168.77.8", 80) == ADDRESS, "translated"
        assert reaches(controller, ADDRESS, 2222) == CONTROLLER, "the source stays"
        assert reaches(lan, ADDRESS, 2222) is None
        assert reaches(lan, VM, 22) is None, "the host forwards nothing for others"
        assert guests == [CONTROLLER]


def test_set_netnat_keeps_what_it_is_given_and_the_tables_decide_what_that_may_be(made: Windows) -> None:
    made.powershell(f"Set-NetNat -Name {NAME} -UdpIdleSessionTimeout 60")
    assert made.powershell(f"(Get-NetNat -Name {NAME}).UdpIdleSessionTimeout") == [60]
    with pytest.raises(PowerShellFailed, match="InternalIPInterfaceAddressPrefix"):
        made.powershell(f"Set-NetNat -Name {NAME} -InternalIPInterfaceAddressPrefix 10.0.0.0/8")
    with pytest.raises(PowerShellFailed, match="parameter is incorrect"):
        made.powershell(
            f"Add-NetNatStaticMapping -NatName {NAME} -Protocol TCP -ExternalIPAddress 0.0.0.0/0 "
            "-ExternalPort 81 -InternalIPAddress 10.1.1.1"
        )
    assert nat.forwards(made.state, "eth0") is False
