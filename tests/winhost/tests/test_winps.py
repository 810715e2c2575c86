"""The conformance tests of the stand-in for PowerShell itself, with the program that the other tests use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.winhost import powershell, standin
from tests.winhost.presence import require

WINPS = standin.usual().source
SCRIPTS = sorted(str(path.relative_to(WINPS / "tests")) for path in WINPS.glob("tests/*/*.*"))
SUITE = WINPS / "test.sh"


@pytest.mark.winhost
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_stand_in_behaves_as_windows_powershell_in(script: str) -> None:
    require()
    ran = _run(script=WINPS / "tests" / script)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "1 passed, 0 failed"


@pytest.mark.winhost
def test_a_script_that_throws_fails_with_what_it_said(tmp_path: Path) -> None:
    require()
    script = tmp_path / "throws.ps1"
    script.write_text("throw 'not as on Windows'\n")
    ran = _run(script=script)
    assert ran.returncode == 1
    assert "not as on Windows" in ran.stdout


def _run(*, script: Path) -> subprocess.CompletedProcess[str]:
    command = [SUITE, powershell.program(), script]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
