"""The questions to the agent and its answers, as data."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from tests.values import route
from vmproxy.guest import wire
from vmproxy.model import seen
from vmproxy.model.seen import (
    ApiServer,
    CanarySeen,
    Endpoint,
    FileSeen,
    FolderSeen,
    GuestQuery,
    GuestSeen,
    LeftOut,
    PodRoutesSeen,
    ProxySeen,
    Reach,
    TokenSeen,
    UnitSeen,
)
from vmproxy.model.steps import (
    Follow,
    GuestStep,
    LoadGuard,
    ManagedFile,
    PushFile,
    RemoveDropIns,
    RenewToken,
    SetAccess,
    SetGuestAddress,
    SetGuestRoute,
    SetSysctl,
    StartUnit,
)
from vmproxy.util import assets

PROXY, TIMER, SETUP = "vmproxy-kube-proxy.service", "vmproxy-token.timer", "vmproxy-setup.service"
API = ApiServer("api.example", 6443, "/k8s", "kubernetes.default", "/etc/vmproxy/ca.crt")
OBSERVE = wire.Observe(
    ("/etc/x",),
    (PROXY,),
    ("net.ipv4.ip_forward",),
    "/etc/vmproxy/token",
    "/etc/vmproxy/renewal-token",
    "setup's text",
    (ip_address("10.96.0.1"), 443),
    "/etc/vmproxy/cluster-ca.crt",
    API,
    ("/etc/vmproxy",),
    "eth0",
)
QUESTIONS: list[wire.Question[object]] = [
    OBSERVE,
    wire.Push("/usr/local/lib/vmproxy/kube-proxy", "f" * 64, "0755", "root", "v1.36.3"),
    wire.Apply(
        access=(wire.Access("/etc/vmproxy", "0755", "root"),),
        files=(wire.SmallFile("/etc/x", "0644", "root", "eA=="),),
        remove=("/run/x.conf",),
        sysctls={"a.b": "1"},
        setup=(),
        reload=(),
        enable=(),
        restart=(),
    ),
    wire.begin(wire.Apply((), (), (), {}, (), (), (), ())),
    wire.Finish(),
    wire.Rule(ip_address("10.96.0.1"), 443, "tcp"),
    wire.ReachEach((Endpoint(ip_address("10.244.1.10"), 8080, "udp"),)),
    wire.Converged((ip_address("10.96.0.1"), 443), "/etc/vmproxy/ca.crt", None, 30.0),
]
SEEN = {
    "files": {
        "/etc/x": {"sha256": "f" * 64, "mode": "0644", "owner": "root", "group": "adm", "kind": "file"}
    },
    "units": {
        PROXY: {"active": True, "enabled": False, "stale": True, "failed": False, "drop_ins": ["/run/x.conf"]}
    },
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "guard": "changed",
    "routes": [{"prefix": "10.9.0.0/24", "via": "192.168.10.9"}, {"prefix": "10.8.0.0/24", "via": ""}],
    "token": {"subject": "system:serviceaccount:vmproxy:a", "uid": "uid-1", "issued": 1, "expires": 2},
    "proxy": {
        "live": True,
        "mode": "nftables",
        "last_synced": 2.5,
        "last_queued": 1.5,
        "failures": 3,
        "denied": 4,
        "version": "v1.36.3",
        "age": 12.5,
    },
    "canary": {"rule": True, "status": 401, "why": ""},
    "renewal": 403,
    "drops": {"transit": 3},
    "repairs": {"routes": 1},
    "folders": {"/etc/vmproxy": {"mode": "0755", "owner": "root", "group": "root", "kind": "folder"}},
    "addresses": ["192.168.10.5/24", "10.244.9.2/24"],
    "added": ["10.244.9.2/24"],
    "dns": ["192.168.10.2"],
    "blockers": ["inet other forward drops some"],
    "pod_routes": {
        "mode": "endpoints",
        "listed": True,
        "routes": 2,
        "failed": 1,
        "api": "",
        "since": 1.7e9,
        "left": [{"why": "unknown", "node": "node-09", "address": "10.1.2.3", "count": 4}],
        "more": 0,
    },
    "kernel": "6.12.63+deb13-cloud-amd64",
    "writes_rules": True,
    "nft": "1.1.3",
    "now": 1_700_000_000.5,
}


@pytest.fixture(scope="module")
def agent() -> dict[str, Any]:
    """The agent's names, with the shapes that it declares for mypy alone."""
    text = assets.text("guest/agent.py")
    assert "\nTYPE_CHECKING = False" in text
    names: dict[str, Any] = {"__name__": "agent"}
    exec(compile(text.replace("\nTYPE_CHECKING = False", "\nTYPE_CHECKING = True"), "agent", "exec"), names)
    return names


def test_every_operation_of_the_agent_has_its_question(agent: dict[str, Any]) -> None:
    assert sorted(question.operation for question in QUESTIONS) == sorted(agent["OPERATIONS"])


@pytest.mark.parametrize(
    ("shape", "ours"),
    [
        ("ObserveRequest", wire.Observe),
        ("PushRequest", wire.Push),
        ("ApplyRequest", wire.Apply),
        ("SmallFile", wire.SmallFile),
        ("RuleRequest", wire.Rule),
        ("ReachRequest", wire.ReachEach),
        ("Endpoint", wire.Endpoint),
        ("ConvergedRequest", wire.Converged),
        ("ObserveAnswer", seen.GuestSeen),
        ("Access", wire.Access),
        ("FileSeen", seen.FileSeen),
        ("FolderSeen", seen.FolderSeen),
        ("UnitSeen", seen.UnitSeen),
        ("TokenSeen", seen.TokenSeen),
        ("ProxySeen", seen.ProxySeen),
        ("CanarySeen", seen.CanarySeen),
        ("LeftOut", seen.LeftOut),
        ("PodRoutesSeen", seen.PodRoutesSeen),
        ("Reached", wire.Reach),
        ("ConvergedAnswer", wire.Convergence),
    ],
)
def test_both_halves_know_the_same_fields(agent: dict[str, Any], shape: str, ours: Any) -> None:
    assert sorted(agent[shape].__annotations__) == sorted(field.name for field in fields(ours))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.operation)
def test_a_question_is_one_line_of_json_that_names_its_operation(question: wire.Question[object]) -> None:
    sent = wire.line(question)
    assert sent.count(b"\n") == 1
    assert sent.endswith(b"\n")
    assert json.loads(sent)["operation"] == question.operation
    assert set(json.loads(sent)) == {"operation"} | {field.name for field in fields(cast(Any, question))}


def test_what_a_question_holds_is_sent_flat_and_its_parts_as_objects() -> None:
    assert json.loads(wire.line(wire.ReachEach((Endpoint(ip_address("10.244.1.10"), 8080, "udp"),)))) == {
        "operation": "reach",
        "endpoints": [{"address": "10.244.1.10", "port": 8080, "protocol": "udp"}],
    }


def test_a_query_becomes_a_question_with_the_text_of_setup() -> None:
    canary = (ip_address("10.96.0.1"), 443)
    tokens = ("/etc/vmproxy/token", "/etc/vmproxy/renewal-token")
    asked = (("/etc/x",), (PROXY,), ("net.ipv4.ip_forward",), *tokens)
    query = GuestQuery(*asked, canary, API, ("/etc/vmproxy",))
    assert wire.observe(query, setup="setup's text") == OBSERVE


def test_what_was_seen_becomes_values_of_the_model() -> None:
    assert OBSERVE.parsed(SEEN) == GuestSeen(
        files={"/etc/x": FileSeen("f" * 64, "0644", "root", "adm")},
        units={PROXY: UnitSeen(active=True, enabled=False, stale=True, drop_ins=("/run/x.conf",))},
        sysctls={"net.ipv4.ip_forward": "1"},
        guard="changed",
        routes=(route("10.9.0.0/24", "192.168.10.9"), route("10.8.0.0/24", "")),
        token=TokenSeen("system:serviceaccount:vmproxy:a", "uid-1", 1, 2),
        proxy=ProxySeen(
            live=True,
            mode="nftables",
            last_synced=2.5,
            last_queued=1.5,
            failures=3,
            denied=4,
            version="v1.36.3",
            age=12.5,
        ),
        kernel="6.12.63+deb13-cloud-amd64",
        writes_rules=True,
        nft="1.1.3",
        now=1_700_000_000.5,
        canary=CanarySeen(rule=True, status=401),
        renewal=403,
        drops={"transit": 3},
        repairs={"routes": 1},
        folders={"/etc/vmproxy": FolderSeen("0755", "root", "root", "folder")},
        addresses=(ip_interface("192.168.10.5/24"), ip_interface("10.244.9.2/24")),
        added=(ip_interface("10.244.9.2/24"),),
        dns=("192.168.10.2",),
        blockers=("inet other forward drops some",),
        pod_routes=PodRoutesSeen(
            mode="endpoints",
            listed=True,
            routes=2,
            failed=1,
            api="",
            since=1.7e9,
            left=(LeftOut("unknown", "node-09", ip_address("10.1.2.3"), 4),),
        ),
    )


def test_a_guest_without_token_guard_and_nft_has_none_of_them() -> None:
    bare = OBSERVE.parsed({**SEEN, "token": None, "guard": None, "nft": None})
    assert (bare.token, bare.guard, bare.nft) == (None, None, None)


def test_an_answer_that_lacks_a_part_is_no_guest_without_it() -> None:
    """Could not look is not the same as not there."""
    for name in SEEN:
        with pytest.raises(KeyError, match=name):
            OBSERVE.parsed({key: value for key, value in SEEN.items() if key != name})


@pytest.mark.parametrize("there", [True, False])
def test_a_rule_is_there_or_not(there: bool) -> None:
    assert wire.Rule(ip_address("10.96.0.1"), 443, "tcp").parsed({"there": there}) is there


def test_reaches_and_convergence_are_read_field_by_field() -> None:
    lost = {"why": "Connection refused", "silent": False, "refused": True, "via": "192.168.10.20"}
    reached = {"why": None, "silent": False, "refused": False, "via": None}
    assert wire.ReachEach(()).parsed({"endpoints": [lost, reached]}) == [
        Reach("Connection refused", silent=False, refused=True, via=ip_address("192.168.10.20")),
        Reach(None, silent=False, refused=False, via=None),
    ]
    converged = wire.Converged((ip_address("10.96.0.1"), 443), "", None, 0)
    assert converged.parsed({"why": "it is not live", "failures": 2}) == wire.Convergence("it is not live", 2)


NOTHING = Follow()


def file(path: str, content: bytes = b"x", *, follow: Follow = NOTHING, mode: str = "0644") -> PushFile:
    managed = ManagedFile("f" * 64, mode, content=content, follow=follow)
    return PushFile(path, managed, None)


def program(*, follow: Follow = NOTHING) -> PushFile:
    path = "/usr/local/lib/vmproxy/kube-proxy"
    managed = ManagedFile(
        "f" * 64, "0755", source=Path("/cache/kube-proxy"), version="v1.36.3", follow=follow
    )
    return PushFile(path, managed, None)


def changes(*actions: GuestStep) -> wire.Apply:
    return wire.changes(actions, secrets={})


def test_no_change_asks_for_nothing() -> None:
    assert changes() == wire.Apply((), (), (), {}, (), (), (), ())


def test_drop_ins_are_removed_and_the_units_that_run_read_again_and_restarted() -> None:
    path, other = "/run/systemd/system/x.d/a.conf", "/etc/systemd/system/y.d/b.conf"
    found = changes(RemoveDropIns(PROXY, (path, other)), RemoveDropIns("vmproxy-token.service", (other,)))
    assert found.remove == (other, path)
    assert (found.reload, found.restart) == ((PROXY, "vmproxy-token.service"), (PROXY,))


def test_access_is_given_to_root() -> None:
    folder = FolderSeen("0777", "nobody", "root", "folder")
    assert changes(SetAccess("/etc/vmproxy", "0755", folder)).access == (
        wire.Access("/etc/vmproxy", "0755", "root"),
    )


def test_small_files_travel_in_the_request_and_large_ones_do_not() -> None:
    first, second = file("/etc/x", b"\x00", mode="0600"), file("/etc/empty", b"")
    assert changes(first, program(), second).files == (
        wire.SmallFile("/etc/x", "0600", "root", base64.b64encode(b"\x00").decode()),
        wire.SmallFile("/etc/empty", "0644", "root", ""),
    )


def test_what_follows_from_a_large_file_is_asked_for_too() -> None:
    assert changes(program(follow=Follow(restart=(PROXY,)))).restart == (PROXY,)


def test_a_unit_restarts_once_however_many_changes_ask_for_it() -> None:
    restart = Follow(restart=(PROXY,))
    actions = [
        file("/etc/a", follow=restart),
        StartUnit(TIMER, None, restarted=False),
        program(follow=restart),
        StartUnit(PROXY, None, restarted=False),
    ]
    assert changes(*actions).restart == (PROXY, TIMER)


def test_a_unit_that_is_started_is_enabled_and_read_again() -> None:
    asked = changes(StartUnit(TIMER, None, restarted=False), StartUnit(PROXY, None, restarted=False))
    assert (asked.enable, asked.reload, asked.restart) == ((TIMER, PROXY), (PROXY, TIMER), (PROXY, TIMER))


def test_a_unit_whose_file_is_pushed_is_read_again_by_its_name() -> None:
    asked = changes(
        file(f"/etc/systemd/system/{SETUP}", follow=Follow(reload=True)),
        file(f"/etc/systemd/system/{PROXY}", follow=Follow(reload=True, restart=(PROXY,))),
    )
    assert (asked.enable, asked.reload, asked.restart) == ((), (PROXY, SETUP), (PROXY,))


def test_setup_does_each_part_once() -> None:
    asked = changes(
        SetGuestRoute(ip_network("10.9.0.0/24"), None, None),
        file("/etc/vmproxy/guard.nft", follow=Follow(setup=("guard",))),
        LoadGuard(missing=True),
        SetGuestRoute(ip_network("10.9.0.0/24"), None, None),
        SetGuestAddress(ip_interface("10.244.9.2/24"), wanted=True),
        SetGuestAddress(ip_interface("10.244.8.2/24"), wanted=False),
    )
    assert asked.setup == ("addresses", "guard", "routes")


def test_kernel_settings_are_sent_by_name() -> None:
    asked = changes(SetSysctl("a.b", "1", None), SetSysctl("a.c", "2", None))
    assert asked.sysctls == {"a.b": "1", "a.c": "2"}


def test_a_token_is_needed_when_it_is_renewed_or_its_credential_changes() -> None:
    assert wire.needs_token([RenewToken("expired")])
    assert wire.needs_token([file("/etc/vmproxy/credential.json", follow=Follow(renew=True))])
    assert not wire.needs_token([file("/etc/x"), program(), StartUnit(PROXY, None, restarted=False)])


def test_a_new_token_is_one_more_file_that_only_root_reads_and_no_log_shows() -> None:
    asked = wire.changes([file("/etc/x")], secrets={"/etc/vmproxy/token": "secret"})
    assert asked.files[1:] == (
        wire.SmallFile("/etc/vmproxy/token", "0600", "root", base64.b64encode(b"secret").decode()),
    )
    assert asked.files[1].content not in repr(asked)
