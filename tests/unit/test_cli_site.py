from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from vmproxy import sitefile
from vmproxy.cli.site import init, schema


def test_init_without_a_cluster_writes_a_file_that_loads_and_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "vmproxy.yaml"
    env = {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    result = CliRunner().invoke(init, ["-f", str(path)], env=env, catch_exceptions=False)
    assert result.exit_code == 0
    assert sitefile.load(path).hosts
    assert "not found out: the cluster: " in result.stderr
    assert "# Not found out: the cluster: " in path.read_text()
    assert str(path) in result.stdout


def test_schema_prints_the_site_files_schema() -> None:
    result = CliRunner().invoke(schema, catch_exceptions=False)
    assert json.loads(result.stdout) == sitefile.schema()
