"""The product's VM when it boots: its console while it does, and what is told when it ends too soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.opened import Opened
from tests.winhost.hyperv import machine
from tests.winhost.hyperv.model import hyperv
from tests.winhost.presence import require
from tests.winhost.tests.guests import GREETING
from tests.winhost.tests.product import NAME, VIA, Windows, windows

pytestmark = pytest.mark.winhost


@pytest.fixture(scope="module", params=["de-DE"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    """A German host: nothing depends on a translated word."""
    require()
    with windows(tmp_path_factory.mktemp("windows"), language=request.param) as running:
        yield running


@pytest.fixture
def place(world: Windows) -> Iterator[Opened]:
    with world.place() as opened, opened.lock(world.said.append):
        yield opened


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 90.0
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def test_a_vm_is_made_and_started_on_a_german_host_in_one_process(world: Windows, place: Opened) -> None:
    before = world.winhost.processes
    assert world.converge(place, starts=True) == ["create", "start", "add"]
    assert world.winhost.processes == before
    seen = place.observe()
    assert seen.vm is not None
    assert seen.vm.running


def test_the_console_is_read_while_it_boots(world: Windows, place: Opened) -> None:
    (vm,) = hyperv(world.state).vms.values()
    world.apply(place, world.plan(place, place.observe(), starts=True, cpus=1))
    assert place.died() is None
    assert eventually(lambda: any(GREETING.strip() in line for line in place.console(5)))
    assert machine.heartbeat(world.state, vm) == "OkApplicationsUnknown"


def test_what_the_host_sees_of_it_is_told(place: Opened) -> None:
    first, second = place.symptoms()
    assert first.startswith("state: Running, heartbeat: ")
    assert second.startswith(f"neighbour at {VIA}: ")


def test_a_vm_that_stops_while_it_boots_is_seen_at_once_with_its_last_lines(
    world: Windows, place: Opened
) -> None:
    world.apply(place, world.plan(place, place.observe(), starts=True, cpus=4))
    assert eventually(lambda: any(GREETING.strip() in line for line in place.console(5)))
    world.powershell(f"Stop-VM -Name {NAME} -TurnOff -Force")
    assert place.died() == "it is Off"
    assert any(GREETING.strip() in line for line in place.console(5))


def test_a_running_vm_is_reconfigured_by_shutting_it_down_and_starting_it_again(
    world: Windows, place: Opened
) -> None:
    world.converge(place, starts=True)
    (action,) = world.plan(place, place.observe(), starts=True, cpus=3)
    assert (action.verb, action.cold) == ("reconfigure", True)
    world.apply(place, [action])
    (vm,) = hyperv(world.state).vms.values()
    assert (vm.processor.count, vm.state) == (3, "Running")


def test_destroying_a_running_vm_leaves_nothing(world: Windows) -> None:
    world.destroy()
    assert hyperv(world.state).vms == {}
    assert VIA not in world.routes()
