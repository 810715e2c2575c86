from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.values import node, route
from vmproxy.cli import answers
from vmproxy.model import names
from vmproxy.model.names import PROXY_UNIT
from vmproxy.model.seen import (
    ApiServer,
    CanarySeen,
    ClusterSeen,
    FileSeen,
    FolderSeen,
    GuestSeen,
    ProxySeen,
    TokenSeen,
    UnitSeen,
    Unobservable,
)
from vmproxy.model.steps import (
    Follow,
    GiveRenewal,
    GuestStep,
    LoadGuard,
    PushFile,
    RemoveDropIns,
    RenewToken,
    RestartProxy,
    SetAccess,
    SetGuestAddress,
    SetGuestRoute,
    SetSysctl,
    StartUnit,
)
from vmproxy.model.topology import compile_site
from vmproxy.resources import firewall, guest, kubeproxy
from vmproxy.resources.guest import GuestWanted
from vmproxy.resources.kubeproxy import Program, Tools
from vmproxy.site.model import Proxy, Site

SITE = Site.model_validate(
    {
        "name": "a",
        "hosts": [
            {
                "name": "win-01",
                "qemu": {},
                "actsFor": "win-01",
                "network": {
                    "address": "192.168.10.5/24",
                    "gateway": "192.168.10.1",
                    "podRoutes": "nodes",
                    "routes": [{"to": "10.9.0.0/24", "via": "192.168.10.9"}],
                },
            }
        ],
    }
)
VM = compile_site(SITE).members[0].vm
NODES = (
    node("win-01", "192.168.10.2", "10.244.9.0/24"),
    node("node-01", "192.168.10.20", "10.244.1.0/24", "fd00::/64"),
    node("far", "172.16.0.9", "10.244.7.0/24"),
)
CLUSTER = ClusterSeen(
    version="v1.36.3",
    server="https://192.168.10.4:6443",
    ca="-----BEGIN CERTIFICATE-----\n",
    service_cidrs=(ip_network("10.96.0.0/16"), ip_network("fd01::/112")),
    pod_cidrs=(ip_network("10.244.0.0/16"),),
    nodes=NODES,
    canary=(ip_address("10.96.0.1"), 443),
    identity={
        "serviceaccount/a-win-01": {"metadata": {"uid": "uid-1"}},
        "secret/a-win-01-renewal": {"data": {"token": "e" * 64}},
    },
)
PROGRAM = Program(Path("/cache/kube-proxy"), "f" * 64, "v1.36.3")
HOST = (ip_interface("192.168.10.2/24"), ip_interface("172.16.5.9/20"))
NEW_UNIT = UnitSeen(active=False, enabled=False, stale=False)
SEEDED = {names.AUTHORIZED_KEYS: "ssh-ed25519 AAAA a\n", names.SSHD: "PasswordAuthentication no\n"}
FOLDER = FolderSeen("0755", "root", "root", "folder")
SECRET = FileSeen("0" * 64, "0600", "root")
NOW = 1_800_000_000.0
RENEWAL = FileSeen("e" * 64, "0600", "root")
TOKEN = TokenSeen("system:serviceaccount:vmproxy:a-win-01", "uid-1", int(NOW) - 3600, int(NOW) + 82800)
LIVE = ProxySeen(
    live=True, mode="nftables", last_synced=NOW, last_queued=NOW - 1, failures=0, denied=0, age=3600.0
)


def wanted(site: Site = SITE, cluster: ClusterSeen = CLUSTER) -> GuestWanted:
    vm = compile_site(site).members[0].vm
    tools = Tools("6.12", "1.1.3")
    return guest.wanted(vm, site.proxy, cluster, HOST, program=PROGRAM, tools=tools, seeded=SEEDED)


def good(want: GuestWanted) -> GuestSeen:
    """A guest that is all that is wanted."""
    return GuestSeen(
        files={
            **{path: FileSeen(file.sha256, file.mode, file.owner) for path, file in want.files.items()},
            names.TOKEN: SECRET,
            names.RENEWAL: RENEWAL,
        },
        units={unit: UnitSeen(active=True, enabled=True, stale=False) for unit in want.units}
        | {names.TOKEN_UNIT: NEW_UNIT},
        sysctls=dict(want.sysctls),
        guard=want.guard.sha256,
        routes=want.routes,
        token=TOKEN,
        proxy=LIVE,
        kernel="6.12",
        writes_rules=True,
        nft="1.1.3",
        now=NOW,
        canary=CanarySeen(rule=True, status=200),
        renewal=200,
        folders=dict.fromkeys(names.FOLDERS, FOLDER),
        addresses=(want.address, *want.added),
        added=want.added,
    )


def carried_out(  # noqa: PLR0912 (one for each kind of step)
    actions: tuple[GuestStep, ...], seen: GuestSeen
) -> GuestSeen:
    """What the guest is like after the actions, by what each of them means."""
    want, follows = wanted(), []
    files, sysctls, units = dict(seen.files), dict(seen.sysctls), dict(seen.units)
    folders = dict(seen.folders)
    setup, token, healthy = set(), seen.token, False
    renewal = seen.renewal
    for action in actions:
        match action:
            case PushFile(path, file):
                files[path] = FileSeen(file.sha256, file.mode, file.owner)
                follows.append(file.follow)
            case SetAccess(path, mode):
                if path in folders:
                    folders[path] = FolderSeen(mode, "root", "root", "folder")
                else:
                    files[path] = replace(files[path], mode=mode, owner="root", group="root")
            case RemoveDropIns(unit):
                units[unit] = replace(units[unit], drop_ins=())
                follows.append(Follow(restart=(unit,) if unit in want.units else ()))
            case SetSysctl(name, value):
                sysctls[name] = value
            case LoadGuard():
                setup.add("guard")
            case SetGuestRoute():
                setup.add("routes")
            case SetGuestAddress():
                setup.add("addresses")
            case RenewToken():
                token, files[names.TOKEN] = TOKEN, SECRET
            case GiveRenewal():
                files[names.RENEWAL] = RENEWAL
                renewal = 200
            case StartUnit(unit):
                units[unit] = UnitSeen(active=True, enabled=True, stale=False)
            case RestartProxy():
                healthy = True
    for follow in follows:
        setup |= set(follow.setup)
        if follow.renew:
            token, files[names.TOKEN] = TOKEN, SECRET
        healthy = healthy or PROXY_UNIT in follow.restart
        for unit in follow.restart:
            units[unit] = replace(units.get(unit, NEW_UNIT), active=True, stale=False)
    started = any(isinstance(step, StartUnit) and step.unit == PROXY_UNIT for step in actions)
    return replace(
        seen,
        proxy=LIVE if healthy or started else seen.proxy,
        canary=CanarySeen(rule=True, status=200)
        if healthy or started or token != seen.token
        else seen.canary,
        renewal=renewal,
        files=files,
        sysctls=sysctls,
        units=units,
        folders=folders,
        token=token,
        guard=want.guard.sha256 if "guard" in setup else seen.guard,
        routes=want.routes if "routes" in setup else seen.routes,
        addresses=(want.address, *want.added) if "addresses" in setup else seen.addresses,
        added=want.added if "addresses" in setup else seen.added,
    )


def fields(actions: tuple[GuestStep, ...]) -> list[str]:
    return [drift.field for action in actions for drift in action.drift]


def test_a_guest_as_wanted_needs_nothing() -> None:
    assert guest.plan(wanted(), good(wanted())) == ()


def test_a_guest_that_could_not_be_seen_is_not_planned_for() -> None:
    assert guest.plan(wanted(), Unobservable("the VM is stopped")) == ()


@pytest.mark.parametrize("path", list(wanted().files))
def test_an_edited_file_is_named_alone(path: str) -> None:
    seen = good(wanted())
    edited = {**seen.files, path: replace(seen.files[path], sha256="0" * 64)}
    assert fields(guest.plan(wanted(), replace(seen, files=edited))) == [f"{path}: sha256"]


@pytest.mark.parametrize("name", list(wanted().sysctls))
def test_a_changed_sysctl_is_named_alone(name: str) -> None:
    seen = good(wanted())
    assert fields(guest.plan(wanted(), replace(seen, sysctls={**seen.sysctls, name: "9"}))) == [name]


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "absent"),
        (replace(TOKEN, uid="uid-0"), "revoked"),
        (replace(TOKEN, subject="system:serviceaccount:kube-system:default"), "of another account"),
        (replace(TOKEN, expires=int(NOW) - 1), "expired"),
        (replace(TOKEN, expires=int(NOW) + 60), "about to expire"),
    ],
)
def test_a_token_that_will_not_do_is_renewed_and_the_plan_says_why(token: TokenSeen | None, why: str) -> None:
    (action,) = guest.plan(wanted(), replace(good(wanted()), token=token))
    assert (action.verb, action.drift[0].seen) == ("renew", why)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (None, "absent"),
        (replace(RENEWAL, sha256="0" * 64), "another one"),
        (replace(RENEWAL, mode="0644"), "mode 0644, of root:root"),
        (replace(RENEWAL, owner="nobody"), "mode 0600, of nobody:root"),
    ],
)
def test_a_renewal_token_that_will_not_do_is_given_again_and_the_plan_says_why(
    there: FileSeen | None, why: str
) -> None:
    files = {path: seen for path, seen in good(wanted()).files.items() if path != names.RENEWAL}
    seen = replace(good(wanted()), files=files | ({names.RENEWAL: there} if there else {}))
    (step,) = guest.plan(wanted(), seen)
    assert step == GiveRenewal(why)
    assert "e" * 64 not in str(answers.step(step))


def test_a_renewal_token_that_the_api_server_refuses_is_given_again_although_it_is_as_in_its_secret() -> None:
    """The other token is signed with the same key, and kube-proxy may have no rules to try it through."""
    refused = replace(good(wanted()), renewal=401)
    why = "refused by the API server"
    assert guest.plan(wanted(), refused) == (GiveRenewal(why), RenewToken(why))
    for status in (0, 200, 403, 500):
        assert guest.plan(wanted(), replace(good(wanted()), renewal=status)) == ()


def test_a_damaged_token_that_renews_says_nothing_of_the_other() -> None:
    files = {**good(wanted()).files, names.RENEWAL: replace(RENEWAL, sha256="0" * 64)}
    damaged = replace(good(wanted()), files=files, renewal=401)
    assert guest.plan(wanted(), damaged) == (GiveRenewal("another one"),)


def test_the_api_server_is_asked_where_its_url_leads() -> None:
    def asked(**other: Any) -> ApiServer | None:
        return guest.query(replace(CLUSTER, **other)).api

    assert asked() == ApiServer("192.168.10.4", 6443, "", "192.168.10.4", names.CA)
    assert asked(server="https://front.example/k8s/c-1/", tls_server_name="kubernetes") == ApiServer(
        "front.example", 443, "/k8s/c-1", "kubernetes", names.CA
    )


def test_while_its_secret_is_still_to_be_made_the_renewal_token_is_not_compared() -> None:
    account = {"serviceaccount/a-win-01": {"metadata": {"uid": "uid-1"}}}
    want = wanted(cluster=replace(CLUSTER, identity=account))
    assert guest.plan(want, good(want)) == ()
    assert guest.unsettled(want, good(want)) == ("renewal token: compared when its Secret is made",)
    assert guest.unsettled(wanted(), good(wanted())) == ()


def test_a_unit_that_runs_with_older_files_is_restarted() -> None:
    seen = good(wanted())
    units = {**seen.units, names.PROXY_UNIT: UnitSeen(active=True, enabled=True, stale=True)}
    (action,) = guest.plan(wanted(), replace(seen, units=units))
    assert action.drift[0].field == f"{names.PROXY_UNIT}: started with"


@pytest.mark.parametrize("path", list(wanted().files))
@pytest.mark.parametrize("kind", ["link", "folder", "special"])
def test_what_is_no_file_in_a_files_place_is_replaced(path: str, kind: str) -> None:
    seen = good(wanted())
    changed = {**seen.files, path: FileSeen("", "0777", "nobody", kind=kind)}
    assert fields(guest.plan(wanted(), replace(seen, files=changed))) == [f"{path}: kind"]


def test_a_file_of_another_group_is_written_again() -> None:
    seen = good(wanted())
    changed = {**seen.files, names.CONFIG: replace(seen.files[names.CONFIG], group="adm")}
    assert fields(guest.plan(wanted(), replace(seen, files=changed))) == [f"{names.CONFIG}: group"]


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        (FolderSeen("0777", "root", "root", "folder"), ["mode"]),
        (FolderSeen("0775", "root", "adm", "folder"), ["mode", "group"]),
        (FolderSeen("0755", "nobody", "root", "folder"), ["owner"]),
        (FolderSeen("0777", "root", "root", "link"), ["kind"]),
        (FolderSeen("0700", "root", "root", "folder"), []),
        (FolderSeen("0750", "root", "root", "folder"), []),
    ],
)
def test_a_folder_that_others_may_change_is_protected(folder: FolderSeen, found: list[str]) -> None:
    seen = replace(good(wanted()), folders={"/etc/vmproxy": folder})
    assert fields(guest.plan(wanted(), seen)) == [f"/etc/vmproxy: {name}" for name in found]


@pytest.mark.parametrize(
    ("change", "found"),
    [({"mode": "0644"}, ["mode"]), ({"owner": "nobody", "group": "adm"}, ["owner", "group"])],
)
def test_a_token_that_others_may_read_is_protected(change: dict[str, str], found: list[str]) -> None:
    seen = good(wanted())
    seen = replace(seen, files={**seen.files, names.TOKEN: replace(SECRET, **change)})
    assert fields(guest.plan(wanted(), seen)) == [f"{names.TOKEN}: {name}" for name in found]


def test_a_link_in_the_tokens_place_gives_way_to_a_new_token() -> None:
    seen = good(wanted())
    link = replace(SECRET, kind="link", mode="0777")
    seen = replace(seen, token=None, files={**seen.files, names.TOKEN: link})
    assert fields(guest.plan(wanted(), seen)) == ["token"]


@pytest.mark.parametrize("unit", names.OWN_UNITS)
@pytest.mark.parametrize("stale", [True, False])
def test_drop_ins_of_our_units_are_removed_and_nothing_is_restarted_twice(unit: str, stale: bool) -> None:
    seen = good(wanted())
    changed = replace(seen.units[unit], drop_ins=("/run/x.conf",), stale=stale and unit != names.TOKEN_UNIT)
    (step,) = guest.plan(wanted(), replace(seen, units={**seen.units, unit: changed}))
    assert step == RemoveDropIns(unit, ("/run/x.conf",))


def test_a_default_route_that_is_not_the_sites_is_set_again() -> None:
    seen = good(wanted())
    for routes in (seen.routes[1:], (route("0.0.0.0/0", "192.168.10.9"), *seen.routes[1:])):
        (step,) = guest.plan(wanted(), replace(seen, routes=routes))
        assert (step.target, step.drift[0].wanted) == ("guest route 0.0.0.0/0", "192.168.10.1")


def warned(seen: GuestSeen, want: GuestWanted) -> set[str]:
    assert guest.plan(want, seen) == ()
    return set(guest.warnings(want, seen)) - set(guest.warnings(want, good(want)))


def test_a_token_service_that_failed_is_a_warning() -> None:
    seen = good(wanted())
    failed = replace(seen, units={**seen.units, names.TOKEN_UNIT: replace(NEW_UNIT, failed=True)})
    (text,) = warned(failed, wanted())
    assert text.startswith("vmproxy-token.service failed")
    assert guest.trouble(failed) == (text,)


def test_firewall_rules_of_others_are_a_warning() -> None:
    seen = replace(good(wanted()), blockers=("ip filter FORWARD has the policy drop",))
    (text,) = warned(seen, wanted())
    assert text.endswith("may drop Service traffic: ip filter FORWARD has the policy drop")
    assert guest.trouble(seen) == (text,)


@pytest.mark.parametrize(
    "addresses", [["192.168.10.5/16"], ["192.168.10.5/24", "10.1.2.3/32"], ["192.168.10.6/24"]]
)
def test_another_address_of_the_interface_is_a_warning(addresses: list[str]) -> None:
    seen = replace(good(wanted()), addresses=tuple(map(ip_interface, addresses)))
    (text,) = warned(seen, wanted())
    assert text == (
        f"eth0 of the VM has {', '.join(addresses)}, where the site file has 192.168.10.5/24 alone"
    )


def test_a_name_server_that_the_vm_does_not_ask_is_a_warning() -> None:
    want = wanted(asking("192.168.10.2"))
    assert warned(replace(good(want), dns=("192.168.10.2", "192.168.10.3")), want) == set()
    (text,) = guest.warnings(want, replace(good(want), dns=("8.8.8.8",)))[-1:]
    assert text == ("the VM does not ask the name server 192.168.10.2 of the site file (it asks: 8.8.8.8)")


def test_what_the_seed_did_not_write_alone_is_not_compared() -> None:
    tools = Tools("6.12", "1.1.3")
    want = guest.wanted(VM, SITE.proxy, CLUSTER, HOST, program=PROGRAM, tools=tools, seeded={})
    assert not {names.AUTHORIZED_KEYS, names.SSHD} & want.files.keys()
    assert wanted().files[names.AUTHORIZED_KEYS].mode == "0600"


def test_pod_routes_go_by_the_nodes_that_are_on_the_network_and_the_others_are_warned_of() -> None:
    assert wanted().routes == (
        route("0.0.0.0/0", "192.168.10.1"),
        route("10.244.1.0/24", "192.168.10.20"),
        route("10.244.9.0/24", "192.168.10.2"),
        route("10.9.0.0/24", "192.168.10.9"),
    )
    assert any("far" in warning for warning in wanted().warnings)


SICK: dict[str, dict[str, Any]] = {
    "live: no": {"proxy": replace(LIVE, live=False)},
    "mode: iptables": {"proxy": replace(LIVE, mode="iptables")},
    "version: v1.20.0": {"proxy": replace(LIVE, version="v1.20.0")},
    "rules: never written": {"proxy": replace(LIVE, last_synced=0.0)},
    "rules: 100 s late": {"proxy": replace(LIVE, last_synced=NOW - 200, last_queued=NOW - 100)},
    "rule for default/kubernetes: absent": {"canary": CanarySeen(rule=False, status=0)},
    "default/kubernetes: no answer: timed out": {"canary": CanarySeen(rule=True, status=0, why="timed out")},
}


@pytest.mark.parametrize("what", SICK)
def test_a_kube_proxy_that_runs_and_does_not_work_is_restarted(what: str) -> None:
    seen = replace(good(wanted()), **SICK[what])
    (step,) = guest.plan(wanted(), seen)
    assert isinstance(step, RestartProxy)
    assert [f"{item.field}: {item.seen}" for item in step.drift] == [f"kube-proxy: {what}"]
    assert "mode" in what or "version" in what or not guest.works(seen)


@pytest.mark.parametrize("live", [True, False])
def test_a_kube_proxy_that_has_just_started_gets_its_time(live: bool) -> None:
    proxy = replace(LIVE, live=live, last_synced=0.0, age=12.0)
    young = replace(good(wanted()), proxy=proxy, canary=CanarySeen(rule=False, status=0))
    assert guest.plan(wanted(), young) == ()
    what = "rules: never written" if live else "live: no"
    assert guest.unsettled(wanted(), young) == (f"kube-proxy: started 12 s ago; {what}",)
    old = replace(young, proxy=replace(proxy, age=100.0))
    assert [step.verb for step in guest.plan(wanted(), old)] == ["restart"]
    assert guest.unsettled(wanted(), old) == ()


def test_a_kube_proxy_that_is_about_to_start_after_a_boot_gets_its_time() -> None:
    """Its unit has a start job, and counts as active."""
    proxy = replace(LIVE, live=False, last_synced=0.0, age=None)
    booted = replace(good(wanted()), proxy=proxy, canary=CanarySeen(rule=False, status=0))
    assert guest.plan(wanted(), booted) == ()
    assert guest.unsettled(wanted(), booted) == ("kube-proxy: about to start; live: no",)
    off = {**booted.units, names.PROXY_UNIT: UnitSeen(active=False, enabled=True, stale=False)}
    assert [step.verb for step in guest.plan(wanted(), replace(booted, units=off))] == ["start"]


def test_a_kube_proxy_that_has_written_its_rules_and_lost_them_does_not_just_start() -> None:
    lost = replace(good(wanted()), proxy=replace(LIVE, age=12.0), canary=CanarySeen(rule=False, status=0))
    assert [step.verb for step in guest.plan(wanted(), lost)] == ["restart"]


@pytest.mark.parametrize("what", SICK)
def test_a_kube_proxy_that_a_changed_file_restarts_is_not_restarted_twice(what: str) -> None:
    seen = replace(good(wanted()), **SICK[what])
    lost = replace(seen, files={path: file for path, file in seen.files.items() if path != names.CONFIG})
    assert not any(isinstance(step, RestartProxy) for step in guest.plan(wanted(), lost))


def test_a_canary_that_a_damaged_ca_hides_restarts_nothing() -> None:
    seen = replace(good(wanted()), canary=CanarySeen(rule=True, status=0, why="no certificate"))
    seen = replace(seen, files={**seen.files, names.CLUSTER_CA: FileSeen("0" * 64, "0644", "root")})
    assert [step.target for step in guest.plan(wanted(), seen)] == [names.CLUSTER_CA]


def test_a_canary_that_a_missing_route_hides_restarts_nothing() -> None:
    silent = CanarySeen(rule=True, status=0, why="timed out")
    seen = replace(good(wanted()), canary=silent, routes=wanted().routes[1:])
    assert [step.target for step in guest.plan(wanted(), seen)] == ["guest route 0.0.0.0/0"]


def test_a_change_that_was_queued_a_moment_ago_is_not_late() -> None:
    proxy = replace(LIVE, last_synced=NOW - 9, last_queued=NOW - 1)
    assert guest.plan(wanted(), replace(good(wanted()), proxy=proxy)) == ()


def test_a_token_that_the_api_server_refuses_is_renewed_whatever_it_claims() -> None:
    seen = replace(good(wanted()), canary=CanarySeen(rule=True, status=401))
    (step,) = guest.plan(wanted(), seen)
    assert step == RenewToken("refused by the API server")


def test_an_account_that_is_denied_is_a_warning() -> None:
    seen = replace(good(wanted()), canary=CanarySeen(rule=True, status=403))
    assert guest.plan(wanted(), seen) == ()
    assert any("does not let the VM's account" in word for word in guest.warnings(wanted(), seen))


def test_without_a_token_nothing_is_said_of_what_its_account_may() -> None:
    seen = replace(good(wanted()), token=None, canary=CanarySeen(rule=True, status=403))
    assert [step.verb for step in guest.plan(wanted(), seen)] == ["renew"]
    assert not any("account" in word for word in guest.warnings(wanted(), seen))


def test_a_token_that_lives_shorter_than_asked_for_is_a_warning() -> None:
    short = replace(TOKEN, issued=int(NOW) - 60, expires=int(NOW) - 60 + 6 * 3600)
    seen = replace(good(wanted()), token=short)
    assert guest.plan(wanted(), seen) == ()
    (warning,) = set(guest.warnings(wanted(), seen)) - set(guest.warnings(wanted(), good(wanted())))
    assert warning == (
        "the API server grants tokens of 6 h where proxy.tokenTTL asks for 24 h: "
        "set proxy.tokenTTL to what it grants"
    )


def guarded(**network: object) -> str:
    hosts = [{**SITE.model_dump(by_alias=True, mode="json")["hosts"][0]}]
    hosts[0]["network"] |= network
    content = wanted(Site.model_validate({"name": "a", "hosts": hosts})).guard.content
    assert content is not None
    return content.decode()


@pytest.mark.parametrize(
    ("clients", "elements"),
    [
        (None, "192.168.10.2/32"),
        (["192.168.10.77", "10.244.9.0/24"], "10.244.9.0/24, 192.168.10.2/32, 192.168.10.77/32"),
        ([], "192.168.10.2/32"),
    ],
)
def test_the_host_and_the_named_clients_use_the_gateway(clients: object, elements: str) -> None:
    rules = guarded(clients=clients)
    assert f"elements = {{ {elements} }}" in rules
    assert "counter name transit drop" in rules


def as_gateway(subnet: str = "10.244.9.0/24", **network: object) -> Site:
    """The VM is the gateway of its host's containers."""
    (host,) = SITE.model_dump(by_alias=True, mode="json", exclude_unset=True)["hosts"]
    host["network"] |= {"routes": [], **network}
    del host["qemu"]
    host |= {
        "hyperv": {"endpoint": "https://win-01:5986", "auth": "kerberos"},
        "switch": {"name": "External"},
        "containers": {"network": "cbr0", "subnet": subnet, "gateway": "vm"},
    }
    return Site.model_validate({"name": "a", "hosts": [host]})


def rules_of(site: Site) -> str:
    content = wanted(site).guard.content
    assert content is not None
    return content.decode()


def test_as_the_containers_gateway_the_vm_forwards_to_and_from_their_subnet_and_nothing_else() -> None:
    rules = rules_of(as_gateway())
    after = rules[rules.index("counter name unknown_service drop") : rules.index("counter name transit drop")]
    assert "ip saddr 10.244.9.0/24 accept" in after
    assert "ip daddr 10.244.9.0/24 accept" in after
    assert "10.244.9.0/24, 192.168.10.2/32" in rules, "its containers are clients"
    assert "masquerade" not in rules_of(SITE)
    assert "notrack" not in rules_of(SITE)


def test_only_what_does_not_know_the_containers_sees_them_with_the_vms_address() -> None:
    """The pod range holds the subnet here: nft refuses one inside another."""
    rules = rules_of(as_gateway())
    known = "10.96.0.0/16, 10.244.0.0/16, 192.168.10.0/24"
    assert f"ip saddr 10.244.9.0/24 ip daddr != {{ {known} }} masquerade" in rules


def test_what_is_addressed_to_the_vm_or_to_a_service_stays_tracked() -> None:
    rules = [line.strip() for line in rules_of(as_gateway()).splitlines()]
    start = rules.index("chain direct {")
    assert rules[start + 2 : start + 6] == [
        "ip daddr { 192.168.10.5, 10.244.9.2 } accept",
        "ip daddr { 10.96.0.0/16 } accept",
        "ip saddr 10.244.9.0/24 ip daddr { 10.244.0.0/16, 192.168.10.0/24 } notrack",
        "ip saddr { 10.244.0.0/16, 192.168.10.0/24 } ip daddr 10.244.9.0/24 notrack",
    ]


def test_an_open_gateway_translates_for_its_containers_too() -> None:
    rules = rules_of(as_gateway(clients="any"))
    assert "masquerade" in rules
    assert "transit drop" not in rules


def test_no_route_leads_to_the_host_for_a_subnet_that_the_vm_itself_is_on() -> None:
    """The host's own Node has that podCIDR, and forwards nothing."""
    want = wanted(as_gateway())
    assert ip_network("10.244.9.0/24") not in [item.prefix for item in want.routes]
    assert ip_network("10.244.1.0/24") in [item.prefix for item in want.routes]
    assert not any("win-01" in text for text in want.warnings)
    kept = wanted(as_gateway(podRoutes="endpoints")).files[names.POD_ROUTES_CONFIG].content
    assert kept is not None
    assert "10.244.9.0/24" in json.loads(kept)["aside"]


def test_the_vms_second_address_is_wanted_compared_and_no_warning() -> None:
    want = wanted(as_gateway())
    address = ip_interface("10.244.9.2/24")
    assert want.added == (address,)
    assert guest.plan(want, good(want)) == ()
    assert not any("eth0" in text for text in guest.warnings(want, good(want)))
    lost = replace(good(want), addresses=(want.address,), added=())
    assert guest.plan(want, lost) == (SetGuestAddress(address, wanted=True),)
    by_hand = replace(good(want), added=())
    assert guest.plan(want, by_hand) == ()


def test_an_address_that_vmproxy_added_goes_and_one_of_others_is_a_warning() -> None:
    address, other = ip_interface("10.244.9.2/24"), ip_interface("10.1.2.3/32")
    seen = replace(good(wanted()), addresses=(wanted().address, address), added=(address,))
    assert guest.plan(wanted(), seen) == (SetGuestAddress(address, wanted=False),)
    assert not any("eth0" in text for text in guest.warnings(wanted(), seen))
    both = replace(seen, addresses=(*seen.addresses, other))
    assert any("eth0 of the VM has" in text for text in guest.warnings(wanted(), both))
    alone = replace(seen, addresses=(address,))
    assert any("eth0 of the VM has 10.244.9.2/24" in text for text in guest.warnings(wanted(), alone))


def test_any_client_may_use_a_gateway_that_is_open() -> None:
    rules = guarded(clients="any")
    assert "clients" not in rules
    assert "transit drop" not in rules
    assert "counter name unknown_service drop" in rules


def test_a_host_without_an_address_on_the_vms_network_comes_with_any_of_its_own() -> None:
    assert firewall.clients(VM, [ip_interface("172.16.5.9/20")]) == (ip_network("172.16.5.9/32"),)
    assert firewall.clients(VM, []) == ()


def asking(server: str) -> Site:
    """The VM's name server."""
    host = SITE.hosts[0]
    network = host.network.model_copy(update={"dns": (ip_address(server),)})
    return SITE.model_copy(update={"hosts": (host.model_copy(update={"network": network}),)})


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("0.0.0.0/0", "wider than a /8"),
        ("0.0.0.0/1", "wider than a /8"),
        ("8.0.0.0/7", "wider than a /8"),
        ("192.168.10.0/24", "overlaps the VM's own network"),
        ("192.168.0.0/16", "overlaps the VM's own network"),
        ("192.168.10.128/25", "overlaps the VM's own network"),
        ("10.96.0.0/16", "overlaps a Service range"),
        ("10.96.3.0/24", "overlaps a Service range"),
        ("10.0.0.0/8", "overlaps a Service range"),
        ("127.0.0.0/8", "no range for pods"),
        ("224.0.0.0/8", "no range for pods"),
        ("169.254.0.0/16", "no range for pods"),
        ("172.20.0.0/24", "holds the API server or a name server"),
        ("172.21.0.0/24", "holds the API server or a name server"),
    ],
)
def test_a_podcidr_that_would_cut_the_vm_off_is_skipped_with_a_warning(cidr: str, why: str) -> None:
    cluster = replace(
        CLUSTER, server="https://172.20.0.9:6443", nodes=(*NODES, node("evil", "192.168.10.66", cidr))
    )
    want = wanted(asking("172.21.0.2"), cluster)
    assert cidr not in {
        str(route.prefix) for route in want.routes if route.via == ip_address("192.168.10.66")
    }
    (warning,) = [text for text in want.warnings if "evil" in text]
    assert why in warning


def test_a_route_of_the_site_file_into_a_discovered_service_range_is_warned_of() -> None:
    cluster = replace(CLUSTER, service_cidrs=(ip_network("10.9.0.0/16"),))
    assert any("10.9.0.0/24 overlaps a Service range" in text for text in wanted(cluster=cluster).warnings)
    assert not any("overlaps a Service range" in text for text in wanted().warnings)


def test_thousands_of_nodes_are_one_warning_for_each_reason() -> None:
    nodes = [node(f"far-{number:04}", "172.16.0.9", "10.244.7.0/24") for number in range(5000)]
    nodes += [node(f"bare-{number:04}", "192.168.10.30") for number in range(5000)]
    warnings = [
        text for text in wanted(cluster=replace(CLUSTER, nodes=tuple(nodes))).warnings if "pods" in text
    ]
    assert warnings == [
        "no route to the pods of 5000 Nodes (far-0000, far-0001, far-0002 and 4997 more): "
        "its address is not on the VM's network",
        "no route to the pods of 5000 Nodes (bare-0000, bare-0001, bare-0002 and 4997 more): "
        "it has no IPv4 podCIDR, as with some network plugins: use podRoutes: endpoints",
    ]


@pytest.mark.parametrize("name", ["a-new-node", "zz-new-node"])
def test_a_node_that_joins_changes_nothing_of_kube_proxy_but_its_own_route(name: str) -> None:
    joined = node(name, "192.168.10.77", "10.244.77.0/24")
    after = wanted(cluster=replace(CLUSTER, nodes=(joined, *NODES), pod_cidrs=()))
    before = wanted(cluster=replace(CLUSTER, pod_cidrs=()))
    changed = {path for path, file in after.files.items() if file != before.files[path]}
    assert changed == {names.ROUTES}


def config(cluster: ClusterSeen) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(wanted(cluster=cluster).files[names.CONFIG].content or b"")
    return loaded


def test_the_site_files_one_pod_range_is_kube_proxys_and_no_other() -> None:
    two = (ip_network("10.244.0.0/16"), ip_network("10.245.0.0/16"))
    assert config(CLUSTER)["clusterCIDR"] == "10.244.0.0/16"
    assert config(replace(CLUSTER, pod_cidrs=two))["clusterCIDR"] == ""
    assert config(replace(CLUSTER, pod_cidrs=()))["clusterCIDR"] == ""


def test_the_certificates_name_is_handed_to_kube_proxy_and_to_the_renewal() -> None:
    want = wanted(cluster=replace(CLUSTER, tls_server_name="kubernetes.default")).files
    kubeconfig = json.loads(want[names.KUBECONFIG].content or b"")
    assert kubeconfig["clusters"][0]["cluster"]["tls-server-name"] == "kubernetes.default"
    assert json.loads(want[names.CREDENTIAL].content or b"")["tlsServerName"] == "kubernetes.default"
    assert b"tls" not in (wanted().files[names.KUBECONFIG].content or b"")
    assert b"tls" not in (wanted().files[names.CREDENTIAL].content or b"")


def test_the_clusterip_is_checked_against_the_clusters_own_ca() -> None:
    other = replace(CLUSTER, cluster_ca="the cluster's own")
    assert wanted(cluster=other).files[names.CLUSTER_CA].content == b"the cluster's own"
    assert wanted(cluster=other).files[names.CA].content == CLUSTER.ca.encode()
    assert wanted().files[names.CLUSTER_CA].content == CLUSTER.ca.encode()


@pytest.mark.parametrize(
    ("chosen", "running", "api_server", "wanted"),
    [
        (None, "v1.35.2", "v1.36.3", "v1.35.2"),
        (None, "v1.36.3", "v1.35.9", "v1.35.9"),
        (None, "v1.31.0", "v1.36.3", "v1.36.3"),
        (None, None, "v1.36.3", "v1.36.3"),
        ("v1.36.1", "v1.35.2", "v1.36.3", "v1.36.1"),
    ],
)
def test_a_kube_proxy_that_fits_the_api_server_stays(
    chosen: str | None, running: str | None, api_server: str, wanted: str
) -> None:
    seen = replace(GOOD, proxy=replace(LIVE, version=running))
    proxy = Proxy.model_validate({"version": chosen})
    assert kubeproxy.version(proxy, replace(CLUSTER, version=api_server), seen) == wanted
    assert kubeproxy.version(proxy, replace(CLUSTER, version=api_server), None) == (chosen or api_server)


def test_a_name_of_the_api_server_without_a_name_server_is_warned_of() -> None:
    named = replace(CLUSTER, server="https://api.corp.example:6443")
    assert any("network.dns" in text for text in wanted(cluster=named).warnings)
    assert not any("network.dns" in text for text in wanted().warnings)
    assert not any("network.dns" in text for text in wanted(asking("192.168.10.2"), named).warnings)


def test_only_ipv4_ranges_reach_the_guard_table() -> None:
    content = wanted().files[names.GUARD].content
    assert content is not None
    assert b"10.96.0.0/16" in content
    assert b"fd01" not in content


def test_no_token_and_no_key_is_among_the_files() -> None:
    assert not {names.TOKEN, names.RENEWAL} & set(wanted().files)
    assert not any(b"PRIVATE KEY" in (file.content or b"") for file in wanted().files.values())


def test_what_the_plan_carries_for_the_guest_is_not_shown() -> None:
    empty = replace(good(wanted()), files={})
    shown = [(answers.step(step), repr(step)) for step in guest.plan(wanted(), empty)]
    assert "BEGIN CERTIFICATE" not in str(shown)


GOOD = good(wanted())
guests = st.builds(
    replace,
    st.just(GOOD),
    files=st.fixed_dictionaries(
        {},
        optional={
            path: st.sampled_from(
                [file, replace(file, sha256="0" * 64), replace(file, mode="0600"), replace(file, kind="link")]
            )
            for path, file in GOOD.files.items()
        },
    ),
    units=st.fixed_dictionaries(
        {},
        optional={
            unit: st.builds(
                UnitSeen,
                active=st.booleans(),
                enabled=st.booleans(),
                stale=st.booleans(),
                failed=st.booleans(),
                drop_ins=st.sampled_from([(), ("/run/x.conf",)]),
            )
            for unit in GOOD.units
        },
    ),
    folders=st.fixed_dictionaries(
        {},
        optional={
            path: st.builds(
                FolderSeen,
                st.sampled_from(["0755", "0777"]),
                st.sampled_from(["root", "nobody"]),
                st.just("root"),
                st.sampled_from(["folder", "link"]),
            )
            for path in GOOD.folders
        },
    ),
    sysctls=st.fixed_dictionaries(
        {}, optional={name: st.sampled_from([value, "9"]) for name, value in GOOD.sysctls.items()}
    ),
    guard=st.sampled_from([None, "other", GOOD.guard]),
    routes=st.lists(
        st.sampled_from([*GOOD.routes, route("10.9.0.0/24", "192.168.10.7"), route("10.8.0.0/24", "")]),
        unique_by=lambda route: route.prefix,
    ).map(tuple),
    added=st.sampled_from([(), (ip_interface("10.244.9.2/24"),)]),
    token=st.sampled_from([None, TOKEN, replace(TOKEN, uid="uid-0"), replace(TOKEN, expires=int(NOW))]),
)


@given(guests)
def test_after_the_plan_is_carried_out_the_next_plan_is_empty(seen: GuestSeen) -> None:
    assert guest.plan(wanted(), carried_out(guest.plan(wanted(), seen), seen)) == ()
