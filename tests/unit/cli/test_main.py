"""The console script as a process: no traceback, whatever happens, and nothing left behind by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.test_log import SITE

PROLOGUE = """
import atexit, os, pathlib, signal, sys, time
from vmproxy import api
from vmproxy.cli import main
"""


def start(tmp_path: Path, program: str, *words: str, **env: str) -> subprocess.Popen[str]:
    """It hears Ctrl-C as one started in a terminal does, also when these tests run in the background."""
    (tmp_path / "vmproxy.yaml").write_text(SITE)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **env}
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", PROLOGUE + program + "\nmain()", *words],
        env=environment,
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ran(tmp_path: Path, program: str, *words: str, **env: str) -> tuple[int, str, str]:
    with start(tmp_path, program, *words, **env) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_fault_of_ours_is_one_line_and_a_report_without_its_message(tmp_path: Path) -> None:
    code, out, err = ran(tmp_path, "def load(*_, **__): raise KeyError('s3cret')\napi.load = load", "status")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert "error: cannot continue: a fault of vmproxy itself (KeyError at <string>:" in err
    (report,) = (tmp_path / "state/vmproxy/reports").iterdir()
    assert str(report) in err
    text = report.read_text()
    assert "builtins.KeyError" in text
    assert "in load" in text
    assert "pydantic " in text
    assert "s3cret" not in text + err
    assert report.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_runs_at_exit_runs_when_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    program = """
pathlib.Path("key").write_text("secret")
atexit.register(lambda: pathlib.Path("key").unlink())
def load(*_, **__):
    pathlib.Path("ready").touch()
    for _ in range(600):  # a signal just before a sleep is seen after it
        time.sleep(0.1)
api.load = load
"""
    with start(tmp_path, program, "status") as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: stopped\n" in err
    assert "Traceback" not in err
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_comes_while_a_destructor_runs_is_a_stop(tmp_path: Path, number: signal.Signals) -> None:
    """As the one of filelock, which a real SIGTERM met: the run went on, with exit code 0."""
    program = f"""
class Held:
    def __del__(self):
        os.kill(os.getpid(), {number:d})
def load(*_, **__):
    Held()
    for _ in range(200):
        time.sleep(0.1)
    raise SystemExit(0)
api.load = load
"""
    code, _, err = ran(tmp_path, program, "status")
    assert code == 1
    assert "error: stopped\n" in err
    assert "ignored" not in err


def test_another_fault_in_a_destructor_is_shown(tmp_path: Path) -> None:
    program = """
class Held:
    def __del__(self):
        raise ValueError("bad")
def load(*_, **__):
    Held()
    raise SystemExit(0)
api.load = load
"""
    code, _, err = ran(tmp_path, program, "status")
    assert code == 0
    assert "ValueError: bad" in err


def test_a_run_under_nohup_goes_on_when_its_terminal_ends(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def load(*_, **__):
    os.kill(os.getpid(), signal.SIGHUP)
    raise SystemExit(0)
api.load = load
"""
    assert ran(tmp_path, program, "status") == (0, "", "")


def test_a_wrong_word_with_control_characters_is_shown_without_them(tmp_path: Path) -> None:
    code, _, err = ran(tmp_path, "", "status", "--\x1b]0;x\x07y")
    assert code == 2
    assert "No such option" in err
    assert "\x1b" not in err


def test_a_terminal_without_utf_8_is_no_reason_to_fail(tmp_path: Path) -> None:
    program = "from vmproxy.cli import console\nconsole.step('a → b')\nconsole.progress('→')"
    code, out, err = ran(tmp_path, program, "--version", PYTHONIOENCODING="ascii:strict")
    assert code == 0
    assert "? a ? b" in out
    assert err == "?\n"
