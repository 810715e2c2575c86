"""What is said where the emulated Windows host can not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.winhost import powershell
from tests.winhost.presence import require

INNER = """
import pytest
from tests.winhost.presence import require

pytest_plugins = ["tests.conftest"]

@pytest.mark.winhost
def test_windows():
    require()

def test_else():
    pass
"""


def test_without_the_stand_in_a_test_is_skipped_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMPROXY_SHARED", "/nonexistent")
    monkeypatch.delenv("CI", raising=False)
    assert "set VMPROXY_SHARED" in (powershell.missing() or "")
    with pytest.raises(pytest.skip.Exception, match="not run for the Windows host"):
        require()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not run for the Windows host"):
        require()


@pytest.mark.parametrize(
    ("ci", "said"), [("", "THE WINDOWS HOST WAS NOT TESTED (1 tests)"), ("true", "1 failed")]
)
def test_pytests_last_lines_say_what_was_not_tested(ci: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [*command, str(tmp_path / "test_inner.py")],
        env={
            "PYTHONPATH": str(powershell.ROOT),
            "VMPROXY_SHARED": "/nonexistent",
            "CI": ci,
            "PATH": "/usr/bin",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in "\n".join(ran.stdout.splitlines()[-4:])
    assert "1 passed" in ran.stdout
