from __future__ import annotations

from pathlib import Path

import pytest

from vmproxy.errors import ToolFailed, UsageError
from vmproxy.util import paths
from vmproxy.util.run import run


def test_output_that_is_no_utf_8_is_read_with_marks() -> None:
    assert run(["printf", r"a\377b"]).stdout == "a\ufffdb"
    with pytest.raises(ToolFailed, match="a\ufffdb"):
        run(["sh", "-c", r"printf 'a\377b' >&2; exit 1"])


def test_what_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for program in (tmp_path / "none", tmp_path / "x", tmp_path):
        with pytest.raises(ToolFailed, match="cannot run"):
            run([program])


def test_a_user_without_a_home_folder_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: {}[0])
    for work in (paths.cache_dir, paths.state_dir, lambda: paths.expanded("~/.kube/config")):
        with pytest.raises(UsageError, match="no home folder") as caught:
            work()
        assert "HOME" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []
