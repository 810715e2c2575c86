"""The cluster's names on a Windows host: what only it can be like."""

from __future__ import annotations

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.integration.test_names import FOREIGN, WEB, addresses, name_checks, named
from tests.winhost.net import resolver
from tests.winhost.net.resolver import POLICY
from vmproxy.util import wait

__all__ = ["named"]
pytestmark = pytest.mark.lab
PLACES = ("hyperv",)


def test_a_policy_for_names_is_found_by_doctor_with_its_key_and_never_written(named: HypervWorld) -> None:
    registry = named.windows.state.part(resolver.Names).registry
    assert registry is not None
    registry.set(rf"{POLICY}\{FOREIGN}", Name=[".corp.example"], GenericDNSServers="192.168.100.1")
    before = registry.below(POLICY)
    try:
        found = named.vmproxy("doctor", "-o", "json")
        assert found.code == 4
        wrong, *others = [item for item in found.json["hosts"][0]["findings"] if not item["ok"]]
        assert others == []
        assert POLICY in wrong["detail"]
        assert "-GpoName" in wrong["next"]
        planned = named.vmproxy("plan", "-o", "json")
        assert any(POLICY in text for text in planned.json["hosts"][0]["warnings"])
        seen = named.vmproxy("status", "-o", "json").json["hosts"][0]
        assert seen["names"]["state"] == "void"
        assert not seen["converged"]
        assert name_checks(named, "--service", "demo/web", code=4)["demo/web"]["hop"] == "name"
        assert registry.below(POLICY) == before
    finally:
        registry.remove(POLICY)
        named.windows.state.part(resolver.Names).cache.clear()
    assert named.vmproxy("doctor").code == 0


def test_a_host_that_serves_dns_is_told_of_a_forwarder(named: HypervWorld) -> None:
    named.windows.state.services.set("DNS", status="Running")  # type: ignore[attr-defined]
    try:
        (host,) = named.vmproxy("doctor", "-o", "json").json["hosts"]
        (found,) = [item for item in host["findings"] if item["check"] == "DNS server on the host"]
        assert "Add-DnsServerConditionalForwarderZone -Name cluster.local" in found["detail"]
    finally:
        del named.windows.state.services["DNS"]


def test_after_a_restart_of_the_host_there_is_nothing_to_do(named: HypervWorld) -> None:
    named.clean = False
    named.windows.reboot()
    wait.until("names without any apply", lambda: bool(addresses(named, WEB)) or "no", timeout=300, every=1.0)
    assert addresses(named, WEB) == {named.cluster_ip("web")}
    assert named.drift() == []


def test_no_change_is_one_process(named: HypervWorld) -> None:
    before = named.windows.processes
    assert "nothing to do" in named.apply().out
    assert named.windows.processes - before == 1
