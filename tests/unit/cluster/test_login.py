"""Kubeconfigs as kubectl reads them: what works, and what is one clear UsageError."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vmproxy.cluster import login
from vmproxy.cluster.kubeconfig import ClusterEntry, Exec, UserEntry
from vmproxy.cluster.login import Session
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.lab.pki import Pki
from vmproxy.site import model

SERVER = "https://10.1.2.3:6443"


@pytest.fixture
def ca(pki: Pki) -> str:
    return base64.b64encode(pki.certificate_file("ca").read_bytes()).decode()


class Files:
    """Kubeconfigs in a folder. `ca` is in each cluster, unless it says otherwise."""

    def __init__(self, folder: Path, ca: str) -> None:
        self.folder = folder
        self._ca = ca

    def write(self, name: str, cluster: Any = None, user: Any = None, **more: Any) -> Path:
        cluster = {"server": SERVER, "certificate-authority-data": self._ca, **(cluster or {})}
        document = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user or {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
            **more,
        }
        path = self.folder / name
        with path.open("w") as file:
            YAML().dump(document, file)
        return path

    def load(self, cluster: Any = None, user: Any = None, **more: Any) -> Session:
        return load(self.write("config", cluster, user, **more))


@pytest.fixture
def files(tmp_path: Path, ca: str) -> Files:
    return Files(tmp_path, ca)


def load(*paths: Path, context: str | None = None, environment: Mapping[str, str] | None = None) -> Session:
    listed = os.pathsep.join(map(str, paths))
    wanted = model.Cluster.model_validate({"context": context})
    return login.load(wanted, {"KUBECONFIG": listed, **(environment or {})})


def refused(files: Files, cluster: Any = None, user: Any = None, **more: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        files.load(cluster, user, **more)
    assert caught.value.message.startswith("cannot ")
    assert "\n" not in caught.value.message
    return caught.value


def test_of_several_files_the_first_that_sets_something_wins(files: Files) -> None:
    first = files.write("a", {"server": "https://a:6443"}, {"token": "a"})
    second = files.write("b", {"server": "https://b:6443"}, {"token": "b"})
    assert load(first, second).server == "https://a:6443"
    assert load(second, first).server == "https://b:6443"


def test_a_context_may_name_what_another_file_has(files: Files) -> None:
    contexts = files.folder / "contexts"
    contexts.write_text("contexts:\n- {name: y, context: {cluster: c, user: u}}\ncurrent-context: y\n")
    rest = files.write("rest", user={"token": "t"}, **{"current-context": ""})
    assert load(rest, contexts).credentials.headers() == (("Authorization", "Bearer t"),)


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "clusters: null\n"])
def test_an_empty_or_absent_file_in_the_list_is_tolerated(files: Files, content: str) -> None:
    empty = files.folder / "empty"
    empty.write_text(content)
    assert load(empty, files.folder / "none", files.write("config")).server == SERVER


def test_a_file_of_json_and_one_with_a_bom_are_read(files: Files) -> None:
    path = files.write("config")
    document = YAML(typ="safe").load(path)
    path.write_text("\ufeff" + json.dumps(document))
    assert load(path).server == SERVER


def test_paths_are_relative_to_the_file_that_has_them(files: Files, pki: Pki) -> None:
    folder = files.folder / "other"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(pki.certificate_file("ca").read_bytes())
    (folder / "token").write_text("from a file\n".replace(" ", "-"))
    here = files.write("config")
    there = files.write(
        "other/config",
        {"certificate-authority": "ca.crt", "certificate-authority-data": ""},
        {"tokenFile": "token"},
        contexts=[{"name": "z", "context": {"cluster": "d", "user": "v"}}],
    )
    there.write_text(there.read_text().replace("name: c\n", "name: d\n").replace("name: u\n", "name: v\n"))
    session = load(here, there, context="z")
    assert session.credentials.headers() == (("Authorization", "Bearer from-a-file"),)
    assert "BEGIN CERTIFICATE" in session.ca


def test_a_token_file_is_read_anew_and_goes_before_a_token(files: Files) -> None:
    file = files.folder / "token"
    file.write_text("one")
    credentials = files.load(user={"tokenFile": str(file), "token": "old"}).credentials
    assert credentials.headers() == (("Authorization", "Bearer one"),)
    file.write_text("two")
    assert credentials.headers() == (("Authorization", "Bearer two"),)
    file.unlink()
    assert credentials.headers() == (("Authorization", "Bearer old"),)


def test_a_name_and_a_password_log_in(files: Files) -> None:
    headers = files.load(user={"username": "u", "password": "p:q"}).credentials.headers()
    assert headers == (("Authorization", "Basic " + base64.b64encode(b"u:p:q").decode()),)


def test_a_client_certificate_goes_with_its_key(files: Files, pki: Pki) -> None:
    user = {
        "client-certificate": str(pki.certificate_file("admin")),
        "client-key-data": base64.b64encode(pki.key_file("admin").read_bytes()).decode(),
    }
    pem = files.load(user=user).credentials.certificate()
    assert pem is not None
    assert "BEGIN CERTIFICATE" in pem
    assert "PRIVATE KEY" in pem
    alone = {"client-certificate": user["client-certificate"]}
    assert "client-key is missing" in refused(files, user=alone).message


def test_impersonation_is_honoured(files: Files) -> None:
    user = {
        "as": "jane",
        "as-uid": "7",
        "as-groups": ["dev", "ops"],
        "as-user-extra": {"Corp.example/Team A": ["x"]},
    }
    assert files.load(user=user).impersonate == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-corp.example%2Fteam%20a", "x"),
    )
    assert "without a user" in refused(files, user={"as-groups": ["dev"]}).message


@pytest.mark.parametrize(
    "server",
    ["http://10.1.2.3:8001", "10.1.2.3:6443", "", None, "https://", "ftp://x", "https://[::1", "https://a:x"],
)
def test_a_server_without_tls_is_refused(files: Files, server: str | None) -> None:
    assert "is not an https URL" in refused(files, {"server": server}).message


@pytest.mark.parametrize("server", ["https://u:p@a:6443", "https://a:6443?x=y"])
def test_a_server_with_something_secret_in_it_is_refused(files: Files, server: str) -> None:
    assert "without a login" in refused(files, {"server": server}).message


@pytest.mark.parametrize(
    "server",
    [
        *(
            "https://127.0.0.1:6443",
            "https://127.0.0.53:6443",
            "https://localhost:6443",
            "https://a.localhost",
        ),
        *("https://0.0.0.0:6443", "https://[::1]:6443", "https://[::ffff:127.0.0.1]:6443"),
        *("https://[2001:db8::10]:6443", "https://[fd00::1]"),
    ],
)
def test_a_server_that_no_vm_reaches_is_refused_and_the_site_file_may_name_another(
    files: Files, server: str
) -> None:
    session = files.load({"server": server})
    with pytest.raises(UsageError, match="for a VM") as caught:
        login.server_for_vm(model.Cluster(), session)
    assert "cluster.server" in str(caught.value.hint)
    other = model.Cluster.model_validate({"server": SERVER})
    assert login.server_for_vm(other, session) == SERVER
    with pytest.raises(ValueError, match="at which the VM reaches"):
        model.Cluster.model_validate({"server": server})


def test_a_path_in_the_servers_url_is_kept(files: Files) -> None:
    session = files.load({"server": "https://rancher.corp.example/k8s/clusters/c-1/"})
    assert session.server == "https://rancher.corp.example/k8s/clusters/c-1"


def test_tls_server_name_is_handed_to_the_vm_for_the_server_that_it_belongs_to(files: Files) -> None:
    session = files.load({"tls-server-name": "kubernetes.default"})
    assert login.tls_server_name_for_vm(model.Cluster(), session) == "kubernetes.default"
    same = model.Cluster.model_validate({"server": SERVER})
    assert login.tls_server_name_for_vm(same, session) == "kubernetes.default"
    other = model.Cluster.model_validate({"server": "https://lb.corp.example"})
    assert login.tls_server_name_for_vm(other, session) is None


def test_without_a_ca_the_systems_are_trusted(files: Files) -> None:
    assert "BEGIN CERTIFICATE" in files.load({"certificate-authority-data": ""}).ca


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        ({"certificate-authority-data": "%%%"}, "is not base64"),
        ({"certificate-authority-data": "aGVsbG8="}, "no certificate in PEM form"),
        ({"certificate-authority-data": "", "certificate-authority": "/nowhere/ca.crt"}, "/nowhere/ca.crt"),
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ({"insecure-skip-tls-verify": "maybe"}, "insecure-skip-tls-verify"),
        ({"proxy-url": "socks5://localhost:1080"}, "socks5://localhost:1080"),
        ({"proxy-url": "socks5://me:secret@localhost:1080"}, "socks5://localhost:1080"),
        ({"proxy-url": "proxy.corp.example:3128"}, "proxy.corp.example:3128"),
        ({"proxy-url": "http://"}, "is not a URL of an HTTP proxy"),
        ({"server": 5}, "server"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused(files: Files, cluster: Any, why: str) -> None:
    assert why in refused(files, cluster).message
    assert "secret" not in refused(files, cluster).message


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ({"auth-provider": {"name": "gcp", "config": {"access-token": "x"}}}, "gcp"),
        ({"auth-provider": {"name": "azure"}}, "azure"),
        ({"auth-provider": {"name": "oidc", "config": {"idp-issuer-url": "https://gone"}}}, "oidc"),
        ({"token": "a", "username": "b"}, "both token and username"),
        ({"tokenFile": "/nowhere/token"}, "/nowhere/token"),
        ({"token": "a\nb"}, "no HTTP header"),
        ({"token": 7}, "token"),
        ({"client-key-data": "!"}, "client-key-data is not base64"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}, "command"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}, "v1alpha1"),
        (
            {
                "exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": "x",
                    "interactiveMode": "Always",
                }
            },
            "interactiveMode",
        ),
        ("hello", "user u"),
    ],
)
def test_a_user_that_cannot_be_used_is_refused(files: Files, user: Any, why: str) -> None:
    assert why in refused(files, user=user).message


def id_token(expires: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return f"e30.{claims}.sig"


def test_the_id_token_of_oidc_is_used_while_it_lives(files: Files) -> None:
    def user(expires: float) -> Any:
        return {"auth-provider": {"name": "oidc", "config": {"id-token": id_token(expires)}}}

    token = id_token(int(time.time()) + 600)
    alive = {"auth-provider": {"name": "oidc", "config": {"id-token": token}}}
    assert files.load(user=alive).credentials.headers() == (("Authorization", f"Bearer {token}"),)
    assert "kubectl" in str(refused(files, user=user(time.time() - 1)).hint)


@pytest.mark.parametrize(
    "content",
    [
        *("hello", "[]", "a: [", "kind: Pod", "clusters: {}", "clusters: [{cluster: {}}]", "clusters: [3]"),
        *("current-context: x", "\x00", "contexts: [{name: x, context: 3}]\ncurrent-context: x"),
        "contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x",
        "clusters: [{name: c}, {name: c}]",
    ],
)
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(UsageError, match="kubeconfig"):
        load(path)


def test_bytes_and_folders_are_no_kubeconfig(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"\xff\xfe\x00")
    for wrong in (path, tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            load(wrong)


def test_an_unknown_context_is_named_with_a_way_on(files: Files) -> None:
    with pytest.raises(UsageError, match="no context y") as caught:
        load(files.write("config"), context="y")
    assert "get-contexts" in str(caught.value.hint)


PROXY = "http://proxy.corp.example:3128"


@pytest.mark.parametrize(
    ("server", "excluded", "through"),
    [
        (SERVER, "", PROXY),
        (SERVER, "10.1.2.3", None),
        (SERVER, "10.0.0.0/8", None),
        (SERVER, "10.1.2.3:6443", None),
        (SERVER, "10.1.2.3:443", PROXY),
        (SERVER, "10.1.2", PROXY),
        (SERVER, " example , *", None),
        ("https://api.corp.example", "corp.example", None),
        ("https://api.corp.example", ".corp.example", None),
        ("https://corp.example", ".corp.example", PROXY),
        ("https://corp.example", "corp.example", None),
        ("https://notcorp.example", "corp.example", PROXY),
        ("https://127.0.0.1:6443", "", None),
        ("https://localhost:6443", "", None),
        ("https://[fd00::1]:6443", "fd00::/8", None),
    ],
)
def test_the_environments_proxy_is_used_as_go_does_and_is_no_tunnel(
    files: Files, server: str, excluded: str, through: str | None
) -> None:
    environment = {"HTTPS_PROXY": PROXY, "NO_PROXY": excluded}
    session = load(files.write("config", {"server": server}), environment=environment)
    assert session.proxy == through
    assert session.tunnel is None


def test_the_kubeconfigs_proxy_goes_before_the_environments_and_no_vm_uses_it(files: Files) -> None:
    path = files.write("config", {"proxy-url": "http://bastion:8080"})
    session = load(path, environment={"HTTPS_PROXY": PROXY, "NO_PROXY": "*"})
    assert session.proxy == "http://bastion:8080"
    with pytest.raises(UsageError, match="proxy-url"):
        login.server_for_vm(model.Cluster(), session)


def test_the_environments_proxy_may_lack_its_scheme_and_must_not_be_socks(files: Files) -> None:
    path = files.write("config")
    assert load(path, environment={"https_proxy": "proxy:3128"}).proxy == "http://proxy:3128"
    with pytest.raises(UsageError, match=r"\$HTTPS_PROXY"):
        load(path, environment={"HTTPS_PROXY": "socks5://127.0.0.1:7890"})


V1 = "client.authentication.k8s.io/v1"


def plugin(folder: Path, script: str, **more: Any) -> Any:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": V1, "command": "./plugin", "interactiveMode": "Never", **more}}


def credential(**status: Any) -> str:
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})


@pytest.mark.parametrize("expires", [{}, {"expirationTimestamp": None}, {"expirationTimestamp": ""}])
def test_an_exec_plugins_token_without_an_expiry_is_kept(files: Files, expires: Any) -> None:
    answer = credential(token="t", **expires)
    user = plugin(files.folder, f"echo run >> {files.folder}/runs; echo '{answer}'")
    credentials = files.load(user=user).credentials
    assert [credentials.headers() for _ in range(2)] == [(("Authorization", "Bearer t"),)] * 2
    assert (files.folder / "runs").read_text() == "run\n"


def test_an_exec_plugin_is_run_again_when_its_token_has_expired(files: Files) -> None:
    answer = credential(token="t", expirationTimestamp="2020-01-01T00:00:00Z")
    user = plugin(files.folder, f"echo run >> {files.folder}/runs; echo '{answer}'")
    credentials = files.load(user=user).credentials
    credentials.headers()
    credentials.headers()
    assert (files.folder / "runs").read_text() == "run\nrun\n"


def test_an_exec_plugin_gets_its_arguments_its_environment_and_the_cluster(files: Files) -> None:
    script = f'echo "$1 $A" > {files.folder}/said; echo "$KUBERNETES_EXEC_INFO" > {files.folder}/info; ' + (
        f"echo '{credential(token='t')}'"
    )
    extensions = [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}]
    user = plugin(
        files.folder, script, args=["one"], env=[{"name": "A", "value": "b"}], provideClusterInfo=True
    )
    files.load({"extensions": extensions}, user).credentials.headers()
    info = json.loads((files.folder / "info").read_text())
    assert (files.folder / "said").read_text() == "one b\n"
    assert (info["apiVersion"], info["kind"]) == (V1, "ExecCredential")
    assert info["spec"]["cluster"]["server"] == SERVER
    assert info["spec"]["cluster"]["config"] == {"audience": "x"}
    assert info["spec"]["interactive"] is False


@pytest.mark.parametrize(
    "script",
    [
        *("exit 3", "echo hello", "echo '{}'", "echo '[]'", "printf '\\377'", f"echo '{credential()}'"),
        f"echo '{credential(clientCertificateData='x')}'",
        f"echo '{credential(token='t', expirationTimestamp='soon')}'",
        "echo '" + credential(token="t").replace("/v1", "/v1beta1") + "'",
    ],
)
def test_an_exec_plugin_that_fails_is_one_error_with_its_install_hint(files: Files, script: str) -> None:
    session = files.load(user=plugin(files.folder, script, installHint="get it from corp"))
    with pytest.raises(VmproxyError, match="exec plugin") as caught:
        session.credentials.headers()
    assert "get it from corp" in str(caught.value.hint)


def test_an_exec_plugin_that_fails_is_run_once(files: Files) -> None:
    credentials = files.load(
        user=plugin(files.folder, f"echo run >> {files.folder}/runs; exit 1")
    ).credentials
    for _ in range(3):
        with pytest.raises(VmproxyError, match="exec plugin"):
            credentials.headers()
    assert (files.folder / "runs").read_text() == "run\n"


def test_an_exec_plugin_that_is_not_installed_is_named(files: Files) -> None:
    user = {"exec": {"apiVersion": V1, "command": "no-such-plugin", "interactiveMode": "IfAvailable"}}
    with pytest.raises(VmproxyError, match="no-such-plugin: not installed"):
        files.load(user=user).credentials.headers()


def test_every_field_of_a_kubeconfig_has_its_row_in_the_page() -> None:
    page = Path("docs/kubeconfig.md").read_text()
    listed = set(re.findall(r"`([A-Za-z-]+)[`:]", page))
    known = {
        field.alias or field.serialization_alias or name
        for kind in (ClusterEntry, UserEntry, Exec)
        for name, field in kind.model_fields.items()
    }
    assert known <= listed


def test_inside_a_pod_its_account_is_used_and_its_server_is_none_for_a_vm(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_POD", tmp_path)
    pod = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443", "HOME": str(tmp_path)}
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="inside this Pod"):
        login.load(model.Cluster(), pod)
    (tmp_path / "ca.crt").write_bytes(pki.certificate_file("ca").read_bytes())
    (tmp_path / "token").write_text("t")
    session = login.load(model.Cluster(), pod)
    assert session.server == "https://[fd00::1]:443"
    assert session.credentials.headers() == (("Authorization", "Bearer t"),)
    with pytest.raises(UsageError, match="it is a ClusterIP"):
        login.server_for_vm(model.Cluster(), session)
    with pytest.raises(UsageError, match="no such file"):
        login.load(model.Cluster.model_validate({"context": "x"}), pod)


def test_an_empty_variable_means_the_usual_file_and_no_home_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no such file"):
        login.load(model.Cluster(), {"KUBECONFIG": ""})
