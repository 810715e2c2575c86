from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.unit.cluster.served import Answer, serving
from vmproxy.cli.look import status, verify
from vmproxy.cli.site import init, schema
from vmproxy.errors import UsageError
from vmproxy.lab.pki import Pki
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


KUBECONFIG = """
current-context: c
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "%s", certificate-authority: %s}}]
"""


def ran_init(folder: Path, server: str, ca: Path) -> tuple[Result, Path]:
    """And the file."""
    (folder / "kubeconfig").write_text(KUBECONFIG % (server, ca))
    path = folder / "vmproxy.yaml"
    env = {"KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder)}
    result = CliRunner().invoke(init, ["-f", str(path)], env=env, standalone_mode=False)
    return result, path


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki(tmp_path / "pki")
    made.make(server_names=("127.0.0.1",))
    return made


@pytest.mark.parametrize("server", ["http://10.1.2.3:8001", "10.1.2.3:6443"])
def test_init_refuses_a_kubeconfig_that_apply_would_refuse(tmp_path: Path, pki: Pki, server: str) -> None:
    result, path = ran_init(tmp_path, server, pki.certificate_file("ca"))
    assert isinstance(result.exception, UsageError)
    assert "is not an https URL" in result.exception.message
    assert not path.exists()


def test_init_finds_the_ranges_of_a_cluster_whose_server_no_vm_reaches(tmp_path: Path, pki: Pki) -> None:
    answers = {
        "/version": {"gitVersion": "v1.36.3"},
        "/apis/networking.k8s.io/v1/servicecidrs": {"items": [{"spec": {"cidrs": ["10.96.0.0/16"]}}]},
        "/api/v1/nodes": {"items": [{"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.1.0/24"}}]},
        "/api/v1/namespaces/vmproxy/serviceaccounts": {"items": []},
        "/api/v1/namespaces/default/services/kubernetes": {
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}
        },
    }

    def answer(_method: str, path: str) -> Answer:
        found = answers.get(path.partition("?")[0])
        return Answer(body=found) if found else Answer(404, {})

    with serving(pki, answer) as api:
        result, path = ran_init(tmp_path, api.url, pki.certificate_file("ca"))
    assert result.exception is None
    assert "not discovered: cluster.server: " in result.stderr
    text = path.read_text()
    assert "10.96.0.0/16" in text
    assert "10.244.1.0/24" in text
    assert load.load(path).cluster.server is None


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
