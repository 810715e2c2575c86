"""The commands that only look, by way of the phases: what they say of a world that is not as it should be."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.memory import CHANGES, Product, links, made
from vmproxy.engine.links import ClusterLink
from vmproxy.engine.phases import PHASES
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import NotReady, ToolFailed, Unreachable, VmproxyError
from vmproxy.hosts.memory import MemoryCarrier, MemoryWorld
from vmproxy.hosts.protocols import Drivers
from vmproxy.model.seen import Unobservable
from vmproxy.model.topology import Member
from vmproxy.operations.doctor import doctor_host
from vmproxy.operations.render import render_host
from vmproxy.operations.verify import Check, verify_host
from vmproxy.util.events import Reporter

QUIET = Reporter(lambda _host, _event: None)


def verified(product: Product) -> set[tuple[bool | None, str | None]]:
    found: tuple[Check, ...] = verify_host(product.site(), product.topology.members[0], QUIET, services=())
    assert found
    return {(check.ok, check.hop) for check in found}


def test_a_good_world_is_good_for_every_command() -> None:
    product = Product(made())
    assert product.status().problems == ()
    assert verified(product) == {(True, None)}
    found = doctor_host(product.site(), product.topology.members[0], QUIET)
    assert {"cluster", "switch", "VM name", "routes"} <= {item.check for item in found if item.ok}


@pytest.mark.parametrize(
    ("change", "lost", "hop"),
    [("", False, None), ("", True, "container"), ("VM off", False, "vm"), ("VM off", True, "vm")],
)
def test_a_container_of_a_network_that_the_site_file_does_not_have_is_asked_too(
    change: str, lost: bool, hop: str | None
) -> None:
    """As one of a nat network, for which nothing is to be set."""
    world = made()
    CHANGES.get(change, lambda _world: None)(world)
    world.lost = frozenset({"web"} if lost else ())
    product = Product(world)
    (check,) = verify_host(product.site(), product.topology.members[0], QUIET, services=(), container="web")
    assert (check.ok, check.hop) == (hop is None, hop)
    if hop == "container":
        assert check.detail == "win-01 reaches it, its container does not: answered in memory"


@pytest.mark.parametrize(
    ("change", "hop", "problem"),
    [
        ("no route", "route", "does not answer"),
        ("route elsewhere", "route", "does not answer"),
        ("VM off", "vm", "the VM is stopped"),
        ("rules flushed", "proxy", "rule"),
    ],
)
def test_what_is_broken_has_its_phase_s_words(change: str, hop: str, problem: str) -> None:
    world = made()
    CHANGES[change](world)
    product = Product(world)
    assert verified(product) == {(False, hop), (False, "name")}
    problems = product.status().problems
    assert problem in " ".join(problems)
    product.apply()
    assert product.status().converged
    assert verified(product) == {(True, None)}


def test_a_rule_for_names_that_is_gone_breaks_names_alone() -> None:
    world = made()
    CHANGES["no rule for names"](world)
    product = Product(world)
    assert verified(product) == {(True, None), (False, "name")}
    status = product.status()
    assert status.names is not None
    assert getattr(status.names, "state", None) == "missing"
    assert status.problems == (
        "kubernetes.default.svc.cluster.local is not 10.96.0.1 by memory: no such name in memory",
    )
    product.apply()
    assert product.status().problems == ()


def test_a_policy_for_names_is_a_finding_a_warning_and_a_problem_and_no_step() -> None:
    world = made()
    world.policy = "HKLM:\\the key"
    product = Product(world)
    found = doctor_host(product.site(), product.topology.members[0], QUIET)
    (wrong,) = [item for item in found if "the key" in item.detail]
    assert not wrong.ok
    assert "Add-DnsClientNrptRule -GpoName" in wrong.next_step
    planned = product.plan()
    assert planned.in_sync
    assert any("the key" in text for text in planned.warnings)
    status = product.status()
    assert getattr(status.names, "state", None) == "void"
    assert not status.converged


def test_a_host_that_serves_dns_is_told_how_to_serve_the_clusters_names_too() -> None:
    world = made()
    world.serves_dns = True
    product = Product(world)
    found = {item.check: item for item in doctor_host(product.site(), product.topology.members[0], QUIET)}
    server = found["DNS server on the host"]
    assert server.ok
    assert "-Name cluster.local -MasterServers 10.96.0.10" in server.detail


def test_a_dns_that_was_not_found_is_an_error_of_plan_and_apply_and_said_by_the_others() -> None:
    world = made()
    world.cluster.dns = Unobservable("no such Service; set dns.server in the site file")
    product = Product(world)
    assert isinstance(product.apply().error, VmproxyError)
    with pytest.raises(VmproxyError, match=r"dns\.server"):
        product.plan()
    assert (False, "name") in verified(product)
    assert product.status().names == world.cluster.dns
    found = doctor_host(product.site(), product.topology.members[0], QUIET)
    assert any(item.check == "names" and not item.ok for item in found)
    assert product.destroy().error is None
    assert world.rules == []


def test_without_a_vm_status_says_so_once() -> None:
    status = Product(MemoryWorld()).status()
    assert (status.converged, status.problems) == (False, ("there is no VM yet",))


def test_a_cluster_that_does_not_answer_is_a_problem_beside_the_vms() -> None:
    class Unanswered(Product):
        def site(self) -> SiteRun:
            given = replace(links({"win-01": self.world}), cluster=unanswered)
            return SiteRun(self.topology, self.topology.members, given)

    def unanswered() -> ClusterLink:
        raise Unreachable("cannot reach the cluster: no route to host")

    world = made()
    CHANGES["VM off"](world)
    product = Unanswered(world)
    assert product.status().problems == (
        "cannot reach the cluster: no route to host",
        "the VM is stopped",
    )
    assert verified(product) == {(False, "api")}


def test_a_host_that_cannot_be_reached_is_opened_once() -> None:
    opened: list[str] = []

    def open_host(member: Member) -> AbstractContextManager[Drivers]:
        opened.append(member.name)
        raise Unreachable("cannot reach win-01: timed out")

    class Unreached(Product):
        def site(self) -> SiteRun:
            given = replace(links({"win-01": self.world}), open_host=open_host)
            return SiteRun(self.topology, self.topology.members, given)

    product = Unreached(made())
    found = doctor_host(product.site(), product.topology.members[0], QUIET)
    assert [item.check for item in found if "timed out" in item.detail] == ["host"]
    assert opened == ["win-01"]


def test_render_writes_the_files_of_every_phase_and_no_secret(tmp_path: Path) -> None:
    product = Product(MemoryWorld())
    member = product.topology.members[0]
    paths = list(render_host(product.site(), member, tmp_path, QUIET))
    names = {str(path.relative_to(tmp_path)) for path in paths}
    assert {"cluster/identity.yaml", "seed/user-data", "guest/etc/vmproxy/kubeconfig"} <= names
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert "(redacted" in (tmp_path / "seed/user-data").read_text()


def test_render_into_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    product = Product(MemoryWorld())
    (tmp_path / "file").write_text("x")
    with pytest.raises(ToolFailed, match="cannot write"):
        list(render_host(product.site(), product.topology.members[0], tmp_path / "file", QUIET))


def test_logs_come_from_the_guest_or_from_the_console() -> None:
    product = Product(made())
    with Scope(product.site(), product.topology.members[0], QUIET) as scope:
        assert scope.logs("proxy", 5) == "proxy: in memory"
        assert scope.logs("console", 5) == "in memory"
    nothing = Scope(Product(MemoryWorld()).site(), product.topology.members[0], QUIET)
    with nothing as scope, pytest.raises(VmproxyError, match="there is no such VM"):
        scope.logs("console", 5)


def test_a_vm_that_ends_while_it_boots_is_told_with_its_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryCarrier, "died", lambda _self: "its process has ended")
    result = Product(MemoryWorld()).apply()
    assert isinstance(result.error, NotReady)
    assert "its process has ended" in result.error.message
    assert "console: in memory" in result.error.details


def test_the_phases_have_names_of_their_own() -> None:
    assert len({phase.name for phase in PHASES}) == len(PHASES)
