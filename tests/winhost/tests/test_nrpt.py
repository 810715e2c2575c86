"""The rules for names and the look-ups of the emulated host, through PowerShell, with a real DNS server."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.winhost.net.resolver import POLICY, Names
from tests.winhost.tests.asking import Failure, Windows, namespace, peer_of, windows
from vmproxy.util import netns, wait

pytestmark = pytest.mark.winhost
_COMMON = (
    "dnsmasq",
    "-k",
    "--conf-file=/dev/null",
    "--pid-file=",
    "--no-resolv",
    "--no-hosts",
    "--bind-interfaces",
)
_MANY = [f"--host-record=many.cluster.test,10.1.{number // 200}.{number % 200 + 1}" for number in range(90)]
ADD = "Add-DnsClientNrptRule -Namespace '.cluster.test' -NameServers 192.168.100.6 -Comment mine"
LOOK_UP = "Resolve-DnsName {} -Type A -DnsOnly -NoHostsFile -QuickTimeout | ForEach-Object IPAddress"
BY_ADDRINFO = "[Net.Dns]::GetHostAddresses('{}') | ForEach-Object {{ [string]$_ }}"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Windows]:
    """.5 is the network card's DNS server, .6 another one."""
    with namespace() as name, _servers(peer_of(name)):
        facts = {"namespace": name, "bridges": {"External": "br0"}, "dns": ("192.168.100.5",)}
        with windows(tmp_path, **facts) as running:
            yield running


@contextmanager
def _servers(peer: str) -> Iterator[None]:
    subprocess.run(["ip", "-n", peer, "address", "add", "192.168.100.6/24", "dev", "eth0"], check=True)
    records = {
        "192.168.100.5": [
            "--server=/#/",
            "--host-record=intranet.corp,10.0.0.5",
            "--host-record=web.cluster.test,10.0.0.6",
        ],
        "192.168.100.6": ["--server=/#/", "--host-record=web.cluster.test,10.96.0.80", *_MANY],
    }
    running = [
        subprocess.Popen(netns.run_in(peer, [*_COMMON, f"--listen-address={address}", *words]))
        for address, words in records.items()
    ]
    try:
        for address in records:
            wait.until(
                f"a DNS server at {address}", lambda at=address: _listens(peer, at), timeout=20, every=0.05
            )
        yield
    finally:
        for one in running:
            one.send_signal(signal.SIGTERM)
            one.wait(timeout=20)


def _listens(peer: str, address: str) -> bool | str:
    try:
        netns.connect(peer, (address, 53), timeout=2.0).close()
    except OSError as exc:
        return str(exc)
    return True


def test_a_name_is_asked_of_the_rules_server_by_both_ways_and_others_of_the_network_cards(
    host: Windows,
) -> None:
    before, _, _, after, same, other = host.ask(
        LOOK_UP.format("web.cluster.test"),
        ADD,
        "Clear-DnsClientCache",
        LOOK_UP.format("web.cluster.test"),
        BY_ADDRINFO.format("web.cluster.test"),
        LOOK_UP.format("intranet.corp"),
    )
    assert (before, after, same, other) == ("10.0.0.6", "10.96.0.80", "10.96.0.80", "10.0.0.5")
    asked = [(one.name, one.server) for one in host.host.part(Names).asked]
    assert ("intranet.corp", "192.168.100.6") not in asked


def test_what_was_looked_up_is_kept_until_the_cache_is_cleared(host: Windows) -> None:
    name = LOOK_UP.format("many.cluster.test")
    before, _, kept, _, fresh = host.ask(name, ADD, name, "Clear-DnsClientCache", name)
    assert isinstance(before, Failure)
    assert isinstance(kept, Failure)
    assert kept.id.startswith("DNS_ERROR_RCODE_NAME_ERROR,")
    assert len(fresh) == len(_MANY)


def test_a_long_answer_comes_by_tcp_by_both_ways(host: Windows) -> None:
    _, found, same = host.ask(
        ADD, LOOK_UP.format("many.cluster.test"), BY_ADDRINFO.format("many.cluster.test")
    )
    assert len(found) == len(same) == len(_MANY)
    asked = [one for one in host.host.part(Names).asked if one.kind == "A"]
    assert len(asked) == 2
    assert all(one.tcp for one in asked)


def test_the_longest_suffix_wins(host: Windows) -> None:
    *_, wide, exact = host.ask(
        "Add-DnsClientNrptRule -Namespace '.' -NameServers 192.168.100.5",
        ADD,
        LOOK_UP.format("web.cluster.test"),
        "Add-DnsClientNrptRule -Namespace web.cluster.test -NameServers 192.168.100.5; Clear-DnsClientCache; "
        + LOOK_UP.format("web.cluster.test"),
    )
    assert (wide, exact) == ("10.96.0.80", "10.0.0.6")


def test_a_policy_makes_the_hosts_own_rules_void_and_is_no_rule_of_the_hosts(host: Windows) -> None:
    rule = rf"{POLICY}\{{11111111-1111-1111-1111-111111111111}}"
    host.stores.registry.set(rule, Name=[".corp"], GenericDNSServers="192.168.100.6")
    _, own, effective, found, key = host.ask(
        ADD,
        'Get-DnsClientNrptRule | ForEach-Object { "$($_.Namespace) $($_.NameServers) $($_.Comment)" }',
        "Get-DnsClientNrptPolicy -Effective | ForEach-Object Namespace",
        LOOK_UP.format("web.cluster.test"),
        f"Test-Path -LiteralPath '{POLICY}'",
    )
    assert own == ".cluster.test 192.168.100.6 mine"
    assert (effective, found, key) == (".corp", "10.0.0.6", True)


def test_the_hosts_file_is_read_but_not_with_no_hosts_file(host: Windows) -> None:
    etc = host.host.drives["C"] / "Windows/System32/drivers/etc"
    etc.mkdir(parents=True)
    (etc / "hosts").write_text("10.9.9.9 intranet.corp # by hand\n")
    by_file, without, by_addrinfo = host.ask(
        "Resolve-DnsName intranet.corp | ForEach-Object IPAddress",
        LOOK_UP.format("intranet.corp"),
        BY_ADDRINFO.format("intranet.corp"),
    )
    assert (by_file, without, by_addrinfo) == ("10.9.9.9", "10.0.0.5", "10.9.9.9")


def test_names_that_are_not_there_have_an_error_by_each_way(host: Windows) -> None:
    by_client, by_addrinfo = host.ask(LOOK_UP.format("nothing.corp"), BY_ADDRINFO.format("nothing.corp"))
    assert isinstance(by_client, Failure)
    assert by_client.id.startswith("DNS_ERROR_RCODE_NAME_ERROR,")
    assert isinstance(by_addrinfo, Failure)


def test_a_rule_is_changed_and_removed_by_its_name(host: Windows) -> None:
    _, changed, asks, gone, unknown = host.ask(
        f"$Rule = {ADD} -PassThru",
        "Set-DnsClientNrptRule -Name $Rule.Name -NameServers 192.168.100.5 -PassThru | % NameServers",
        "Remove-DnsClientNrptRule -Name $Rule.Name",
        "Remove-DnsClientNrptRule -Name $Rule.Name -Force; @(Get-DnsClientNrptRule).Count",
        "Remove-DnsClientNrptRule -Name $Rule.Name -Force",
    )
    assert changed == "192.168.100.5"
    assert isinstance(asks, Failure), "nobody is there to confirm it"
    assert gone == 0
    assert isinstance(unknown, Failure)
    assert unknown.category == "ObjectNotFound"


def test_a_rule_has_at_most_fifty_namespaces(host: Windows) -> None:
    many = ",".join(f"'.zone{number}.test'" for number in range(51))
    (refused,) = host.ask(f"Add-DnsClientNrptRule -Namespace {many} -NameServers 192.168.100.6")
    assert isinstance(refused, Failure)
