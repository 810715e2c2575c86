"""The cluster's names on the host, asked of the lab's CoreDNS through the VM."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.hyperv_world import HypervWorld
from tests.integration.test_failures import says
from tests.integration.world import World
from tests.winhost.net import resolver
from tests.winhost.net.resolver import LOCAL
from vmproxy.hosts.linux.names import servers_file
from vmproxy.lab.objects import DNS_SERVICE, service_with_slice
from vmproxy.lab.processes import Process
from vmproxy.lab.resolver import LOCAL_ADDRESS, LOCAL_NAME
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")
COMMENT = "vmproxy:it:win-01"
FOREIGN = "{F0000000-0000-0000-0000-000000000001}"
WEB = "web.demo.svc.cluster.local"


@pytest.fixture
def named(bare: World) -> World:
    """In sync, with the cluster's names on the host."""
    bare.reset()
    bare.change(dns={})
    bare.settle()
    return bare


def rules(world: World) -> dict[str, tuple[str, str, str]]:
    """The rules of the host's resolver, by id: comment, namespaces, servers."""
    if isinstance(world, HypervWorld):
        there = resolver.rules(world.windows.state)
        return {one.id: (one.comment, " ".join(one.namespaces), " ".join(one.servers)) for one in there}
    text = servers_file(world.status.namespaces["host"]).read_text()
    lines = [line for line in text.splitlines() if line]
    heads, found = lines[::2], lines[1::2]
    return {
        head.split()[2]: (" ".join(head.split()[3:]), *_parts(line))
        for head, line in zip(heads, found, strict=True)
    }


def _parts(line: str) -> tuple[str, str]:
    *domains, server = line.removeprefix("server=/").split("/")
    return " ".join(f".{name}" for name in domains), server


def ours(world: World) -> list[tuple[str, str]]:
    return [rest for comment, *rest in map(list, rules(world).values()) if comment == COMMENT]  # type: ignore[misc]


def make_rule(world: World, name: str, comment: str, namespace: str, server: str) -> None:
    """By hand, or by another tool."""
    world.clean = False
    if isinstance(world, HypervWorld):
        registry = world.windows.state.part(resolver.Names).registry
        assert registry is not None
        registry.set(rf"{LOCAL}\{name}", Name=[namespace], GenericDNSServers=server, Comment=comment)
        return
    with servers_file(world.status.namespaces["host"]).open("a") as file:
        file.write(f"# rule {name} {comment}\nserver=/{namespace[1:]}/{server}\n")


def remove_rule(world: World, name: str) -> None:
    world.clean = False
    if isinstance(world, HypervWorld):
        registry = world.windows.state.part(resolver.Names).registry
        assert registry is not None
        registry.remove(rf"{LOCAL}\{name}")
        return
    file = servers_file(world.status.namespaces["host"])
    lines = file.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(f"# rule {name}"))
    file.write_text("".join(lines[:at] + lines[at + 2 :]))


@contextmanager
def foreign_rule(world: World, namespace: str) -> Iterator[None]:
    make_rule(world, FOREIGN, "a VPN", namespace, "192.168.100.1")
    try:
        yield
    finally:
        remove_rule(world, FOREIGN)


def addresses(world: World, name: str) -> set[str]:
    """As programs on the host look it up; none: it is not found."""
    try:
        found = world.look_in("host", "getent", "ahostsv4", name)
    except subprocess.CalledProcessError:
        return set()
    return {line.split()[0] for line in found.splitlines()}


def log_of_coredns(world: World) -> str:
    assert world.status.kubeconfig is not None
    return (world.status.kubeconfig.parent / "coredns.log").read_text()


def name_checks(world: World, *words: str, code: int = 0) -> dict[str, dict[str, object]]:
    ran = world.vmproxy("verify", "-o", "json", *words)
    assert ran.code == code, ran.out + ran.err
    (host,) = ran.json["hosts"]
    return {check["service"]: check for check in host["checks"] if check["protocol"] == "dns"}


def test_without_dns_in_the_site_file_the_host_has_no_rule(world: World) -> None:
    assert ours(world) == []
    assert addresses(world, WEB) == set()
    assert name_checks(world, "--service", "demo/web") == {}
    assert world.vmproxy("status", "-o", "json").json["hosts"][0]["names"] is None


def test_names_of_services_are_those_of_the_cluster_and_a_second_apply_has_nothing_to_do(
    world: World,
) -> None:
    world.change(dns={})
    assert world.drift() == ["names .cluster.local and 1 more"]
    assert addresses(world, WEB) == set()
    ran = world.apply()
    assert "names .cluster.local" in ran.out
    assert ours(world) == [[".cluster.local .96.10.in-addr.arpa", DNS_SERVICE]]
    assert addresses(world, WEB) == {world.cluster_ip("web")}
    by_name = world.look_in("host", "curl", "-sS", "-m", "10", f"http://{WEB}/hostname")
    assert by_name.strip() in {"web-1", "web-2"}
    backwards = world.look_in("host", "getent", "hosts", DNS_SERVICE)
    assert "kube-dns.kube-system.svc.cluster.local" in backwards
    assert "nothing to do" in world.apply().out
    assert world.drift() == []


def test_verify_looks_names_up_by_each_way_of_the_host(named: World) -> None:
    checks = name_checks(named, "--service", "demo/web")
    assert set(checks) == {"default/kubernetes", "demo/web"}
    assert all(check["ok"] is True and check["hop"] is None for check in checks.values())
    detail = str(checks["demo/web"]["detail"])
    assert f"{WEB} is {named.cluster_ip('web')}" in detail
    ways = ["Resolve-DnsName", "GetHostAddresses"] if isinstance(named, HypervWorld) else ["getaddrinfo"]
    assert all(way in detail for way in ways)


def test_a_long_answer_comes_by_tcp(named: World) -> None:
    """Longer than the 1232 bytes that are asked for by UDP."""
    endpoints = {f"10.244.7.{number}": "" for number in range(1, 91)}
    service, behind = service_with_slice("many", [("http", 80, 8080, "TCP")], endpoints)
    service["spec"]["clusterIP"] = "None"
    named.create(service, behind)
    try:
        wait.until(
            "the records of a headless Service",
            lambda: len(addresses(named, "many.demo.svc.cluster.local")) == len(endpoints) or "not yet",
            timeout=60,
            every=0.5,
        )
    finally:
        named.delete_service("many")
    lines = [line for line in log_of_coredns(named).splitlines() if "many.demo" in line and "NOERROR" in line]
    assert any(" tcp " in line for line in lines)


def test_other_names_never_reach_the_clusters_dns(named: World) -> None:
    assert addresses(named, LOCAL_NAME) == {LOCAL_ADDRESS}
    assert addresses(named, f"missing.{LOCAL_NAME}") == set()
    assert LOCAL_NAME not in log_of_coredns(named)


def test_while_the_vm_is_off_other_names_answer_at_once(named: World) -> None:
    named.kill_vm()
    started = time.monotonic()
    assert addresses(named, LOCAL_NAME) == {LOCAL_ADDRESS}
    assert time.monotonic() - started < 5.0, "a server that does not answer was waited for"
    named.apply("--yes")
    assert named.drift() == []
    assert addresses(named, WEB) == {named.cluster_ip("web")}


def test_a_rule_that_was_removed_or_changed_comes_back(named: World) -> None:
    for name in list(rules(named)):
        remove_rule(named, name)
    assert named.drift() == ["names .cluster.local and 1 more"]
    named.apply()
    (name,) = rules(named)
    remove_rule(named, name)
    make_rule(named, "{1}", COMMENT, ".cluster.local", "192.168.100.1")
    assert {field.rpartition(": ")[2] for field in named.drift()} == {"namespaces", "servers"}
    named.apply()
    make_rule(named, "{2}", COMMENT, ".cluster.local", DNS_SERVICE)
    assert len(named.drift()) == 1
    named.apply()
    assert ours(named) == [[".cluster.local .96.10.in-addr.arpa", DNS_SERVICE]]
    assert named.drift() == []


@pytest.mark.parametrize("namespace", [".cluster.local", ".demo.svc.cluster.local"])
def test_a_foreign_rule_for_the_same_names_is_refused_and_stays(named: World, namespace: str) -> None:
    with foreign_rule(named, namespace):
        before = rules(named)
        for verb in (("plan",), ("apply", "--yes")):
            says(named.vmproxy(*verb), 1, FOREIGN, "a VPN")
        found = named.vmproxy("doctor", "-o", "json")
        assert found.code == 4
        assert rules(named) == before


def test_a_wider_rule_of_another_tool_is_no_conflict(named: World) -> None:
    with foreign_rule(named, ".local"):
        assert named.drift() == []
        assert addresses(named, WEB) == {named.cluster_ip("web")}


def test_a_dns_that_does_not_answer_gets_no_rule(world: World) -> None:
    world.change(dns={"server": "10.96.77.77"})
    says(world.vmproxy("apply"), 1, "10.96.77.77", "does not answer")
    assert ours(world) == []
    world.change(dns={})
    world.apply()


def test_a_domain_and_a_server_of_the_site_file_are_taken_as_they_are(named: World) -> None:
    named.change(dns={"domain": "k8s.example", "server": DNS_SERVICE})
    named.apply()
    assert ours(named) == [[".k8s.example .96.10.in-addr.arpa", DNS_SERVICE]]
    assert name_checks(named, "--service", "demo/web", code=4)["demo/web"]["hop"] == "name"


def test_names_that_are_not_answered_are_said_by_status_and_verify(named: World) -> None:
    assert named.status.kubeconfig is not None
    pid = Process("coredns", named.status.kubeconfig.parent, None).pid
    assert pid is not None
    if isinstance(named, HypervWorld):
        named.windows.state.part(resolver.Names).cache.clear()
    os.kill(pid, signal.SIGSTOP)
    try:
        checks = name_checks(named, "--service", "demo/web-pods", code=4)
        assert checks["demo/web-pods"]["hop"] == "name"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait.until(
        "names to be answered again", lambda: bool(addresses(named, WEB)) or "no", timeout=60, every=0.5
    )
    seen = named.vmproxy("status", "-o", "json").json["hosts"][0]
    assert seen["names"] == {"state": "set", "domain": "cluster.local", "server": DNS_SERVICE}
    assert seen["converged"] is True, seen["problems"]


def test_without_dns_in_the_site_file_any_more_the_rule_goes(named: World) -> None:
    named.change(dns=None)
    assert len(named.drift()) == 1
    named.apply()
    assert ours(named) == []
    assert named.drift() == []


def test_render_shows_the_rule(named: World, tmp_path: Path) -> None:
    assert named.vmproxy("render", str(tmp_path)).code == 0
    (file,) = tmp_path.rglob("names.json")
    assert COMMENT in file.read_text()
    assert DNS_SERVICE in file.read_text()


def test_doctor_says_where_names_are_asked(named: World) -> None:
    (host,) = named.vmproxy("doctor", "-o", "json").json["hosts"]
    found = {item["check"]: item for item in host["findings"]}
    assert found["names"]["ok"]
    assert DNS_SERVICE in found["names"]["detail"]
    assert found["policies for names"]["ok"]


def test_destroy_leaves_no_rule_of_ours_and_those_of_others(named: World) -> None:
    with foreign_rule(named, ".corp.example"):
        shown = named.vmproxy("destroy")
        assert shown.code == 3
        assert shown.out.index("names .cluster.local") < shown.out.index("route 10.96.0.0/16")
        assert named.vmproxy("destroy", "--yes").code == 0
        assert list(rules(named)) == [FOREIGN]
        assert named.vmproxy("destroy", "--yes").code == 0
