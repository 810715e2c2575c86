"""The conversation with a guest: the real agent at the far end, started as it is over SSH."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from tests.unit.guest.local import connect
from tests.unit.guest.machine import OWNER, PYTHON, Machine
from vmproxy.errors import NotReady, ToolFailed
from vmproxy.guest.connection import CloudInit, Guest
from vmproxy.model.names import RENEWAL, TOKEN
from vmproxy.model.seen import Endpoint, FileSeen, GuestQuery, Reach
from vmproxy.model.steps import Follow, GiveRenewal, ManagedFile, PushFile, RenewToken, StartUnit
from vmproxy.transport.ssh import Ssh

PROGRAM = b"#!/bin/sh\necho Kubernetes v1.36.3\n"
PROXY = "vmproxy-kube-proxy.service"
CANARY = ("10.96.0.1", 443)


@pytest.fixture
def minted() -> list[str]:
    return []


@pytest.fixture
def guest(machine: Machine, minted: list[str]) -> Iterator[Guest]:
    def mint() -> str:
        minted.append(f"token {len(minted) + 1}")
        return minted[-1]

    with connect(machine) as ssh:
        yield Guest(ssh, name="a", mint=mint, renewal=lambda: "the other")


def silent(message: str) -> None:
    """No report."""


def file(path: Path, content: bytes) -> PushFile:
    managed = ManagedFile("f" * 64, owner=OWNER, content=content)
    return PushFile(str(path), managed, None)


@pytest.fixture
def program(machine: Machine, tmp_path: Path) -> Callable[[bytes], PushFile]:
    """The push of a large file with that content."""

    def pushed(content: bytes) -> PushFile:
        source, path = tmp_path / "kube-proxy", machine.path("/usr/local/lib/vmproxy/kube-proxy")
        source.write_bytes(content)
        managed = ManagedFile(
            hashlib.sha256(content).hexdigest(),
            "0755",
            owner=OWNER,
            source=source,
            version="v1.36.3",
            follow=Follow(restart=(PROXY,)),
        )
        return PushFile(str(path), managed, None)

    return pushed


def test_the_agent_is_started_from_its_text_and_asked_again_and_again(machine: Machine, guest: Guest) -> None:
    path = str(machine.write("/etc/x", "x"))
    for _ in range(2):
        seen = guest.observe(GuestQuery((path,), (), (), token="/none", renewal="/none"))
        assert seen.files == {path: FileSeen(hashlib.sha256(b"x").hexdigest(), "0644", OWNER)}
    assert seen.token is None


def test_one_agent_answers_all_of_a_run(machine: Machine, guest: Guest) -> None:
    machine.program("python3", f'echo "agent" >> {machine.root}/calls; exec {PYTHON} "$@"')
    assert guest.rule_present(ip_address("10.96.0.1"), 443, "tcp") is False
    assert guest.reach([]) == []
    assert machine.calls() == ["agent"]


def test_an_endpoint_is_reached_from_the_guest(guest: Guest) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        assert guest.reach([Endpoint(ip_address("127.0.0.1"), port, "tcp")]) == [
            Reach(None, silent=False, refused=False, via=None)
        ]


def test_all_else_is_done_beside_a_large_file_and_its_unit_restarts_last(
    machine: Machine, guest: Guest, program: Callable[[bytes], PushFile], minted: list[str]
) -> None:
    machine.agents_stay_inside()
    machine.records("systemctl")
    small, large = file(machine.path("/etc/x"), b"x"), program(PROGRAM)
    own, other = StartUnit(PROXY, None, restarted=False), StartUnit("a.timer", None, restarted=False)
    said: list[str] = []
    done = list(guest.do([small, large, own, other], said.append))
    assert done == [large, small, other, own]
    assert said == ["3 changes in the guest", f"pushing {large.target}"]
    assert Path(large.target).read_bytes() == PROGRAM
    assert machine.path("/etc/x").read_bytes() == b"x"
    assert [call for call in machine.calls() if "restart" in call] == [
        "systemctl restart a.timer",
        f"systemctl restart {PROXY}",
    ]
    assert machine.calls()[-1] == f"systemctl restart {PROXY}"
    assert minted == []


def test_what_is_begun_beside_a_large_file_is_done_also_when_that_fails(
    machine: Machine, guest: Guest, program: Callable[[bytes], PushFile]
) -> None:
    machine.agents_stay_inside()
    machine.records("systemctl")
    small, large = file(machine.path("/etc/x"), b"x"), program(PROGRAM.replace(b"36.3", b"36.2"))
    steps = guest.do([small, large], silent)
    with pytest.raises(ToolFailed) as caught:
        next(steps)
    assert caught.value.step == large
    assert machine.path("/etc/x").read_bytes() == b"x"
    assert not Path(large.target).exists()
    assert not any("restart" in call for call in machine.calls())


def test_what_fails_beside_a_large_file_is_the_error_of_its_step(
    machine: Machine, guest: Guest, program: Callable[[bytes], PushFile]
) -> None:
    machine.agents_stay_inside()
    machine.records("systemctl")
    in_the_way = machine.path("/etc/x")
    in_the_way.write_text("not a folder")
    small, large = file(in_the_way / "y", b"x"), program(PROGRAM)
    steps = guest.do([small, large], silent)
    assert next(steps) == large
    with pytest.raises(ToolFailed, match=r"Not a directory|File exists") as caught:
        next(steps)
    assert caught.value.step == small
    assert not any("restart" in call for call in machine.calls())


def test_a_large_file_alone_still_restarts_its_unit(
    machine: Machine, guest: Guest, program: Callable[[bytes], PushFile]
) -> None:
    machine.agents_stay_inside()
    machine.records("systemctl")
    said: list[str] = []
    large = program(PROGRAM)
    list(guest.do([large], said.append))
    assert machine.calls() == [f"systemctl restart {PROXY}"]
    assert said == [f"pushing {large.target}"]


def test_the_push_of_a_large_file_is_reported_as_it_goes(
    machine: Machine, guest: Guest, program: Callable[[bytes], PushFile]
) -> None:
    machine.agents_stay_inside()
    machine.records("systemctl")
    said: list[str] = []
    list(guest.do([program(PROGRAM + b"exit\n" + os.urandom(17 << 20))], said.append))
    assert said[1:] == ["8 of 17 MiB sent", "16 of 17 MiB sent"]


def test_a_program_of_another_version_is_refused_with_a_hint_and_the_guest_can_be_asked_again(
    machine: Machine, guest: Guest, program: Callable[[bytes], PushFile]
) -> None:
    machine.agents_stay_inside()
    action = program(PROGRAM.replace(b"36.3", b"36.2"))
    with pytest.raises(ToolFailed, match=r"not v1\.36\.3, but: Kubernetes v1\.36\.2") as caught:
        list(guest.do([action], silent))
    assert caught.value.hint == "is proxy.binary the kube-proxy of proxy.version?"
    assert not Path(action.target).exists()
    assert guest.reach([]) == []


def test_an_agent_that_cannot_run_is_an_error_with_its_last_line(machine: Machine, guest: Guest) -> None:
    machine.program("python3", "echo a warning >&2; echo sh: python3: not found >&2; exit 127")
    with pytest.raises(ToolFailed, match="cannot run a command in VM a: sh: python3: not found") as caught:
        guest.reach([])
    assert caught.value.details == ("a warning",)


def answers(machine: Machine, *lines: str) -> None:
    """An agent that gives these answers whatever it is asked, and writes down what that is."""
    script = f"""#!{PYTHON} -IS
import sys
stdin = sys.stdin.buffer
stdin.read(int(stdin.readline()))
for line in {lines!r}:
    with open({str(machine.root / "calls")!r}, "ab") as calls:
        calls.write(stdin.readline())
    print(line, flush=True)
"""
    machine.file_in_bin("python3", script)


def test_kube_proxy_has_converged_when_the_agent_says_so(machine: Machine, guest: Guest) -> None:
    answers(machine, '{"why": "it is not live", "failures": 0}', '{"why": "", "failures": 0}')
    said: list[str] = []
    guest.wait_converged(CANARY, 60, said.append)
    assert said == ["kube-proxy has converged"]
    assert len(machine.calls()) == 2


def test_each_look_counts_failures_from_the_first_one_on(machine: Machine, guest: Guest) -> None:
    answers(machine, '{"why": "it is not live", "failures": 7}', '{"why": "", "failures": 7}')
    guest.wait_converged(CANARY, 60, silent)
    assert [json.loads(call)["failures"] for call in machine.calls()] == [None, 7]


def test_a_new_token_is_minted_once_and_sent_with_the_other_changes(
    machine: Machine, guest: Guest, minted: list[str]
) -> None:
    answers(machine, "{}")
    renew = RenewToken("expired")
    list(guest.do([file(Path("/etc/x"), b"x"), renew, renew], silent))
    (question,) = map(json.loads, machine.calls())
    assert [item["path"] for item in question["files"]] == ["/etc/x", TOKEN]
    assert base64.b64decode(question["files"][1]["content"]) == b"token 1"
    assert minted == ["token 1"]


def test_the_token_that_renews_is_got_only_when_it_is_given_and_nobody_reads_it_in_a_step(
    machine: Machine, guest: Guest, minted: list[str]
) -> None:
    answers(machine, "{}")
    steps = [GiveRenewal("absent"), file(Path("/etc/x"), b"x")]
    list(guest.do(steps, silent))
    (question,) = map(json.loads, machine.calls())
    assert [item["path"] for item in question["files"]] == ["/etc/x", RENEWAL]
    given = question["files"][1]
    assert (base64.b64decode(given["content"]), given["mode"], given["owner"]) == (
        b"the other",
        "0600",
        "root",
    )
    assert minted == []
    assert "the other" not in repr(steps)


def test_without_convergence_the_error_names_the_vm_and_shows_kube_proxys_log(
    machine: Machine, guest: Guest
) -> None:
    answers(machine, '{"why": "it fails to write its rules", "failures": 1}')
    machine.records("journalctl", says="first line\nlast line\n")
    with pytest.raises(
        NotReady, match=r"cannot route through VM a: .*: it fails to write its rules"
    ) as caught:
        guest.wait_converged(CANARY, 0, silent)
    assert caught.value.details == ("first line", "last line")
    assert machine.calls()[1:] == [f"journalctl -u {PROXY} --no-pager -o short-iso -n 12"]


class Says:
    """A guest in which every command says the same."""

    def __init__(self, words: str) -> None:
        self._words = words

    def run(self, command: str) -> bytes:
        return self._words.encode()


def cloud_init(words: str) -> CloudInit:
    return Guest(cast(Ssh, Says(words)), name="a", mint=lambda: "", renewal=lambda: "").cloud_init()


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("", CloudInit(ended=False)),
        ('{"v1": {"datasource": "DataSourceNoCloud", "errors": []}}', CloudInit(ended=True)),
        ('{"v1": {"errors": ["no disk", 5]}}', CloudInit(ended=True, errors=("no disk", "5"))),
        (
            "cloud-init-local.service loaded failed failed Initial cloud-init job\n",
            CloudInit(ended=True, errors=("cloud-init-local.service failed",)),
        ),
    ],
    ids=["at work", "ended", "ended with errors", "a stage has failed"],
)
def test_cloud_inits_state_is_read_from_what_it_leaves(words: str, seen: CloudInit) -> None:
    assert cloud_init(words) == seen


def test_a_guest_without_cloud_init_is_an_error() -> None:
    with pytest.raises(ToolFailed, match="cannot use VM a: its cloud-init is disabled"):
        cloud_init("disabled\n")
