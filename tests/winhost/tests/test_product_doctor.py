"""doctor's look at the emulated Windows host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.winhost.hns import Hns
from tests.winhost.presence import require
from tests.winhost.system.state import System
from tests.winhost.tests.product import Windows, windows
from vmproxy.hosts.hyperv import doctor
from vmproxy.model.finding import Finding
from vmproxy.model.topology import compile_site

pytestmark = pytest.mark.winhost


@pytest.fixture(params=["2022"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Windows]:
    require()
    with windows(tmp_path, version=request.param) as running:
        yield running


def findings(world: Windows) -> dict[str, Finding]:
    member = compile_site(world.site).members[0]
    with world.place() as place:
        return {item.check: item for item in doctor.findings(member.vm, place.drivers.carrier.examine())}


@pytest.mark.parametrize("world", ["2016", "2019", "2022", "2025"], indirect=True)
def test_a_good_host_has_no_problem(world: Windows) -> None:
    assert [item for item in findings(world).values() if not item.ok] == []


def test_what_would_fight_for_the_services_is_found(world: Windows) -> None:
    system = world.state.part(System)
    for program in ("kube-proxy.exe", "antrea-agent.exe"):
        system.start(program)
    Hns(world.state).create_load_balancer("10.96.0.10")
    found = findings(world)
    assert found["native kube-proxy"].detail == "kube-proxy.exe"
    assert not found["Antrea"].ok
    assert found["HNS load balancers"].detail == "1: 10.96.0.10"


def test_a_switch_that_containers_made_is_found(world: Windows) -> None:
    Hns(world.state).create_network({"Name": "External", "Type": "l2bridge"})
    assert findings(world)["who made the switch"].detail == "made by HNS for a network of type l2bridge"


def test_hns_that_stands_still_has_no_load_balancers(world: Windows) -> None:
    world.state.services["hns"] = "Stopped"
    found = findings(world)
    assert (found["HNS load balancers"].ok, found["HNS load balancers"].detail) == (True, "none")


def test_a_service_that_stands_still_is_found_and_hides_nothing_else(world: Windows) -> None:
    world.state.services["vmms"] = "Stopped"
    found = findings(world)
    assert (found["service vmms"].ok, found["service vmms"].next_step) == (False, "Start-Service vmms")
    assert not found["Secure Boot"].ok
    assert found["PowerShell"].ok
