"""The ssh client's command line: whatever the folders are called and the user's own settings are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.memory import MemoryArtifacts, Product, made
from vmproxy.engine.scope import Scope
from vmproxy.util.events import Reporter


class Keys(MemoryArtifacts):
    file = Path("/none")

    def user_key_file(self) -> Path:
        return self.file


@pytest.mark.parametrize("folder", ["plain", "with space", "50%d off", "a 'quote"])
def test_ssh_reads_the_paths_as_they_are_and_forwards_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    state = tmp_path / folder
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    product = Product(made(), artifacts=Keys())
    Keys.file = state / "id_ed25519"
    with Scope(product.site(), product.topology.members[0], Reporter(lambda *_: None)) as scope:
        words = scope.ssh_command()
    start = words.index("-o")
    (tmp_path / "config").write_text("Host *\nForwardAgent yes\nControlMaster auto\nControlPath /tmp/x\n")
    shown = subprocess.run(
        ["ssh", "-G", "-F", tmp_path / "config", *words[start:]], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    known = dict(line.partition(" ")[::2] for line in shown)
    assert known["identityfile"].replace("%%", "%") == str(Keys.file)
    assert known["userknownhostsfile"].replace("%%", "%").startswith(str(state))
    assert known["forwardagent"] == "no"
    assert known["controlmaster"] == "false"
    assert known.get("controlpath", "none") == "none"
