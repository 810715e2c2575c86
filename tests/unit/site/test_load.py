from __future__ import annotations

import json
import re
from ipaddress import IPv4Network, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from vmproxy.cli import answers
from vmproxy.cli.site import findings
from vmproxy.errors import SiteError, UsageError
from vmproxy.model.seen import ClusterSeen
from vmproxy.site import load, template
from vmproxy.site.model import SecretFromEnv, SecretFromFile, Site
from vmproxy.site.template import Findings, Start

CASES = Path(__file__).parent
REFERENCE = Path(__file__).parents[3] / "docs" / "site-file.md"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vmproxy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(SiteError) as caught:
        load.load(path)
    return list(caught.value.details)


@pytest.mark.parametrize("case", sorted(CASES.glob("invalid-*.yaml")), ids=lambda path: path.stem)
def test_every_mistake_is_reported_at_once_with_its_line(case: Path) -> None:
    expected = case.with_suffix(".expected").read_text(encoding="utf-8").splitlines()
    assert mistakes(case) == [f"{case}:{line}" for line in expected]


@pytest.mark.parametrize("case", sorted(CASES.glob("valid-*.yaml")), ids=lambda path: path.stem)
def test_a_valid_file_loads_and_satisfies_the_schema(case: Path) -> None:
    assert load.load(case).hosts
    raw = YAML(typ="safe", pure=True).load(case)
    raw = {key: value for key, value in raw.items() if value is not None}
    if case.stem != "valid-keys-without-a-value-are-omitted":
        Draft202012Validator(load.schema()).validate(raw)


def test_every_value_of_the_file_arrives_in_the_model() -> None:
    site = load.load(CASES / "valid-everything.yaml")
    first, second, *_ = site.hosts
    assert first.hyperv is not None
    assert second.hyperv is not None
    assert site.proxy.token_ttl == 5400
    assert site.cluster.service_cidrs == (IPv4Network("10.96.0.0/16"), IPv4Network("10.97.0.0/24"))
    assert site.image.sha256 == (site.proxy.binary and site.proxy.binary.sha256)
    assert first.hyperv.password == SecretFromEnv(env="WINRM_PASSWORD")
    assert first.hyperv.username == r"CORP\svc-vmproxy"
    assert (site.vm_size(first).cpus, site.vm_size(first).memory) == (4, 768 << 20)
    assert (site.vm_size(second).cpus, site.vm_size(second).memory) == (4, 1 << 30)
    assert first.acts_for == "win-01.corp.example"
    assert second.acts_for is None


def test_paths_start_at_the_site_file_and_the_tilde_is_the_home_folder() -> None:
    site = load.load(CASES / "valid-everything.yaml")
    assert site.cluster.kubeconfig == Path.home() / "kubeconfig"
    assert site.cloud_init.user_data == CASES / "my-user-data.j2"
    assert site.ssh.identity == SecretFromFile(file=CASES / "keys/id_ed25519")
    assert site.hosts[0].hyperv is not None
    assert site.hosts[0].hyperv.ca == CASES / "corp-ca.pem"
    assert site.hosts[3].hyperv is not None
    assert site.hosts[3].hyperv.password == SecretFromFile(file=CASES / "secrets/win-04")


def test_omitted_parts_have_their_defaults() -> None:
    for name in ("valid-minimal.yaml", "valid-keys-without-a-value-are-omitted.yaml"):
        site = load.load(CASES / name)
        assert site.image.name == "debian-13"
        assert site.proxy.token_ttl == 24 * 3600
        assert site.vm_size(site.hosts[0]).memory == 512 << 20


def test_a_secret_is_never_printed() -> None:
    with pytest.raises(SiteError) as caught:
        load.load(CASES / "invalid-secrets.yaml")
    shown = repr(answers.error(caught.value))
    assert "given by reference only" in shown
    assert "hunter2" not in shown
    assert "12345" not in shown


def test_a_missing_file_leads_to_init(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        load.load(tmp_path / "none.yaml")
    assert "vmproxy init" in (caught.value.hint or "")


def test_a_folder_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory"):
        load.load(tmp_path)
    binary = tmp_path / "x"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load.load(binary)


def test_a_control_character_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\nhosts: \x01\n")
    assert mistakes(path) == [f"{path}:2: not YAML: a control character, '\\x01'"]


@pytest.mark.parametrize("value", ["true", "2.5", "'2'", "[2]", "65"])
def test_cpus_are_a_small_whole_number(tmp_path: Path, value: str) -> None:
    text = (CASES / "valid-minimal.yaml").read_text() + f"defaults: {{vm: {{cpus: {value}}}}}\n"
    assert len(mistakes(written(tmp_path, text))) == 1


def test_a_route_wider_than_the_service_range_is_fine(tmp_path: Path) -> None:
    text = (
        "name: a\ncluster: {serviceCIDRs: [10.96.0.0/16]}\nhosts:\n- name: b\n  qemu: {}\n  network:\n"
        "    address: 192.168.10.5/24\n    gateway: 192.168.10.1\n"
        "    routes: [{to: 10.0.0.0/8, via: 192.168.10.2}]\n"
    )
    assert load.load(written(tmp_path, text)).hosts[0].network.routes


def test_the_schema_names_keys_as_the_file_does() -> None:
    schema = load.schema()
    Draft202012Validator.check_schema(schema)
    assert json.dumps(schema)
    assert "serviceCIDRs" in schema["$defs"]["Cluster"]["properties"]
    assert schema["additionalProperties"] is False


def keys_of(node: dict[str, Any], whole: dict[str, Any], prefix: str = "") -> set[str]:
    """Every key of the schema, as hosts[].network.address."""
    found = set()
    for name, below in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        inner, suffix = (below["items"], "[]") if "items" in below else (below, "")
        found.add(path)
        for option in (inner, *inner.get("anyOf", ())):
            if "$ref" in option:
                target = whole["$defs"][option["$ref"].rpartition("/")[2]]
                found |= keys_of(target, whole, f"{path}{suffix}.")
    return found


def test_the_reference_has_every_key_and_no_other() -> None:
    schema = load.schema()
    documented = re.findall(r"^\| `([^`]+)` \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(keys_of(schema, schema))


def test_every_key_has_a_description_for_the_editor() -> None:
    schema = load.schema()
    for model in (schema, *schema["$defs"].values()):
        for name, key in model["properties"].items():
            assert key.get("description"), f"{model['title']}.{name}"


def loaded(tmp_path: Path, findings: Findings) -> Site:
    return load.load(written(tmp_path, template.template(findings)))


def test_the_template_loads_without_mistakes_when_nothing_is_known(tmp_path: Path) -> None:
    site = loaded(tmp_path, Findings())
    assert site.name == "plant-a"
    assert site.hosts[0].name == "win-01"


SEEN = ClusterSeen(
    version="v1.30.1",
    server="https://10.1.1.1:6443",
    ca="",
    service_cidrs=(ip_network("10.96.0.0/16"), ip_network("fd00::/108")),
    pod_cidrs=(ip_network("192.168.0.0/16"), ip_network("172.16.0.0/12")),
    nodes=(),
    canary=("10.96.0.1", 443),
    identity={},
)


def test_the_template_holds_what_the_cluster_says_and_follows_it(tmp_path: Path) -> None:
    known = findings(SEEN)
    site = loaded(tmp_path, known)
    text = template.template(known)
    assert str(site.cluster.server) == "https://10.1.1.1:6443/"
    assert '# serviceCIDRs: ["10.96.0.0/16"]  #' in text
    assert '# version: "v1.30.1"  #' in text
    assert site.cluster.service_cidrs == ()
    assert site.proxy.version is None


def test_what_the_template_has_as_comments_can_be_uncommented(tmp_path: Path) -> None:
    text = template.template(findings(SEEN))
    text = re.sub(r"# (version|serviceCIDRs|podCIDRs|kubeconfig|context|dns|directory):", r"\1:", text)
    site = load.load(written(tmp_path, text))
    assert site.proxy.version == "v1.30.1"
    assert site.cluster.context == "prod"


def test_hosts_and_notes_are_written_as_they_are_known(tmp_path: Path) -> None:
    findings = Findings(
        hosts=(Start(name="w1", acts_for="w1.corp"), Start(name="w2")), notes=("one\nthing: {{ x }}",)
    )
    site = loaded(tmp_path, findings)
    assert [host.acts_for for host in site.hosts] == ["w1.corp", None]
    assert "# Not discovered: one thing: {{ x }}\n" in template.template(findings)


def test_the_draft_is_enough_to_ask_the_cluster() -> None:
    assert template.draft().hosts[0].name == "win-01"


def test_the_templates_examples_stay_clear_of_the_clusters_ranges(tmp_path: Path) -> None:
    site = loaded(tmp_path, Findings(pod_cidrs=("192.168.0.0/16",)))
    assert not site.hosts[0].network.address.network.overlaps(IPv4Network("192.168.0.0/16"))


def test_the_template_takes_the_password_by_reference(tmp_path: Path) -> None:
    hyperv = loaded(tmp_path, Findings()).hosts[0].hyperv
    assert hyperv is not None
    assert hyperv.password == SecretFromEnv(env="WINRM_PASSWORD")


def test_a_file_that_is_there_is_kept_unless_asked(tmp_path: Path) -> None:
    path = written(tmp_path, "mine")
    with pytest.raises(UsageError, match="exists") as caught:
        template.write(path, "new", replace=False)
    assert "--force" in (caught.value.hint or "")
    assert path.read_text() == "mine"
    template.write(path, "new", replace=True)
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["vmproxy.yaml"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        template.write(tmp_path / "none" / "x.yaml", "new", replace=False)


def unfolding(deep: int) -> str:
    """A short file: each list is nine times the one before."""
    names = "abcdefghijklmnop"[:deep]
    rest = (f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise(names))
    return "a: &a [x]\n" + "".join(rest)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 3000, "nested too deeply"),
        ("name: " + "{a: " * 3000, "nested too deeply"),
        (unfolding(9), "aliases expand to too much data"),
        ("name: plant-a\nhosts: [{name: a, network: {vlan: " + "9" * 5000 + "}}]\n", "vlan"),
    ],
    ids=["lists", "maps", "aliases", "number"],
)
def test_a_file_made_to_break_the_reader_is_a_mistake_like_others(
    tmp_path: Path, text: str, what: str
) -> None:
    assert any(what in mistake for mistake in mistakes(written(tmp_path, text)))


def test_a_token_s_life_is_too_short_or_too_long(tmp_path: Path) -> None:
    for life, what in (
        ("9m", "at least 10m"),
        ("99999999h", "at most 1193046h"),
        ("9" * 5000 + "h", "write"),
    ):
        assert any(what in one for one in mistakes(written(tmp_path, f"proxy: {{tokenTTL: {life}}}\n")))


@pytest.mark.parametrize(
    ("server", "what"),
    [
        ("http://api:6443", "https://"),
        ("https://user:word@api:6443", "nothing secret"),
        ("https://api:6443/?token=word", "nothing secret"),
        ("https://127.0.0.1:6443", "at which the VM reaches"),
        ("https://localhost:6443", "at which the VM reaches"),
    ],
)
def test_an_api_server_that_is_of_no_use_or_unsafe_is_refused(tmp_path: Path, server: str, what: str) -> None:
    found = mistakes(written(tmp_path, f"cluster: {{server: '{server}'}}\n"))
    assert any("cluster.server" in one and what in one for one in found)
    assert not any("word" in one for one in found)


MERGING = """name: a
hosts:
- &first
  name: win-01
  qemu: {}
  network: &net {address: 192.0.2.5/24, gateway: 192.0.2.1, vlan: 7}
  vm: {cpus: 3}
- <<: *first
  name: win-02
  network: {<<: *net, address: 192.0.2.6/24}
- name: win-03
  <<: [{vm: {cpus: 5}}, *first]
  network: {address: 192.0.2.7/24, <<: *net, vlan: }
"""


def test_merge_keys_bring_what_is_not_there(tmp_path: Path) -> None:
    hosts = load.load(written(tmp_path, MERGING)).hosts
    assert [host.name for host in hosts] == ["win-01", "win-02", "win-03"]
    assert [str(host.network.address.ip) for host in hosts] == ["192.0.2.5", "192.0.2.6", "192.0.2.7"]
    assert [host.network.vlan for host in hosts] == [7, 7, 0]
    assert [host.vm.cpus for host in hosts] == [3, 3, 5]


@pytest.mark.parametrize("value", ["5", "[5]", "text", "[[a]]"])
def test_a_merge_of_anything_else_is_a_mistake_in_its_line(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, MERGING + f"<<: {value}\n")
    assert mistakes(path) == [f"{path}:14: << merges mappings only, such as *name"]


def test_a_merge_of_itself_is_a_mistake(tmp_path: Path) -> None:
    path = written(tmp_path, MERGING + "image: &x {<<: *x, name: debian-13}\n")
    assert any("contains itself" in line for line in mistakes(path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_site_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "vmproxy.yaml"
    path.write_bytes((CASES / "valid-minimal.yaml").read_text().replace("\n", "\r\n").encode(encoding))
    assert load.load(path).hosts


WINDOWS = """- name: {name}
  hyperv: {{endpoint: "{endpoint}", username: a, password: {{env: P}}}}
  switch: {{name: External}}
  network:
    address: 192.0.2.{number}/24
    gateway: 192.0.2.1
    routes: [{{to: 10.1.0.0/16, via: {via}}}{more}]
"""


def test_the_same_windows_host_twice_is_a_mistake(tmp_path: Path) -> None:
    one = WINDOWS.format(name="w1", endpoint="https://win:5986", number=5, via="192.0.2.8", more="")
    two = WINDOWS.format(name="w2", endpoint="http://WIN", number=6, via="192.0.2.8", more="")
    (said,) = mistakes(written(tmp_path, f"name: a\nhosts:\n{one}{two}"))
    assert "hosts[1].hyperv.endpoint: win is already the host on line 3" in said


def test_a_next_hop_that_is_a_vm_and_a_second_route_to_a_network_are_mistakes(tmp_path: Path) -> None:
    more = ", {to: 10.1.0.0/16, via: 192.0.2.9}"
    one = WINDOWS.format(name="w1", endpoint="https://w1", number=5, via="192.0.2.6", more=more)
    two = WINDOWS.format(name="w2", endpoint="https://w2", number=6, via="192.0.2.8", more="")
    said = mistakes(written(tmp_path, f"name: a\nhosts:\n{one}{two}"))
    assert [line.split(": ", 2)[-1] for line in said] == [
        "192.0.2.6 is the VM address of the host on line 10",
        "10.1.0.0/16 has a route already, on line 9",
    ]
