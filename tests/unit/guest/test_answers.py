"""A guest that is broken, or another's: whatever it answers is one error that names the VM."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.memory import Product, made
from tests.unit.guest.machine import Machine
from tests.unit.guest.test_connection import Says, answers, guest, minted, silent
from vmproxy.engine.scope import Scope
from vmproxy.errors import RemoteFailed, Unreachable, VmproxyError
from vmproxy.guest import wire
from vmproxy.guest.connection import Guest
from vmproxy.guest.wire import Converged, Question, ReachEach, Rule
from vmproxy.model.net import Address
from vmproxy.model.seen import Endpoint, GuestQuery, GuestSeen
from vmproxy.resources import guest as inside
from vmproxy.transport import ssh
from vmproxy.transport.ssh import Ssh, connect
from vmproxy.util.events import Reporter

__all__ = ["guest", "minted"]

QUERY = GuestQuery((), (), (), "/t", "/r")
GOOD: dict[str, Any] = {
    "files": {"/etc/x": {"sha256": "f" * 64, "mode": "0644", "owner": "root"}},
    "units": {"a.service": {"active": True, "enabled": True, "stale": False}},
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "guard": "a" * 64,
    "routes": [{"prefix": "10.1.0.0/16", "via": "192.168.10.9"}, {"prefix": "10.2.0.0/16", "via": ""}],
    "token": {"subject": "s", "uid": "u", "issued": 1, "expires": 2},
    "proxy": {
        "live": True,
        "mode": "nftables",
        "last_synced": 1.5,
        "last_queued": 1.0,
        "failures": 0,
        "denied": 0,
        "version": "v1.36.3",
        "age": 12.5,
    },
    "canary": {"rule": True, "status": 200, "why": ""},
    "renewal": 200,
    "drops": {"transit": 3},
    "repairs": {"routes": 1},
    "folders": {"/etc/vmproxy": {"mode": "0777", "owner": "root", "group": "root", "kind": "folder"}},
    "addresses": ["192.168.10.5/24", "10.244.9.2/24"],
    "added": ["10.244.9.2/24"],
    "dns": ["192.168.10.2"],
    "blockers": ["inet other forward drops some"],
    "kernel": "6.12.0",
    "writes_rules": True,
    "nft": "1.0.9",
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
    "now": 1.8e9,
}
JUNK = [None, "", "junk", -1, 1e300, True, [], {}, [[]], {"a": 1}, 10**30, "\x1b]0;x\x07", float("nan")]
observe = wire.observe(QUERY, setup="")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def spoilt(path: tuple[Any, ...], junk: Any) -> Any:
    answer = copy.deepcopy(GOOD)
    if not path:
        return junk
    at = answer
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = junk
    return answer


def line(answer: Any) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def test_a_good_answer_is_read() -> None:
    seen = wire.answer(observe, line(GOOD))
    assert isinstance(seen, GuestSeen)
    assert [str(route) for route in seen.routes] == [
        "10.1.0.0/16 via 192.168.10.9",
        "10.2.0.0/16 via its own interface",
    ]
    assert asdict(seen)["proxy"] == GOOD["proxy"]


@pytest.mark.parametrize("path", list(places(GOOD)), ids=str)
def test_a_value_of_another_kind_is_an_error_or_one_that_a_plan_can_be_made_of(path: tuple[Any, ...]) -> None:
    world = made()
    product = Product(world)
    with Scope(product.site(), product.topology.members[0], Reporter(lambda *_: None)) as scope:
        looked = scope.look()
        for junk in JUNK:
            try:
                seen = wire.answer(observe, line(spoilt(path, junk)))
                inside.plan(scope.wanted_guest(replace(looked, guest=seen)), seen)
            except (ValueError, VmproxyError):
                continue


@pytest.mark.parametrize(
    "path", [path for path in places(GOOD) if path and isinstance(path[-1], str)], ids=str
)
def test_a_key_that_is_missing_is_an_error_or_has_a_default(path: tuple[Any, ...]) -> None:
    answer = copy.deepcopy(GOOD)
    at = answer
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    if path[-1] in {"version", "age"}:
        assert getattr(wire.answer(observe, line(answer)).proxy, path[-1]) is None
        return
    listed = (
        path[:1] in {("files",), ("units",), ("sysctls",), ("drops",), ("repairs",), ("folders",)}
        and len(path) == 2
    )
    optional = path[-1] in {"group", "kind", "failed", "drop_ins"} and path[0] in {"files", "units"}
    if listed or optional or path in {("canary", "why"), ("pod_routes", "left"), ("pod_routes", "more")}:
        assert wire.answer(observe, line(answer))
        return
    with pytest.raises(ValueError, match=str(path[-1])):
        wire.answer(observe, line(answer))


WRONG: list[bytes] = [
    b"hello\n",
    b"\n",
    b"\xff\xfe\n",
    b"null\n",
    b"[]\n",
    b"5\n",
    b"{}\n",
    b"[" * 100_000 + b"\n",
    b'{"a":' * 100_000 + b"\n",
    b'{"there": "' + b"9" * 100 + b'"}\n',
    b'{"there": ' + b"9" * 10_000 + b"}\n",
    b'{"there": NaN, "endpoints": NaN, "why": Infinity, "failures": 1e999}\n',
    b'{"endpoints": [null], "why": null, "failures": [], "there": {}}\n',
    b'{"endpoints": 5, "why": "", "failures": "many", "there": []}\n',
]
QUESTIONS: list[Question[object]] = [
    observe,
    Rule(cast(Address, "10.96.0.1"), 443, "tcp"),
    ReachEach((Endpoint(cast(Address, "10.1.0.1"), 80, "tcp"),)),
    Converged((cast(Address, "10.96.0.1"), 443), "/ca", None, 1.0),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.operation)
@pytest.mark.parametrize("said", WRONG, ids=lambda said: ascii(said[:20]))
def test_what_is_no_answer_is_a_value_error_with_a_reason(question: Question[object], said: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wire.answer(question, said)


def test_a_line_before_the_answer_is_one_error_that_names_the_vm(machine: Machine, guest: Guest) -> None:
    answers(machine, "Welcome to Debian", json.dumps(GOOD))
    with pytest.raises(
        RemoteFailed, match=r"cannot understand the answer of VM a: .*Welcome to Debian"
    ) as caught:
        guest.observe(QUERY)
    assert ".bashrc" in (caught.value.hint or "")


def test_fewer_answers_than_questions_are_an_error(machine: Machine, guest: Guest) -> None:
    answers(machine, '{"endpoints": []}')
    with pytest.raises(RemoteFailed, match="VM a: it has 0 endpoints of 1"):
        guest.reach([Endpoint(cast(Address, "10.1.0.1"), 80, "tcp")])


@pytest.mark.parametrize(
    "ask",
    [lambda guest: guest.observe(QUERY), lambda guest: guest.wait_converged(("10.96.0.1", 443), 1, silent)],
)
def test_every_question_names_the_vm(machine: Machine, guest: Guest, ask: Callable[[Guest], object]) -> None:
    answers(machine, "[]")
    with pytest.raises(RemoteFailed, match="VM a"):
        ask(guest)


@pytest.mark.parametrize(
    "words",
    [
        "{",
        "{}",
        '{"v1": []}',
        '{"v1": {"errors": 5}}',
        "{" * 100_000,
        '{"v1": {"errors": null}}',
    ],
)
def test_damaged_results_of_cloud_init_are_one_error(words: str) -> None:
    with pytest.raises(RemoteFailed, match="VM a"):
        Guest(cast(Ssh, Says(words)), name="a", mint=lambda: "", renewal=lambda: "").cloud_init()


def test_output_that_never_ends_is_an_error(
    machine: Machine, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_MOST", 1 << 20)
    for program in ("python3", "journalctl"):
        machine.program(program, "exec /bin/cat /dev/zero")
    with pytest.raises(Unreachable, match="VM a: it does not stop sending"):
        guest.logs("proxy", 5)
    with pytest.raises(Unreachable, match="VM a: it does not stop sending"):
        guest.observe(QUERY)


def test_output_that_drips_is_an_error(
    machine: Machine, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_SILENCE", 0.2)
    machine.program("journalctl", "while :; do echo drip; /bin/sleep 0.05; done")
    with pytest.raises(Unreachable, match="VM a: it does not stop sending"):
        guest.logs("proxy", 5)


@pytest.mark.parametrize(
    "key", ["", "ssh-ed25519", "ssh-ed25519 !!", "ssh-ed25519 AAAA", "none AAAA", "ssh-rsa ÄÖ", "a\nb c"]
)
def test_a_host_key_that_was_edited_is_a_conflict(key: str) -> None:
    here, there = socket.socketpair()
    with there, pytest.raises(VmproxyError, match="VM a"):
        connect(lambda: here, host_key=key, identity=Path("/k"), key="", what="VM a")
