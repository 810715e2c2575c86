"""apply and destroy on several hosts: what each did, why one failed, and the exit code."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from vmproxy.cli import cli
from vmproxy.engine import run as engine
from vmproxy.engine.run import HostResult
from vmproxy.engine.scope import Scope
from vmproxy.errors import NotReady, UsageError, VmproxyError
from vmproxy.model.steps import StartVm, Step
from vmproxy.model.topology import Member

DONE = StartVm("a-b")


def run(folder: Path, *words: str, command: str = "apply") -> Result:
    path = folder / "vmproxy.yaml"
    network = "{address: 192.0.2.%d/24, gateway: 192.0.2.1}"
    hosts = "".join(f"- {{name: {n}, qemu: {{}}, network: {network % i}}}\n" for i, n in ((5, "b"), (6, "c")))
    path.write_text("name: a\nhosts:\n" + hosts)
    chosen = cli.get_command(click.Context(cli), command)
    assert chosen
    return CliRunner().invoke(chosen, ["-f", str(path), *words], standalone_mode=False)


def fails(error: VmproxyError, done: tuple[Step, ...]) -> object:
    def work(site: object, host: Member, report: object, **_: object) -> HostResult:
        return HostResult(host.name, done, error=error) if host.name == "b" else HostResult(host.name)

    return work


@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_what_was_done_before_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    work = fails(NotReady("SSH of VM a-b: no answer", hint="look"), (DONE,))
    monkeypatch.setattr(engine, "apply_host", work)
    monkeypatch.setattr(engine, "destroy_host", work)
    text = run(tmp_path, "--yes", command=command)
    assert text.return_value == 1
    assert "vm a-b" in text.stdout
    assert "SSH of VM a-b: no answer" in text.stderr
    told = json.loads(run(tmp_path, "--yes", "-o", "json", command=command).stdout)["hosts"]
    assert [host["name"] for host in told] == ["b", "c"]
    assert [outcome["target"] for outcome in told[0]["outcomes"]] == ["vm a-b"]
    assert told[0]["error"] == {"message": "SSH of VM a-b: no answer", "hint": "look", "details": []}
    assert told[1] == {"name": "c", "outcomes": [], "left": [], "error": None}


def test_a_host_that_failed_at_once_shows_nothing_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "apply_host", fails(UsageError("no password"), ()))
    ran = run(tmp_path)
    assert ran.return_value == 2
    assert "b:" not in ran.stdout
    assert "c: in sync" in ran.stdout
    assert "b:" in ran.stderr


def test_an_apply_that_fails_keeps_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: engine._Apply) -> None:
        self.done.append(DONE)
        raise NotReady("no answer")

    monkeypatch.setattr(engine._Apply, "all_phases", half)
    monkeypatch.setattr(Scope, "carrier", SimpleNamespace(lock=lambda report: nullcontext()))
    told = json.loads(run(tmp_path, "--host", "b", "-o", "json").stdout)["hosts"]
    assert [outcome["target"] for outcome in told[0]["outcomes"]] == ["vm a-b"]
    assert told[0]["error"]["message"] == "no answer"
