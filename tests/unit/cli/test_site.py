from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from vmproxy.cli.look import status, verify
from vmproxy.cli.site import init, schema
from vmproxy.site import load


def test_init_without_a_cluster_writes_a_file_that_loads_and_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "vmproxy.yaml"
    env = {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    result = CliRunner().invoke(init, ["-f", str(path)], env=env, catch_exceptions=False)
    assert result.exit_code == 0
    assert load.load(path).hosts
    assert "not discovered: the cluster: " in result.stderr
    assert "# Not discovered: the cluster: " in path.read_text()
    assert str(path) in result.stdout


def test_a_secret_that_is_not_there_is_a_mistake_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "vmproxy.yaml"
    path.write_text(
        "name: a\nhosts:\n- name: w\n  switch: {name: External}\n"
        "  network: {address: 192.0.2.5/24, gateway: 192.0.2.1}\n"
        "  hyperv: {endpoint: 'https://w:5986', auth: ntlm, username: u, password: {env: VMPROXY_NONE}}\n"
    )
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {token: t}}],\n"
        " contexts: [{name: c, context: {cluster: c, user: u}}],\n"
        " clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443'}}]}\n"
    )
    env = {"KUBECONFIG": str(kubeconfig), "XDG_STATE_HOME": str(tmp_path)}
    for command in (status, verify):
        result = CliRunner().invoke(command, ["-f", str(path)], env=env, standalone_mode=False)
        assert "VMPROXY_NONE" in result.stderr
        assert result.return_value == 2


def test_schema_prints_the_site_files_schema() -> None:
    result = CliRunner().invoke(schema, catch_exceptions=False)
    assert json.loads(result.stdout) == load.schema()
