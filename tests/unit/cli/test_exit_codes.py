"""One rule for all commands: how a command ends, from how its hosts did."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.cli.test_work import run
from vmproxy.cli import cli, exit_codes
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.engine import run as engine
from vmproxy.engine.run import HostResult
from vmproxy.errors import NotReady, SiteError, UsageError
from vmproxy.model.steps import Plan, StartVm
from vmproxy.model.topology import Member
from vmproxy.operations import doctor, status, verify
from vmproxy.operations import plan as planning
from vmproxy.operations.doctor import Finding
from vmproxy.operations.verify import Check

ROOT = Path(__file__).parents[3]
WORK = {
    "plan": (planning, "plan_host"),
    "apply": (engine, "apply_host"),
    "destroy": (engine, "destroy_host"),
    "status": (status, "status_host"),
    "verify": (verify, "verify_host"),
    "doctor": (doctor, "doctor_host"),
}
COLD = Plan((StartVm("a-b", cold=True),))
WRONG, DOWN = UsageError("no password"), NotReady("no answer")
BROKEN = (Check("demo/web:80", "tcp", ok=False, hop="vm", detail=""),)
SILENT = (Check("demo/log:514", "udp", ok=None, hop=None, detail=""),)
CASES = [
    ("plan", Plan(), Plan(), ExitCode.DONE),
    ("plan", COLD, Plan(), ExitCode.DONE),
    ("plan --exit-code", COLD, Plan(), ExitCode.PENDING),
    ("plan --exit-code", COLD, WRONG, ExitCode.USAGE),
    ("apply", HostResult("b"), HostResult("c"), ExitCode.DONE),
    ("apply", HostResult("b", left=COLD), HostResult("c"), ExitCode.PENDING),
    ("apply", HostResult("b", left=COLD), HostResult("c", error=DOWN), ExitCode.FAILED),
    ("apply", HostResult("b", error=WRONG), HostResult("c"), ExitCode.USAGE),
    ("destroy", HostResult("b", left=COLD), HostResult("c"), ExitCode.PENDING),
    ("verify", SILENT, SILENT, ExitCode.DONE),
    ("verify", SILENT, BROKEN, ExitCode.PROBLEM),
    ("verify", BROKEN, WRONG, ExitCode.USAGE),
    ("doctor", (Finding("switch", ok=True, detail=""),), (), ExitCode.DONE),
    ("doctor", (Finding("switch", ok=False, detail=""),), (), ExitCode.PROBLEM),
    ("doctor", (Finding("switch", ok=False, detail=""),), DOWN, ExitCode.FAILED),
]


def give(monkeypatch: pytest.MonkeyPatch, command: str, **results: Any) -> None:
    """Let the command's work on the hosts b and c return or raise these."""

    def work(site: object, host: Member, report: object, **_: object) -> object:
        result = results[host.name]
        if isinstance(result, Exception):
            raise result
        return result

    module: ModuleType
    module, name = WORK[command]
    monkeypatch.setattr(module, name, work)


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("command", WORK)
def test_every_command_ends_with_2_when_the_user_must_act_and_with_1_when_something_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str
) -> None:
    for first, second, code in [(WRONG, WRONG, 2), (WRONG, SiteError("x"), 2), (WRONG, DOWN, 1)]:
        give(monkeypatch, command, b=first, c=second)
        ran = run(tmp_path, "-o", output, command=command)
        assert ran.return_value == code
        assert "b:\nerror: no password" in ran.stderr


@pytest.mark.parametrize(("line", "first", "second", "code"), CASES)
def test_a_command_ends_like_the_host_that_ended_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, first: Any, second: Any, code: ExitCode
) -> None:
    command, *words = line.split()
    give(monkeypatch, command, b=first, c=second)
    assert run(tmp_path, *words, command=command).return_value == code
    give(monkeypatch, command, b=second, c=first)
    assert run(tmp_path, *words, command=command).return_value == code


def test_the_help_and_the_page_of_commands_name_every_exit_code() -> None:
    meanings = runpy.run_path(str(ROOT / "scripts/json-doc"))["docstrings"](exit_codes)["ExitCode"]
    named = ", ".join(f"{code.value} {meanings[code.name]}" for code in ExitCode)
    page = re.sub(r"`", "", (ROOT / "docs/commands.md").read_text())
    for text in (cli.help or "", page.partition("##")[0]):
        assert f"Exit codes: {named}." in " ".join(text.split())
