"""The product's rules for names and its look-ups on the emulated host, asked of a real DNS server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.winhost.net import resolver
from tests.winhost.net.resolver import LOCAL, POLICY
from tests.winhost.presence import require
from tests.winhost.tests.product import VIA, Windows, windows
from vmproxy.hosts.hyperv.kind import open_host
from vmproxy.hosts.protocols import ClientDriver
from vmproxy.model.seen import DnsSeen, NameRule
from vmproxy.model.steps import SetNames
from vmproxy.model.topology import compile_site
from vmproxy.resources import clientnames
from vmproxy.util import netns, wait

pytestmark = pytest.mark.winhost
OURS, THEIRS = "vmproxy:plant-a:win-01", "{F0000000-0000-0000-0000-000000000001}"
DNS = DnsSeen("cluster.test", ip_address(VIA))
WEB, ADDRESS = "web.demo.svc.cluster.test", ip_address("10.96.0.80")
(RULE,) = clientnames.wanted(DNS, (), comment=OURS)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[Windows, ClientDriver]]:
    """The VM's address has a DNS server, in the namespace of the switch."""
    require()
    with windows(tmp_path) as world:
        switch = str(world.state.switch_namespace)
        words = ["dnsmasq", "-k", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"]
        words += [
            "--bind-interfaces",
            f"--listen-address={VIA}",
            "--server=/#/",
            f"--host-record={WEB},{ADDRESS}",
        ]
        server = subprocess.Popen(netns.run_in(switch, words))
        try:
            wait.until("a DNS server", lambda: _listens(str(world.state.namespace)), timeout=60, every=0.1)
            member = compile_site(world.site).members[0]
            with open_host(member.vm, member.client, connect=world.connect) as drivers:
                drivers.client.observe()  # as a run does: only then is [Net.Dns] the emulated one
                yield world, drivers.client
        finally:
            server.terminate()
            server.wait(timeout=20)


def _listens(namespace: str) -> bool | str:
    try:
        netns.connect(namespace, (VIA, 53), timeout=2.0).close()
    except OSError as exc:
        return str(exc)
    return True


def converge(driver: ClientDriver) -> int:
    """Carries out the plan, and says how many steps it had."""
    steps = clientnames.plan((RULE,), driver.observe(), comment=OURS, client="win-01")
    for step in steps:
        if isinstance(step, SetNames):
            driver.set_names(step.rule, step.before)
        else:
            driver.remove_names(step.rule)
    return len(steps)


def test_names_are_set_looked_up_by_both_ways_and_removed(client: tuple[Windows, ClientDriver]) -> None:
    world, driver = client
    registry = world.state.part(resolver.Names).registry
    assert registry is not None
    registry.set(rf"{LOCAL}\{THEIRS}", Name=[".corp.example"], GenericDNSServers="10.0.0.1; 10.0.0.2")

    (before,) = driver.resolve([WEB])
    assert all(isinstance(seen, str) for seen in before.ways.values())
    assert converge(driver) == 1
    assert converge(driver) == 0
    (after,) = driver.resolve([WEB])
    assert after.ways == {"Resolve-DnsName": (ADDRESS,), "GetHostAddresses": (ADDRESS,)}
    theirs = next(rule for rule in driver.observe().rules if rule.id == THEIRS)
    assert theirs == NameRule(
        (".corp.example",), (ip_address("10.0.0.1"), ip_address("10.0.0.2")), "", THEIRS
    )

    world.winhost.emulation.reboot()  # type: ignore[union-attr]
    assert converge(driver) == 0

    for rule in clientnames.ours(driver.observe(), OURS):
        driver.remove_names(rule)
        driver.remove_names(rule)  # that it is gone already is fine
    assert [rule.id for rule in driver.observe().rules] == [THEIRS]


def test_drift_and_duplicates_are_repaired(client: tuple[Windows, ClientDriver]) -> None:
    world, driver = client
    driver.set_names(replace(RULE, servers=(ip_address("10.0.0.9"),)), ())
    driver.set_names(RULE, ())
    assert converge(driver) == 1
    assert converge(driver) == 0
    assert len(resolver.rules(world.state)) == 1


def test_a_policy_makes_the_rule_void_and_its_key_is_seen(client: tuple[Windows, ClientDriver]) -> None:
    world, driver = client
    driver.set_names(RULE, ())
    registry = world.state.part(resolver.Names).registry
    assert registry is not None
    registry.set(rf"{POLICY}\{THEIRS}", Name=[".corp.example"], GenericDNSServers="10.0.0.1")
    world.state.part(resolver.Names).cache.clear()
    assert driver.observe().policy == POLICY
    (found,) = driver.resolve([WEB])
    assert all(isinstance(seen, str) for seen in found.ways.values())
    registry.remove(POLICY)
    world.state.services.set("DNS", status="Running")  # type: ignore[attr-defined]
    seen = driver.observe()
    assert (seen.policy, seen.serves_dns) == (None, True)
