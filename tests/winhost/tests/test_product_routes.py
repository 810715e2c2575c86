"""The product's routes, trial and probes on the emulated host, whose routes are a real namespace's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.opened import route_plan
from tests.values import route as route_to
from tests.winhost import net
from tests.winhost.engine import CmdletError, CmdletFault
from tests.winhost.net.state import network
from tests.winhost.presence import require
from tests.winhost.tests.product import ADDRESS, ROUTES, VIA, Windows, windows
from vmproxy.errors import Conflict, RemoteFailed
from vmproxy.hosts.protocols import Connection
from vmproxy.util import netns
from vmproxy.util.run import run

pytestmark = pytest.mark.winhost
RANGE = str(ROUTES[0].prefix)
VM_ADDRESS = ip_address(VIA)


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


def stores(world: Windows, prefix: str = RANGE) -> dict[str, list[str]]:
    """The next hops by store, as the host tells them."""
    script = (
        "foreach ($Store in 'ActiveStore', 'PersistentStore') { "
        f"Get-NetRoute -PolicyStore $Store | Where-Object {{ $_.DestinationPrefix -eq '{prefix}' }} | "
        "ForEach-Object { @{ store = $Store; via = $_.NextHop } } }"
    )
    found: dict[str, list[str]] = {"ActiveStore": [], "PersistentStore": []}
    for line in world.powershell(script):
        assert isinstance(line, dict)
        found[line["store"]].append(line["via"])
    return found


@everywhere
def test_the_route_is_in_both_stores_and_in_the_kernel(made: Windows) -> None:
    assert stores(made) == {"ActiveStore": [VIA], "PersistentStore": [VIA]}
    assert f"{RANGE} via {VIA}" in made.routes()


def test_it_survives_a_restart_of_the_host(made: Windows) -> None:
    net.reboot(made.state)
    assert f"{RANGE} via {VIA}" in made.routes()
    assert made.run() == []


@pytest.mark.parametrize("store", ["ActiveStore", "PersistentStore"])
def test_a_route_that_one_store_lacks_is_set_anew(made: Windows, store: str) -> None:
    made.powershell(f"Remove-NetRoute -DestinationPrefix {RANGE} -PolicyStore {store} -Confirm:$false")
    assert made.run() == ["replace"]
    assert stores(made) == {"ActiveStore": [VIA], "PersistentStore": [VIA]}


def orphan(world: Windows, *, keeps: bool) -> None:
    """The interface was made anew: the lasting route still names the one that is gone."""
    part = network(world.state)
    part.keeps_orphans = keeps
    part.routes = [replace(one, link=None) if str(one.to) == RANGE else one for one in part.routes]


@pytest.mark.parametrize("keeps", [True, False])
def test_the_lasting_route_of_an_interface_that_is_gone_is_replaced(made: Windows, keeps: bool) -> None:
    orphan(made, keeps=keeps)
    made.powershell(f"Remove-NetRoute -DestinationPrefix {RANGE} -PolicyStore ActiveStore -Confirm:$false")
    assert made.run() == ["replace"]
    assert stores(made) == {"ActiveStore": [VIA], "PersistentStore": [VIA]}
    assert made.run() == []


@pytest.mark.parametrize("keeps", [True, False])
def test_the_lasting_route_of_an_interface_that_is_gone_is_removed(made: Windows, keeps: bool) -> None:
    orphan(made, keeps=keeps)
    made.destroy()
    assert stores(made) == {"ActiveStore": [], "PersistentStore": []}


def test_a_route_on_an_interface_that_does_not_reach_the_vm_is_set_anew(made: Windows) -> None:
    assert made.state.namespace is not None
    link = ["ip", "-n", made.state.namespace, "link"]
    run([*link, "add", "eth1", "up", "type", "veth", "peer", "name", "eth2"])
    run([*link, "set", "eth2", "up"])
    run(["ip", "-n", made.state.namespace, "route", "replace", RANGE, "via", VIA, "dev", "eth1", "onlink"])
    assert made.run() == ["replace"]
    assert f"{RANGE} via {VIA} dev eth0" in made.routes()
    assert made.run() == []


def test_a_lasting_route_beside_an_orphan_of_it_is_made_one_again(made: Windows) -> None:
    part = network(made.state)
    (own,) = [one for one in part.routes if str(one.to) == RANGE]
    part.routes.append(replace(own, link=None))
    assert made.run() == ["replace"]
    assert stores(made) == {"ActiveStore": [VIA], "PersistentStore": [VIA]}


def test_a_route_that_nothing_removes_is_an_error(made: Windows) -> None:
    fault = CmdletFault(
        "Remove-NetRoute", times=99, error=CmdletError("no", error_id="Windows System Error 50")
    )
    made.state.faults.append(fault)
    with pytest.raises(RemoteFailed, match="is still in ActiveStore after its removal: no"):
        made.destroy()
    made.state.faults.clear()


def test_a_next_hop_that_was_changed_is_set_back(made: Windows) -> None:
    made.powershell(
        f"Remove-NetRoute -DestinationPrefix {RANGE} -Confirm:$false; "
        f"New-NetRoute -DestinationPrefix {RANGE} -InterfaceIndex (Get-NetIPAddress -IPAddress {ADDRESS})"
        ".InterfaceIndex -NextHop 192.168.77.9 | Out-Null"
    )
    assert made.run() == ["replace"]
    assert stores(made) == {"ActiveStore": [VIA], "PersistentStore": [VIA]}


def add_foreign(world: Windows, prefix: str) -> None:
    world.powershell(
        f"New-NetRoute -DestinationPrefix {prefix} -InterfaceIndex (Get-NetIPAddress -IPAddress {ADDRESS})"
        ".InterfaceIndex -NextHop 192.168.77.9 | Out-Null"
    )


def test_a_wider_foreign_route_stays_beside_ours(world: Windows) -> None:
    add_foreign(world, "10.0.0.0/8")
    assert world.run()[-1] == "add"
    assert stores(world, "10.0.0.0/8")["ActiveStore"] == ["192.168.77.9"]
    assert stores(world) == {"ActiveStore": [VIA], "PersistentStore": [VIA]}


@pytest.mark.parametrize("prefix", [RANGE, "10.96.7.0/24"])
def test_a_foreign_route_is_named_and_stays(world: Windows, prefix: str) -> None:
    add_foreign(world, prefix)
    with pytest.raises(Conflict) as caught:
        world.run()
    assert f"{prefix} via 192.168.77.9" in caught.value.details
    assert stores(world, prefix) == {"ActiveStore": ["192.168.77.9"], "PersistentStore": ["192.168.77.9"]}


def test_the_interface_is_found_anew_when_its_index_has_changed(made: Windows) -> None:
    made.powershell(f"Remove-NetRoute -DestinationPrefix {RANGE} -Confirm:$false")
    assert made.run() == ["add"]


def test_a_vm_address_that_is_on_no_network_of_the_host_is_told(world: Windows) -> None:
    with world.place() as place, place.lock(world.said.append):
        world.converge(place)
        far = route_to("10.97.0.0/16", "172.16.0.9")
        actions = route_plan((*ROUTES, far), place.observe())
        with pytest.raises(RemoteFailed, match=r"172\.16\.0\.9 is not on a network of this host"):
            world.apply(place, actions)


def test_a_trial_leaves_no_route_behind_whether_it_is_answered_or_not(made: Windows) -> None:
    with made.place() as place:
        place.observe()
        with listening(made, "10.97.0.1") as port:
            answer = place.trial(Connection("tcp", ip_address("10.97.0.1"), port), VM_ADDRESS)
            assert (answer.ok, answer.via) == (True, VM_ADDRESS)
        refused = place.trial(Connection("tcp", ip_address("10.97.0.1"), port), VM_ADDRESS)
        assert (refused.ok, refused.detail) == (False, "refused")
        seen = place.observe()
    assert "10.97.0.1" not in made.routes()
    assert seen.vm is not None
    assert seen.vm.marker is not None
    assert seen.vm.marker.routes == ROUTES


def test_a_trial_that_was_cut_off_is_cleaned_up_by_the_next_run(made: Windows) -> None:
    """As if the host had lost its power between marker and route, and the route were still there."""
    with made.place() as place:
        marker = place.observe().marker
        assert marker is not None
        trial = route_to("10.96.0.1/32", VIA)
        place.drivers.carrier.mark(replace(marker, routes=(*ROUTES, trial)))
    made.powershell(
        f"New-NetRoute -DestinationPrefix {trial.prefix} -NextHop {VIA} -PolicyStore ActiveStore "
        f"-InterfaceIndex (Get-NetIPAddress -IPAddress {ADDRESS}).InterfaceIndex | Out-Null"
    )
    assert made.run() == ["remove"]
    assert "10.96.0.1" not in made.routes()


def test_a_trial_that_was_cut_off_is_in_nobody_s_way(made: Windows) -> None:
    """An apply tries before it takes away what is left."""
    made.powershell(
        f"New-NetRoute -DestinationPrefix 10.96.0.1/32 -NextHop {VIA} -PolicyStore ActiveStore "
        f"-InterfaceIndex (Get-NetIPAddress -IPAddress {ADDRESS}).InterfaceIndex | Out-Null"
    )
    with made.place() as place:
        place.observe()
        assert place.trial(Connection("tcp", ip_address("10.96.0.1"), 9), VM_ADDRESS).via == ip_address(VIA)
    assert "10.96.0.1" not in made.routes()


def test_probes_run_on_the_host_and_tell_how_they_went(world: Windows) -> None:
    with world.place() as place, listening(world, VIA) as port:
        answers = place.probe(
            [
                Connection("tcp", VM_ADDRESS, port),
                Connection("tcp", VM_ADDRESS, 9),
                Connection("udp", VM_ADDRESS, port),
                Connection("tcp", ip_address("192.168.77.200"), 22),
            ]
        )
    assert [item.ok for item in answers] == [True, False, True, False]
    assert answers[1].detail == "refused"
    assert [item.via for item in answers] == [None] * 4


@contextmanager
def listening(world: Windows, address: str) -> Iterator[int]:
    """TCP and UDP on an address beyond the switch, the VM's or one behind it; UDP sends back what comes."""
    namespace = world.state.switch_namespace
    assert namespace is not None
    if address != VIA:
        run(["ip", "-n", namespace, "address", "add", f"{address}/32", "dev", "br0"])
    with netns.open_socket(namespace, "tcp") as tcp, netns.open_socket(namespace, "udp") as udp:
        tcp.bind((address, 0))
        tcp.listen()
        port: int = tcp.getsockname()[1]
        udp.bind((address, port))
        udp.settimeout(10.0)
        echo = threading.Thread(target=_echo, args=(udp,))
        echo.start()
        yield port
        udp.sendto(b"", (address, port))  # ends the echo if nobody asked it
        echo.join()


def _echo(udp: socket.socket) -> None:
    try:
        data, sender = udp.recvfrom(2048)
    except OSError:
        return
    if data:
        udp.sendto(data, sender)
