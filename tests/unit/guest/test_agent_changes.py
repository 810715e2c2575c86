"""What the agent changes in the guest."""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.guest.machine import OWNER, Machine

PROXY, SETUP, TIMER = "vmproxy-kube-proxy.service", "vmproxy-setup.service", "vmproxy-token.timer"
GUARD = "vmproxy-guard.service"
PROGRAM = b"#!/bin/sh\necho Kubernetes v1.36.3\n"
NOTHING: dict[str, Any] = {
    "access": [],
    "files": [],
    "remove": [],
    "sysctls": {},
    "setup": [],
    "reload": [],
    "enable": [],
    "restart": [],
}
READ = "LoadState=loaded\nNeedDaemonReload=no\n"
"""What systemd shows of a unit that it holds as its file says."""


def push(path: Path, *, version: str | None = "v1.36.3") -> dict[str, Any]:
    return {
        "operation": "push",
        "path": str(path),
        "sha256": "f" * 64,
        "mode": "0755",
        "owner": OWNER,
        "version": version,
    }


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


@pytest.fixture
def program(machine: Machine) -> Path:
    return machine.path("/usr/local/lib/vmproxy/kube-proxy")


def test_a_pushed_file_is_whole_and_has_its_mode(machine: Machine, program: Path) -> None:
    content = os.urandom(3 << 20)
    assert machine.agent(push(program, version=None), content=zlib.compress(content)) == [{}]
    assert program.read_bytes() == content
    assert program.stat().st_mode & 0o7777 == 0o755
    assert names(program) == ["kube-proxy"]


def test_a_push_makes_the_folder(machine: Machine) -> None:
    path = machine.root / "srv" / "deep" / "file"
    machine.agent(push(path, version=None), content=zlib.compress(b"x"))
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("sent", [0, 1, 100_000])
def test_a_push_that_is_cut_off_leaves_nothing(machine: Machine, program: Path, sent: int) -> None:
    packed = zlib.compress(os.urandom(200_000))
    reason = machine.refusal(push(program, version=None), content=packed[:sent])
    assert reason == f"{program}: the connection ended before its end"
    assert names(program) == []


def test_a_push_that_is_cut_off_leaves_what_was_there(machine: Machine, program: Path) -> None:
    program.write_bytes(b"older")
    machine.refusal(push(program, version=None), content=zlib.compress(PROGRAM)[:-1])
    assert program.read_bytes() == b"older"
    assert names(program) == ["kube-proxy"]


def test_a_push_that_arrives_damaged_leaves_nothing(machine: Machine, program: Path) -> None:
    packed = bytearray(zlib.compress(os.urandom(100_000)))
    packed[50_000] ^= 1
    assert "incorrect data check" in machine.refusal(push(program, version=None), content=bytes(packed))
    assert names(program) == []


def test_a_program_of_the_right_version_takes_its_place(machine: Machine, program: Path) -> None:
    program.write_bytes(b"older")
    assert machine.agent(push(program), content=zlib.compress(PROGRAM)) == [{}]
    assert program.read_bytes() == PROGRAM
    assert names(program) == ["kube-proxy"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PROGRAM.replace(b"36.3", b"36.2"), "Kubernetes v1.36.2"),
        (b"\x7fELF of another machine", "it does not run here"),
        (b"#!/bin/sh\necho Kubernetes v1.36.3; exit 1\n", "it does not run here"),
    ],
)
def test_another_program_is_refused_by_name_and_leaves_what_was_there(
    machine: Machine, program: Path, content: bytes, said: str
) -> None:
    program.write_bytes(b"older")
    reason = machine.refusal(push(program), content=zlib.compress(content))
    assert reason == f"{program}: not v1.36.3, but: {said}"
    assert program.read_bytes() == b"older"
    assert names(program) == ["kube-proxy"]


def test_a_file_in_the_place_of_the_folder_is_the_reason_that_is_given(machine: Machine) -> None:
    path = machine.write("/srv/file", "x") / "kube-proxy"
    assert machine.refusal(push(path)).endswith(f"File exists: '{path.parent}'")


def test_a_folder_in_the_place_of_the_file_is_the_reason_that_is_given(
    machine: Machine, program: Path
) -> None:
    program.mkdir()
    reason = machine.refusal(push(program), content=zlib.compress(PROGRAM))
    assert reason == f"{program}: Is a directory"
    assert names(program) == ["kube-proxy"]


def test_a_folder_in_the_place_of_the_draft_is_the_reason_that_is_given(
    machine: Machine, program: Path
) -> None:
    program.with_name("kube-proxy.part").mkdir()
    reason = machine.refusal(push(program), content=zlib.compress(PROGRAM))
    assert reason == f"{program}: Is a directory"


def test_a_pushed_file_is_not_hashed_again(machine: Machine, program: Path) -> None:
    observe = {
        "operation": "observe",
        "files": [str(program)],
        "units": [],
        "sysctls": [],
        "token": "",
        "renewal": "",
        "setup": "",
        "canary": None,
        "ca": "",
        "api": None,
        "folders": [],
        "interface": "eth0",
    }
    machine.write("/var/lib/vmproxy/hashes.json", '{"/other": [[1], "a"]}')
    machine.agent(push(program), content=zlib.compress(PROGRAM))
    assert machine.agent(observe)[0]["files"][str(program)]["sha256"] == "f" * 64
    assert "/other" in json.loads(machine.path("/var/lib/vmproxy/hashes.json").read_text())


def apply(**what: Any) -> dict[str, Any]:
    return {"operation": "apply", **NOTHING, **what}


def small(path: Path, content: bytes, mode: str = "0644") -> dict[str, str]:
    return {
        "path": str(path),
        "mode": mode,
        "owner": OWNER,
        "content": base64.b64encode(content).decode(),
    }


@pytest.fixture
def setup(machine: Machine) -> Path:
    """A setup.py that writes down how it was called."""
    script = f"import sys; open({str(machine.root / 'calls')!r}, 'a').write(f'setup {{sys.argv[1]}}\\n')"
    return machine.write("/usr/local/lib/vmproxy/setup.py", script)


def test_small_files_are_written_with_their_modes_one_after_the_other(machine: Machine) -> None:
    token, config = machine.path("/etc/vmproxy/token"), machine.path("/etc/vmproxy/kubeconfig")
    files = [small(token, b"first"), small(config, b"{}", "0755"), small(token, b"\x00last", "0600")]
    assert machine.agent(apply(files=files)) == [{}]
    assert (token.read_bytes(), token.stat().st_mode & 0o7777) == (b"\x00last", 0o600)
    assert (config.read_bytes(), config.stat().st_mode & 0o7777) == (b"{}", 0o755)
    assert names(token) == ["kubeconfig", "token"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_pushed_and_small_files_get_their_owner(machine: Machine, program: Path) -> None:
    token = machine.path("/etc/vmproxy/token")
    pushed = {**push(program, version=None), "owner": "nobody"}
    machine.agent(pushed, content=zlib.compress(b"x"))
    machine.agent(apply(files=[{**small(token, b"x"), "owner": "nobody"}]))
    assert (program.owner(), token.owner()) == ("nobody", "nobody")


def test_a_reader_of_a_small_file_never_sees_half_of_it(machine: Machine) -> None:
    token = machine.write("/etc/vmproxy/token", "older")
    with token.open() as reader:
        machine.agent(apply(files=[small(token, b"newer")]))
        assert reader.read() == "older"
    assert token.read_text() == "newer"


@pytest.mark.parametrize("place", ["file", "draft"])
def test_a_link_is_replaced_and_not_followed(machine: Machine, place: str) -> None:
    elsewhere = machine.write("/srv/elsewhere", "mine")
    path = machine.path("/etc/vmproxy/kubeconfig")
    path.with_name(path.name + (".part" if place == "draft" else "")).symlink_to(elsewhere)
    machine.agent(apply(files=[small(path, b"{}")]))
    assert (elsewhere.read_text(), path.read_text(), path.is_symlink()) == ("mine", "{}", False)


def test_a_pushed_file_replaces_a_link_and_what_is_in_the_place_of_its_draft(
    machine: Machine, program: Path
) -> None:
    elsewhere = machine.write("/srv/elsewhere", "mine")
    program.symlink_to(elsewhere)
    program.with_name("kube-proxy.part").symlink_to(elsewhere)
    machine.agent(push(program), content=zlib.compress(PROGRAM))
    assert (elsewhere.read_text(), program.read_bytes()) == ("mine", PROGRAM)
    assert names(program) == ["kube-proxy"]


def test_a_link_in_the_place_of_a_folder_of_ours_is_replaced(machine: Machine) -> None:
    elsewhere = machine.write("/srv/elsewhere/kubeconfig", "mine")
    folder = machine.path("/etc/vmproxy")
    folder.symlink_to(elsewhere.parent)
    entry = {"path": str(folder), "mode": "0755", "owner": OWNER}
    machine.agent(apply(access=[entry], files=[small(folder / "kubeconfig", b"{}")]))
    assert (elsewhere.read_text(), (folder / "kubeconfig").read_text()) == ("mine", "{}")
    assert not folder.is_symlink()


def test_folders_and_the_token_get_their_mode(machine: Machine) -> None:
    token = machine.write("/etc/vmproxy/token", "x")
    token.parent.chmod(0o777)
    entries = [(token.parent, "0755"), (token, "0600")]
    machine.agent(apply(access=[{"path": str(path), "mode": mode, "owner": OWNER} for path, mode in entries]))
    assert [oct(path.stat().st_mode & 0o777) for path, _ in entries] == ["0o755", "0o600"]
    assert token.read_text() == "x"


def test_drop_ins_go_with_their_folder_when_it_is_empty(machine: Machine) -> None:
    machine.records("systemctl", says=READ.replace("NeedDaemonReload=no", "NeedDaemonReload=yes"))
    one = machine.write("/run/systemd/system/vmproxy-kube-proxy.service.d/override.conf", "")
    other = machine.write("/etc/systemd/system/vmproxy-kube-proxy.service.d/override.conf", "")
    other.with_name("README").write_text("mine")
    machine.agent(apply(remove=[str(one), str(other), str(one)], reload=[PROXY], restart=[PROXY]))
    assert (one.parent.exists(), names(other)) == (False, ["README"])
    assert machine.calls()[-2:] == ["systemctl daemon-reload", f"systemctl restart {PROXY}"]


def test_a_link_to_a_folder_of_drop_ins_goes_and_what_is_in_that_stays(machine: Machine) -> None:
    theirs = machine.write("/srv/theirs/limits.conf", "x")
    link = machine.path("/etc/systemd/system/vmproxy-kube-proxy.service.d")
    link.symlink_to(theirs.parent)
    machine.records("systemctl", says=READ)
    machine.agent(apply(remove=[str(link)], reload=[PROXY]))
    assert (link.is_symlink(), theirs.exists()) == (False, True)


@pytest.mark.parametrize("kind", ["file", "special"])
def test_what_is_in_the_place_of_a_folder_of_ours_goes(machine: Machine, kind: str) -> None:
    folder = machine.path("/etc/vmproxy")
    folder.write_text("x") if kind == "file" else os.mkfifo(folder)
    machine.agent(apply(access=[{"path": str(folder), "mode": "0755", "owner": OWNER}]))
    assert folder.is_dir()


def test_kernel_settings_are_set_in_place(machine: Machine) -> None:
    setting = machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    with setting.open() as reader:
        machine.agent(apply(sysctls={"net.ipv4.ip_forward": "1"}))
        assert reader.read() == "1"


def test_a_kernel_setting_that_the_kernel_lacks_is_named(machine: Machine) -> None:
    reason = machine.refusal(apply(sysctls={"net.netfilter.nf_conntrack_tcp_be_liberal": "1"}))
    assert "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal" in reason


def test_nothing_is_called_for_files_alone(machine: Machine, setup: Path) -> None:
    machine.records("systemctl")
    machine.agent(apply(files=[small(machine.path("/etc/vmproxy/kubeconfig"), b"{}")]))
    assert machine.calls() == []


def test_setup_is_called_for_each_part_that_is_asked_for(machine: Machine, setup: Path) -> None:
    machine.records("systemctl")
    machine.agent(apply(setup=["guard", "routes"]))
    assert machine.calls() == ["setup guard", "setup routes"]


def test_setup_that_was_pushed_right_before_is_the_one_that_is_called(machine: Machine, setup: Path) -> None:
    script = setup.read_bytes().replace(b"'setup ", b"'newer setup ").replace(b"f'setup", b"f'newer setup")
    machine.agent(apply(files=[small(setup, script)], setup=["guard"]))
    assert machine.calls() == ["newer setup guard"]


def test_a_unit_that_does_a_part_of_setup_is_enough(machine: Machine, setup: Path) -> None:
    machine.records("systemctl")
    machine.agent(apply(setup=["guard", "routes"], restart=[GUARD, SETUP, PROXY]))
    assert machine.calls() == [f"systemctl restart {GUARD} {SETUP} {PROXY}"]


def test_kernel_settings_are_set_after_the_guard_table_is_loaded(machine: Machine, setup: Path) -> None:
    forward = machine.write("/proc/sys/net/ipv4/ip_forward", "0")
    machine.records("systemctl", then=f"read was < {forward}; echo forward $was >> {machine.root}/calls")
    machine.agent(apply(sysctls={"net.ipv4.ip_forward": "1"}, restart=[GUARD]))
    assert machine.calls() == [f"systemctl restart {GUARD}", "forward 0"]
    assert forward.read_text() == "1"


def test_units_are_enabled_without_a_reload_and_restarted_in_one_call(machine: Machine) -> None:
    machine.records("systemctl", says=READ)
    machine.agent(apply(enable=[TIMER], restart=[TIMER, PROXY], reload=[TIMER, PROXY]))
    assert machine.calls() == [
        f"systemctl --root=/ --quiet enable {TIMER}",
        f"systemctl show --property=LoadState,NeedDaemonReload {TIMER} {PROXY}",
        f"systemctl restart {TIMER} {PROXY}",
    ]


@pytest.mark.parametrize(
    ("shown", "reloads"),
    [
        (READ, False),
        (READ.replace("NeedDaemonReload=no", "NeedDaemonReload=yes"), True),
        (f"{READ}\n{READ.replace('=loaded', '=not-found')}", True),
        ("", True),
    ],
)
def test_systemd_reads_its_units_again_only_where_it_holds_an_older_one(
    machine: Machine, shown: str, reloads: bool
) -> None:
    machine.records("systemctl", says=shown)
    machine.agent(apply(reload=[PROXY]))
    assert ("systemctl daemon-reload" in machine.calls()) is reloads
    assert len(machine.calls()) == 1 + reloads


def test_a_unit_that_does_not_start_is_the_reason_in_systemds_words(machine: Machine) -> None:
    machine.program("systemctl", "echo Job for x.service failed. >&2; exit 1")
    assert machine.refusal(apply(restart=["x.service"])) == (
        "systemctl restart x.service: Job for x.service failed."
    )


def test_a_command_that_fails_without_a_word_is_named_with_its_exit_code(machine: Machine) -> None:
    machine.program("systemctl", "exit 5")
    assert machine.refusal(apply(enable=["x.service"])) == (
        "systemctl --root=/ --quiet enable x.service: exit code 5"
    )


def test_what_comes_after_a_failure_is_not_done(machine: Machine, setup: Path) -> None:
    setup.write_text("raise SystemExit('cannot load it')")
    machine.records("systemctl")
    reason = machine.refusal(apply(setup=["guard"], enable=[PROXY], restart=[PROXY]))
    assert reason == f"python3 -I {setup} guard: cannot load it"
    assert machine.calls() == []
