"""The whole product in memory: from any world, killed at any moment, with and without consent."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings

from tests.memory import (
    ADDRESS_VALUE,
    CHANGES,
    DNS,
    FOREIGN,
    RANGE,
    SPACES,
    THEIRS,
    VM,
    MemoryArtifacts,
    Product,
    links,
    made,
    topology,
    worlds,
)
from vmproxy.engine.phases import routes
from vmproxy.engine.run import HostResult, apply_host, destroy_host, for_each
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import Busy, Conflict, NotReady, UsageError, VmproxyError
from vmproxy.hosts.memory import MemoryCarrier, MemoryVm, MemoryWorld
from vmproxy.model import names
from vmproxy.model.seen import DnsSeen, Grant, Marker, NameRule
from vmproxy.model.steps import ReconfigureVm, Step
from vmproxy.model.topology import Member, Topology, compile_site
from vmproxy.operations.plan import plan_host
from vmproxy.site.model import Site
from vmproxy.util.events import Progress, Reporter, Warned

VERSION = "v1.36.3"

many = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
fewer = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


quiet = Reporter(lambda _host, _event: None)


class Killed(BaseException):
    """The controller died."""


def shown(steps: tuple[Step, ...]) -> list[tuple[str, str]]:
    return [(step.verb, step.target) for step in steps]


def foreign(world: MemoryWorld) -> object:
    """What no run may touch."""
    objects = {name: item for name, item in world.cluster.objects.items() if name.endswith("/other")}
    rules = [rule for rule in world.rules if rule == THEIRS]
    return [item for item in world.routes if item in FOREIGN], world.vms.get("other"), objects, rules


def with_foreign(world: MemoryWorld) -> MemoryWorld:
    marker = Marker("b", "win-09", ADDRESS_VALUE, "seed", "image", "key")
    world.vms["other"] = MemoryVm(marker, {"cpus": 8}, "image", "seed", running=True)
    world.rules = [THEIRS, *(rule for rule in world.rules if rule != THEIRS)]
    world.cluster.objects["role/other"] = {"kind": "Role", "metadata": {"name": "other", "uid": "9"}}
    return world


def is_good(world: MemoryWorld) -> None:
    vm = world.vms[VM]
    assert vm.running
    assert vm.guest.answers
    assert RANGE in world.routes
    assert vm.marker is not None
    assert vm.marker.routes == (RANGE,)
    (rule,) = [rule for rule in world.rules if rule.comment == "vmproxy:a:win-01"]
    assert (rule.namespaces, rule.servers) == (SPACES, (DNS,))


@given(worlds())
@many
def test_from_any_world_apply_makes_the_next_plan_empty(world: MemoryWorld) -> None:
    product = Product(with_foreign(world))
    untouched = copy.deepcopy(foreign(world))
    try:
        result = product.apply()
    except Conflict:
        return
    if isinstance(result.error, Conflict):
        assert any(item.prefix == RANGE.prefix and item != RANGE for item in world.routes)
        return
    assert result.error is None
    assert product.plan().in_sync
    is_good(world)
    assert foreign(world) == untouched


@given(worlds())
@many
def test_what_plan_shows_is_what_apply_does(world: MemoryWorld) -> None:
    product = Product(world)
    try:
        planned = product.plan()
    except Conflict:
        return
    result = product.apply()
    assert result.error is None
    steps, done = shown(planned.steps), shown(result.done)
    assert [item for item in steps if item in done] == [item for item in done if item in steps]
    left_out = [step for step in planned.steps if shown((step,))[0] not in done]
    added = [step for step in result.done if shown((step,))[0] not in steps]
    if any(isinstance(step, ReconfigureVm) for step in planned.steps):  # a restart repairs some
        assert all(step.place == "guest" for step in (*left_out, *added))
    else:
        assert left_out == []
        assert planned.unseen or added == []  # the guest was looked at after the start


@given(worlds())
@many
def test_without_consent_nothing_that_runs_is_interrupted(world: MemoryWorld) -> None:
    product = Product(world)
    world.consent = False  # the world itself refuses to stop a VM
    try:
        planned = product.plan()
    except Conflict:
        return
    result = product.apply(yes=False)
    assert result.error is None
    cold = [step for step in planned.steps if step.cold]
    assert not any(step.cold for step in result.done)
    assert bool(result.left.steps) == bool(cold)
    world.consent = True
    assert product.apply().error is None
    is_good(world)


def test_another_gateway_changes_nothing_in_a_vm_that_is_still_to_be_made_anew() -> None:
    world = made()
    before = copy.deepcopy(world.vms[VM].guest)
    network = {"address": "192.168.10.5/24", "gateway": "192.168.10.254", "dns": ["192.168.10.3"]}
    result = Product(world, topology(network=network)).apply(yes=False)
    assert (result.error, result.done) == (None, ())
    assert {step.verb for step in result.left.steps if step.cold} >= {"recreate"}
    assert world.vms[VM].guest == before
    elsewhere = {"address": "192.168.77.9/24", "gateway": "192.168.77.1"}
    assert Product(world, topology(network=elsewhere)).apply(yes=False).done == ()
    assert world.vms[VM].guest == before


def test_while_the_guest_cannot_be_reached_no_account_loses_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    world = made()
    CHANGES["rule widened"](world)
    before = copy.deepcopy(world.cluster.objects)

    def refused(*_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(MemoryCarrier, "open_guest", refused)
    monkeypatch.setattr(Scope, "wait_for_boot", Scope.guest)
    result = Product(world).apply()
    assert isinstance(result.error, VmproxyError)
    assert result.done == ()
    assert world.cluster.objects == before


def moments(world: MemoryWorld, product: Product, command: str) -> int:
    """How many there are in a run of that command on a copy of the world."""
    count = 0

    def tick(_what: str) -> None:
        nonlocal count
        count += 1

    trial = _copy(world)
    trial.moment = tick
    getattr(Product(trial, product.topology, product.artifacts), command)()
    return count


def _copy(world: MemoryWorld) -> MemoryWorld:
    known = {
        name: copy.deepcopy(value)
        for name, value in vars(world).items()
        if name not in {"moment", "changing"}
    }
    return MemoryWorld(**known)


def killed_everywhere(world: MemoryWorld, product: Product, command: str) -> Iterator[MemoryWorld]:
    for last in range(moments(world, product, command)):
        left = _copy(world)
        remaining = last

        def tick(_what: str) -> None:
            nonlocal remaining
            if remaining == 0:
                raise Killed
            remaining -= 1

        left.moment = tick
        with pytest.raises(Killed):
            getattr(Product(left, product.topology, product.artifacts), command)()
        left.moment = lambda _what: None
        yield left


@pytest.mark.parametrize("start", ["nothing", *sorted(CHANGES)])
@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_killed_at_any_moment_the_next_apply_converges(start: str, command: str) -> None:
    world = with_foreign(MemoryWorld(routes=list(FOREIGN)) if start == "nothing" else made())
    if start != "nothing":
        CHANGES[start](world)
    product = Product(world)
    if isinstance(Product(_copy(world)).apply().error, Conflict):
        return  # a foreign route: tested below
    untouched = copy.deepcopy(foreign(world))
    for left in killed_everywhere(world, product, command):
        again = Product(left)
        result = again.apply()
        assert result.error is None, result.error
        assert again.plan().in_sync
        is_good(left)
        assert foreign(left) == untouched


@pytest.mark.parametrize("change", [{"vm": {"cpus": 1}}, {"switch": {"name": "other"}}])
def test_killed_at_any_moment_of_a_change_the_next_apply_converges(change: dict[str, object]) -> None:
    world = made()
    product = Product(world, topology(**change))
    for left in killed_everywhere(world, product, "apply"):
        assert Product(left, topology(**change)).apply().error is None
        is_good(left)


@pytest.mark.parametrize(("before", "after"), [("nodes", "flannel"), ("flannel", "endpoints")])
def test_killed_at_any_moment_of_a_change_of_pod_routes_the_next_apply_converges(
    before: str, after: str
) -> None:
    own = {"address": "192.168.10.5/24", "gateway": "192.168.10.1"}
    world = made(network={**own, "podRoutes": before})
    wanted = topology(network={**own, "podRoutes": after})
    for left in killed_everywhere(world, Product(world, wanted), "apply"):
        again = Product(left, wanted)
        assert again.apply().error is None
        assert again.plan().in_sync
        kept = left.vms[VM].guest.pod_routes
        assert kept
        assert kept.mode == after
        rules = left.cluster.objects["clusterrole/vmproxy-a-win-01"]["rules"]
        reads_nodes = [
            rule for rule in rules if rule["resources"] == ["nodes"] and "resourceNames" not in rule
        ]
        assert bool(reads_nodes) == (after == "flannel")


def test_killed_at_any_moment_of_a_move_no_route_leads_to_the_old_address() -> None:
    world = made()
    moved = topology(network={"address": "192.168.10.6/24", "gateway": "192.168.10.1"})
    for left in killed_everywhere(world, Product(world, moved), "apply"):
        assert Product(left, moved).apply().error is None
        assert [str(item.via) for item in left.routes if item.prefix == RANGE.prefix] == ["192.168.10.6"]


@given(worlds())
@fewer
def test_destroy_leaves_nothing_of_ours_and_everything_else(world: MemoryWorld) -> None:
    product = Product(with_foreign(world))
    untouched = copy.deepcopy(foreign(world))
    result = product.destroy()
    assert result.error is None
    assert set(world.vms) == {"other"}
    assert set(world.cluster.objects) == {"role/other"}
    assert RANGE not in world.routes
    assert world.leftovers == ()
    assert foreign(world) == untouched


def test_a_new_image_is_a_new_vm_and_needs_consent() -> None:
    world = made()
    product = Product(world, artifacts=MemoryArtifacts("b" * 64))
    world.consent = False
    assert product.plan().in_sync
    assert [step.verb for step in product.apply(yes=False, new_image=True).left.steps] == [
        "remove",
        "recreate",
        "start",
        "add",
    ]
    world.consent = True
    assert product.apply(new_image=True).error is None
    assert world.vms[VM].disk == "b" * 64
    assert product.apply(new_image=True).done == ()


def test_a_changed_recipe_is_a_new_vm() -> None:
    world = made()
    product = Product(world, artifacts=MemoryArtifacts("b" * 64, recipe="debian-13-2"))
    assert product.apply().error is None
    assert world.vms[VM].disk == "b" * 64


def test_a_lost_cache_is_no_drift() -> None:
    product = Product(made(), artifacts=MemoryArtifacts(cache=False))
    assert product.plan().in_sync
    assert product.apply().done == ()
    assert product.artifacts.got == []


def test_another_image_that_cannot_be_had_is_an_error_and_a_lost_one_of_the_same_name_is_none() -> None:
    world, unknown = made(), UsageError("cannot find an image named corp")
    lost = Product(world, artifacts=MemoryArtifacts(cache=False, problem=unknown))
    assert lost.plan().in_sync
    other = Product(world, artifacts=MemoryArtifacts(recipe="name:corp", cache=False, problem=unknown))
    with pytest.raises(UsageError, match="corp"):
        other.plan()
    assert other.apply().error is unknown
    assert other.apply().done == ()
    nothing = Product(MemoryWorld(), artifacts=MemoryArtifacts(cache=False, problem=unknown))
    with pytest.raises(UsageError, match="corp"):
        nothing.plan()


def test_a_lost_cache_and_a_changed_recipe_are_told_without_building() -> None:
    product = Product(made(), artifacts=MemoryArtifacts("b" * 64, recipe="debian-13-2", cache=False))
    planned = product.plan()
    assert ("image: built when it is applied") in planned.unseen
    assert "recreate" in [step.verb for step in planned.steps]
    assert product.artifacts.got == []
    assert product.apply(yes=False).left.steps
    assert product.artifacts.got == []


def test_a_plan_from_nothing_says_what_it_would_get_and_apply_gets_it_once_before_any_change() -> None:
    product = Product(MemoryWorld(routes=list(FOREIGN)), artifacts=MemoryArtifacts(cache=False))
    planned = product.plan()
    assert planned.unseen[-2:] == (
        "image: built when it is applied",
        f"kube-proxy {VERSION}: fetched from https://a.example when it is applied",
    )
    assert product.artifacts.got == []
    moments: list[list[str]] = []
    product.world.moment = lambda _what: moments.append(list(product.artifacts.got))
    result = product.apply()
    assert (result.error, result.left.in_sync) == (None, True)
    assert moments[0] == product.artifacts.got == ["image", "program"]
    assert product.world.vms[VM].disk == "a" * 64
    assert product.plan().in_sync


def test_a_vm_that_is_made_anew_for_another_reason_gets_the_image_that_is_here() -> None:
    world = made()
    world.vms[VM].seed = None
    assert Product(world, artifacts=MemoryArtifacts("b" * 64)).apply().error is None
    assert world.vms[VM].disk == "b" * 64


def test_kube_proxy_of_another_version_is_fetched_when_it_is_not_here() -> None:
    world = made()
    guest = world.vms[VM].guest
    del guest.files[names.PROGRAM]
    product = Product(world, artifacts=MemoryArtifacts(cache=False))
    assert f"kube-proxy {VERSION}: fetched from https://a.example when it is applied" in product.plan().unseen
    assert product.apply().error is None
    assert product.artifacts.got == ["program"]
    assert product.plan().in_sync


def test_a_foreign_route_is_named_and_nothing_is_changed() -> None:
    world = MemoryWorld(routes=[*FOREIGN, type(RANGE)(RANGE.prefix, FOREIGN[0].via)])
    before = _copy(world)
    error = Product(world).apply().error
    assert isinstance(error, Conflict)
    assert str(RANGE.prefix) in error.details[0]
    assert (world.vms, world.routes) == (before.vms, before.routes)
    assert world.cluster.objects == before.cluster.objects


@pytest.mark.parametrize("namespace", [".cluster.local", ".Demo.svc.cluster.local", "x.cluster.local"])
def test_a_foreign_rule_for_names_is_named_and_nothing_is_changed(namespace: str) -> None:
    theirs = NameRule((".corp", namespace), (DNS,), "vmproxy:b:win-01", "{9}")
    world = MemoryWorld(routes=list(FOREIGN), rules=[theirs])
    error = Product(world).apply().error
    assert isinstance(error, Conflict)
    assert "{9}" in error.details[0]
    assert "vmproxy:b:win-01" in error.details[0]
    assert (world.vms, world.rules, world.cluster.objects) == ({}, [theirs], {})


def test_names_are_asked_of_the_cluster_only_when_its_dns_answers() -> None:
    world = made()
    CHANGES["no rule for names"](world)
    world.cluster.dns = DnsSeen("cluster.local", ip_address("10.99.0.10"))  # nothing is routed there
    error = Product(world).apply().error
    assert isinstance(error, NotReady)
    assert "10.99.0.10 does not answer" in error.message
    assert world.rules == [THEIRS]


def test_names_go_when_the_site_file_asks_for_none_any_more() -> None:
    world = with_foreign(made())
    world.cluster.dns = None
    product = Product(world)
    assert [(step.verb, step.target) for step in product.plan().steps] == [
        ("remove", "names .cluster.local and 1 more")
    ]
    assert product.apply().error is None
    assert world.rules == [THEIRS]
    assert product.plan().in_sync


def test_destroy_removes_names_before_the_routes_and_leaves_those_of_others() -> None:
    world = with_foreign(made())
    done = [step.target for step in Product(world).destroy().done]
    assert done.index("names .cluster.local and 1 more") < done.index("route 10.96.0.0/16")
    assert world.rules == [THEIRS]


def test_a_vm_of_another_site_is_never_touched() -> None:
    world = MemoryWorld()
    world.vms[VM] = MemoryVm(Marker("b", "x", ADDRESS_VALUE, "s", "i", "k"), {}, "i", "s", running=True)
    assert isinstance(Product(world).apply().error, Conflict)
    assert world.vms[VM].running


def test_without_the_cluster_nothing_is_changed_and_destroy_removes_the_host_s_part() -> None:
    world = made()
    world.cluster.reachable = False
    assert Product(world).apply().error is not None
    is_good(world)
    result = Product(world).destroy()
    assert result.error is not None
    assert "identity in the cluster" in result.error.message
    assert world.vms == {}
    assert RANGE not in world.routes


@pytest.mark.parametrize("_round", range(10))
def test_two_runs_at_once_end_in_one_good_state_or_one_clear_busy(_round: int) -> None:
    world = MemoryWorld(routes=list(FOREIGN))
    errors: list[VmproxyError | None] = []
    runs = [threading.Thread(target=lambda: errors.append(Product(world).apply().error)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert all(error is None or isinstance(error, Busy) for error in errors), errors
    is_good(world)


def test_a_failure_names_its_step_and_keeps_what_was_done_before() -> None:
    world = MemoryWorld(routes=list(FOREIGN))

    def tick(what: str) -> None:
        if what == "before start vm":
            raise Busy("cannot start it: no power")

    world.moment = tick
    result = Product(world).apply()
    assert result.error is not None
    assert getattr(result.error.step, "verb", None) == "start"
    assert [step.verb for step in result.done][-1] == "create"
    world.moment = lambda _what: None
    assert Product(world).apply().error is None


def fleet(number: int) -> tuple[Topology, dict[str, MemoryWorld]]:
    """A site of that many hosts, each a world of its own, and one cluster."""
    hosts = [
        {
            "name": f"win-{index}",
            "qemu": {},
            "network": {"address": f"192.168.{index}.5/24", "gateway": f"192.168.{index}.1"},
        }
        for index in range(number)
    ]
    made = compile_site(Site.model_validate({"name": "a", "hosts": hosts}))
    cluster = MemoryWorld().cluster
    return made, {member.name: MemoryWorld(cluster=cluster) for member in made.members}


def applied(site: SiteRun, *members: Member) -> list[HostResult | VmproxyError]:
    return for_each(members, lambda member: apply_host(site, member, quiet, yes=True))


def destroyed(site: SiteRun, *members: Member) -> list[HostResult | VmproxyError]:
    return for_each(members, lambda member: destroy_host(site, member, quiet, yes=True))


def errors(results: list[HostResult | VmproxyError]) -> list[VmproxyError]:
    found = [result.error if isinstance(result, HostResult) else result for result in results]
    return [error for error in found if error]


def test_the_api_server_gets_as_many_lists_for_a_hundred_hosts_as_for_one() -> None:
    def lists(number: int) -> int:
        made, worlds = fleet(number)
        site = SiteRun(made, made.members, links(worlds))
        assert errors(applied(site, *made.members)) == []
        return worlds["win-0"].cluster.lists

    assert lists(1) == lists(100)


def test_a_plan_of_many_hosts_asks_for_no_more_lists_than_one_of_one_host() -> None:
    def lists(number: int) -> int:
        made, worlds = fleet(number)
        site = SiteRun(made, made.members, links(worlds))
        for member in made.members:
            plan_host(site, member, quiet)
        return worlds["win-0"].cluster.lists

    assert lists(1) == lists(20)


def test_what_others_give_to_a_vms_accounts_is_a_warning_of_the_plan_and_stays() -> None:
    world = made()
    theirs = Grant("a-win-01", "clusterrolebinding/theirs", "gives the rights of ClusterRole admin to")
    other = replace(theirs, account="a-win-02")
    world.cluster.grants = (theirs, other)
    product = Product(world)
    planned = product.plan()
    assert planned.in_sync
    assert [text for text in planned.warnings if "theirs" in text] == [
        "clusterrolebinding/theirs, which vmproxy did not make, gives the rights of ClusterRole admin to "
        "a-win-01: remove it if nobody needs it"
    ]
    assert product.apply().done == ()


def test_a_site_of_an_earlier_version_converges_with_one_apply() -> None:
    """There the account renewed its own token, and wrote events everywhere."""
    world = made()
    objects, guest = world.cluster.objects, world.vms[VM].guest
    binding = objects["rolebinding/a-win-01"]
    objects["rolebinding/a-win-01"] = {
        **binding,
        "subjects": [{"kind": "ServiceAccount", "name": "a-win-01", "namespace": "vmproxy"}],
    }
    for name in [name for name in objects if name.endswith("-renewal") or "/default/" in name]:
        del objects[name]
    del guest.files[names.RENEWAL]
    guest.files[names.RENEW] = replace(guest.files[names.RENEW], sha256="0" * 64)
    product = Product(world)
    world.consent = False
    assert product.apply(yes=False).error is None
    assert product.plan().in_sync
    assert guest.files[names.RENEWAL].mode == "0600"


def test_a_renewal_account_of_that_name_of_another_host_is_a_conflict_and_nothing_is_changed() -> None:
    world = MemoryWorld()
    labels = {"app.kubernetes.io/managed-by": "vmproxy", "vmproxy.io/site": "a-win", "vmproxy.io/host": "x"}
    world.cluster.objects["serviceaccount/a-win-01-renewal"] = {
        "kind": "ServiceAccount",
        "metadata": {"name": "a-win-01-renewal", "namespace": "vmproxy", "uid": "9", "labels": labels},
    }
    error = Product(world).apply().error
    assert isinstance(error, Conflict)
    assert "host x of site a-win" in error.message
    assert set(world.cluster.objects) == {"serviceaccount/a-win-01-renewal"}


def test_a_cluster_that_fills_no_secret_is_an_error_and_the_next_apply_goes_on() -> None:
    world = MemoryWorld(routes=list(FOREIGN))
    world.cluster.fills = False
    error = Product(world).apply().error
    assert isinstance(error, NotReady)
    assert getattr(error.step, "target", None) == "secret/a-win-01-renewal"
    assert world.vms == {}
    world.cluster.fills = True
    assert Product(world).apply().error is None
    is_good(world)


def test_no_token_is_in_what_a_run_reports() -> None:
    world = MemoryWorld(routes=list(FOREIGN))
    said: list[object] = []
    product = Product(world)
    report = Reporter(lambda _host, event: said.append(event))
    result = apply_host(product.site(), product.topology.members[0], report, yes=True)
    token = world.cluster.objects["secret/a-win-01-renewal"]["data"]["token"]
    assert result.error is None
    assert token not in repr(result) + repr(said)


def test_a_host_that_waited_sees_what_another_run_made_of_its_identity() -> None:
    """The run's one look at the cluster is not what it plans the identity from."""
    made, worlds = fleet(2)
    first, second = made.members
    site = SiteRun(made, made.members, links(worlds))
    assert errors(applied(site, first)) == []
    assert errors(applied(SiteRun(made, made.members, links(worlds)), second)) == []
    assert errors(applied(site, second)) == []


def test_what_hosts_share_goes_with_the_last_of_them() -> None:
    made, worlds = fleet(3)
    cluster = worlds["win-0"].cluster
    assert errors(applied(SiteRun(made, made.members, links(worlds)), *made.members)) == []
    assert "namespace/vmproxy" in cluster.objects

    one, *others = made.members
    assert errors(destroyed(SiteRun(made, (one,), links(worlds)), one)) == []
    assert "namespace/vmproxy" in cluster.objects

    results = destroyed(SiteRun(made, tuple(others), links(worlds)), *others)
    assert errors(results) == []
    assert cluster.objects == {}


def test_many_hosts_of_one_site_do_not_stand_in_each_other_s_way() -> None:
    """One that fails ends for itself; its error is its own."""
    hosts = [
        {"name": name, "qemu": {}, "network": {"address": f"10.0.{index}.5/24", "gateway": f"10.0.{index}.1"}}
        for index, name in enumerate(("b", "c"))
    ]
    fleet = compile_site(Site.model_validate({"name": "a", "hosts": hosts}))

    def work(member: Member) -> str:
        if member.name == "b":
            raise FileNotFoundError(2, "No such file or directory", "/none")
        return "done"

    first, second = for_each(fleet.members, work)
    assert isinstance(first, VmproxyError)
    assert "No such file or directory: /none" in first.message
    assert second == "done"


def test_the_first_of_two_waits_that_fails_ends_both() -> None:
    never = threading.Event()

    def fails() -> None:
        raise NotReady("cloud-init ended with an error")

    try:
        with pytest.raises(NotReady, match="cloud-init"):
            routes._side_by_side([lambda: never.wait(60) and None, fails])
    finally:
        never.set()


def test_both_waits_are_waited_for() -> None:
    done: list[int] = []
    routes._side_by_side([lambda: done.append(1), lambda: done.append(2)])
    assert sorted(done) == [1, 2]
    routes._side_by_side([])


def test_all_in_sync_and_no_answer_is_an_error_and_not_nothing_to_do() -> None:
    world = made()
    world.cut = True
    product = Product(world)
    error = product.apply().error
    assert error is not None
    assert "all is in sync, but 10.96.0.1:443 does not answer through the VM" in error.message
    assert error.hint == "run: vmproxy verify --host win-01"
    assert product.plan().in_sync
    assert any("10.96.0.1:443 does not answer win-01" in text for text in product.plan().warnings)
    assert product.status().problems == ("10.96.0.1:443 does not answer win-01: no answer in memory",)


@pytest.mark.parametrize("what", ["kube-proxy hung", "rules flushed"])
def test_a_sick_kube_proxy_is_drift_and_status_does_not_call_it_converged(what: str) -> None:
    world = made()
    CHANGES[what](world)
    product = Product(world)
    assert [step.verb for step in product.plan().steps] == ["restart"]
    seen = product.status()
    assert not seen.converged
    assert seen.problems
    assert [step.verb for step in product.apply().done] == ["restart"]
    assert product.plan().in_sync
    assert product.status().converged
    assert product.status().problems == ()


def test_a_marker_that_names_another_hosts_vm_is_a_conflict_and_nothing_is_done_there() -> None:
    """Whoever administers one host could write it, with the other VM's public host key."""
    made, worlds = fleet(2)
    assert errors(applied(SiteRun(made, made.members, links(worlds)), *made.members)) == []
    first, second = made.members
    vm, other = worlds[first.name].vms[first.vm.name], worlds[second.name].vms[second.vm.name]
    assert vm.marker is not None
    vm.marker = replace(vm.marker, address=second.vm.address, seed="older")
    vm.seed = "older"
    before = copy.deepcopy(other)
    (error,) = errors(applied(SiteRun(made, made.members, links(worlds)), first))
    assert isinstance(error, Conflict)
    assert second.name in error.message
    assert other == before


def test_a_marker_without_a_host_key_is_damaged() -> None:
    world = made()
    marker = world.vms[VM].marker
    assert marker is not None
    for wrong in ("", "key", "ssh-ed25519 AAAA\n192.168.10.9 ssh-ed25519 BBBB", "ssh-dss AAAA"):
        world.vms[VM].marker = replace(marker, host_key=wrong)
        error = Product(world).apply().error
        assert isinstance(error, Conflict)
        assert "marker is damaged" in error.message


def test_destroy_leaves_a_namespace_in_which_others_have_something_and_says_so() -> None:
    world = made()
    world.cluster.tenants = ("configmaps/theirs",)
    events: list[object] = []
    product = Product(world)
    site, member = product.site(), product.topology.members[0]
    result = destroy_host(site, member, Reporter(lambda _host, event: events.append(event)), yes=True)
    assert result.error is None
    assert set(world.cluster.objects) == {"namespace/vmproxy"}
    assert "configmaps/theirs" in result.left.warnings[0]
    for kind in (Progress, Warned):  # a line for people, and an event for programs
        assert any(isinstance(event, kind) and "configmaps/theirs" in event.text for event in events)
