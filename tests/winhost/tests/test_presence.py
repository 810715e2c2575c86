"""What is said where the emulated Windows host can not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.winhost import standin
from tests.winhost.presence import require
from tests.winhost.tests.test_standin import fake_program

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


def test_without_the_stand_in_a_test_is_skipped_but_fails_in_ci() -> None:
    with pytest.raises(pytest.skip.Exception, match="not run for the Windows host: no program"):
        require("no program", environment={})
    with pytest.raises(pytest.fail.Exception, match="not run for the Windows host: no program"):
        require("no program", environment={"CI": "true"})


@pytest.mark.parametrize(
    ("ci", "said"), [("", "THE WINDOWS HOST WAS NOT TESTED (1 tests)"), ("true", "1 failed")]
)
def test_pytests_last_lines_say_what_was_not_tested(ci: str, said: str, tmp_path: Path) -> None:
    ran = inner_run(tmp_path, shared=Path("/nonexistent"), ci=ci)
    assert said in "\n".join(ran.splitlines()[-4:])
    assert "set VMPROXY_SHARED" in ran
    assert "1 passed" in ran


@pytest.mark.parametrize(
    ("ci", "said"), [("", "THE WINDOWS HOST WAS NOT TESTED (1 tests)"), ("true", "1 failed")]
)
def test_a_stand_in_of_another_source_is_not_taken(ci: str, said: str, tmp_path: Path) -> None:
    fake_program(tmp_path / "shared/tools/winps/bin/winps", "0" * 64)
    ran = inner_run(tmp_path, shared=tmp_path / "shared", ci=ci)
    assert said in "\n".join(ran.splitlines()[-4:])
    ours = standin.source_hash(standin.usual().source)
    assert f"was built from source {'0' * 64}, this checkout has {ours}" in ran


def inner_run(folder: Path, *, shared: Path, ci: str) -> str:
    """What pytest prints of two tests, one of which needs the stand-in, where nothing can be built."""
    (folder / "test_inner.py").write_text(INNER)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    environment = {
        "PYTHONPATH": str(standin.ROOT),
        "VMPROXY_SHARED": str(shared),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "CI": ci,
        "PATH": str(folder / "no-programs"),
    }
    ran = subprocess.run(
        [*command, str(folder / "test_inner.py")],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout
