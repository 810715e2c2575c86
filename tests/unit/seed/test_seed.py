from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from vmproxy import seed
from vmproxy.errors import SiteError, UsageError
from vmproxy.model import names
from vmproxy.model.mac import static_mac
from vmproxy.model.topology import compile_site
from vmproxy.seed import cloudconfig, iso
from vmproxy.site.model import Site

USER_KEY = "ssh-ed25519 AAAAuser operator"
MAC = "00:15:5d:00:00:01"


def site(custom: Path | None = None, **network: Any) -> Site:
    return Site.model_validate(
        {
            "name": "plant-a",
            "cloudInit": {"userData": custom},
            "hosts": [
                {
                    "name": "win-01",
                    "qemu": {},
                    "network": {
                        "address": "192.168.10.5/24",
                        "gateway": "192.168.10.1",
                        "dns": ["192.168.10.2"],
                        **network,
                    },
                }
            ],
        }
    )


def spec(site: Site, *, user_key: str = USER_KEY) -> seed.Seed:
    topology = compile_site(site)
    return seed.spec(topology.members[0].vm, topology.cloud_init, user_key=user_key, mac=MAC)


def custom(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.j2"
    path.write_text(text, encoding="utf-8")
    return path


def parsed(site: Site, *, key: seed.HostKey | None = None) -> dict[str, Any]:
    """The documents as cloud-init reads them."""
    host_key = key or seed.HostKey(private="PRIVATE", public="PUBLIC")
    return {
        name: cloudconfig.parse(text) for name, text in seed.documents(spec(site), host_key=host_key).items()
    }


def user_data(tmp_path: Path, text: str) -> dict[str, Any]:
    return dict(parsed(site(custom(tmp_path, text)))["user-data"])


def test_the_guest_gets_our_host_key_and_the_operators_key() -> None:
    ours = parsed(site())["user-data"]
    assert ours["ssh_keys"] == {"ed25519_private": "PRIVATE", "ed25519_public": "PUBLIC"}
    assert ours["ssh_authorized_keys"] == [USER_KEY]
    assert ours["disable_root"] is False
    assert "PasswordAuthentication no\n" in ours["write_files"][0]["content"]
    assert ours["ssh_deletekeys"] is True


def card(site: Site) -> dict[str, Any]:
    (only,) = parsed(site)["network-config"]["config"]
    return dict(only)


def test_the_network_is_static_on_the_adapter_of_our_mac() -> None:
    assert card(site()) == {
        "type": "physical",
        "name": "eth0",
        "mac_address": MAC,
        "accept-ra": False,
        "subnets": [
            {
                "type": "static",
                "address": "192.168.10.5/24",
                "gateway": "192.168.10.1",
                "dns_nameservers": ["192.168.10.2"],
            }
        ],
    }


def test_a_site_without_dns_has_no_name_servers() -> None:
    assert "dns_nameservers" not in card(site(dns=[]))["subnets"][0]


def test_our_own_user_data_satisfies_cloud_inits_schema() -> None:
    assert list(cloudconfig.mistakes(parsed(site())["user-data"])) == []


def test_the_instance_id_follows_the_seeds_hash() -> None:
    assert parsed(site())["meta-data"]["instance-id"] == f"vmproxy-{spec(site()).hash[:16]}"


def test_the_hash_is_the_same_for_the_same_site() -> None:
    assert spec(site()) == spec(site())


@pytest.mark.parametrize(
    "other",
    [
        spec(site(gateway="192.168.10.2")),
        spec(site(address="192.168.10.6/24")),
        spec(site(dns=[])),
        spec(site(), user_key="ssh-ed25519 BBBB"),
    ],
)
def test_the_hash_changes_with_what_the_guest_is_told(other: seed.Seed) -> None:
    assert other.hash != spec(site()).hash


def test_what_is_set_over_ssh_or_at_the_switch_leaves_the_hash_alone() -> None:
    other = site(vlan=7, podRoutes="nodes", routes=[{"to": "10.0.0.0/8", "via": "192.168.10.9"}])
    assert spec(other).hash == spec(site()).hash


def test_the_hash_changes_with_the_users_cloud_config(tmp_path: Path) -> None:
    mine = site(custom(tmp_path, "#cloud-config\nruncmd: [id]\n"))
    assert spec(mine).hash != spec(site()).hash


def test_the_iso_is_the_same_for_the_same_key_and_has_all_three_files() -> None:
    key = seed.new_host_key()
    image = seed.build(spec(site()), host_key=key)
    assert image == seed.build(spec(site()), host_key=key)
    assert files_in(image) == seed.documents(spec(site()), host_key=key)


def files_in(image: bytes) -> dict[str, str]:
    volume = pycdlib.PyCdlib()
    volume.open_fp(io.BytesIO(image))
    names = [child.file_identifier().decode("utf-16-be") for child in volume.list_children(joliet_path="/")]
    found = {name: content(volume, name) for name in names if "-" in name}
    volume.close()
    return found


def content(volume: pycdlib.PyCdlib, name: str) -> str:
    target = io.BytesIO()
    volume.get_file_from_iso_fp(target, joliet_path=f"/{name}")
    return target.getvalue().decode()


def test_the_volume_is_labelled_for_nocloud_and_carries_no_time() -> None:
    image = iso.image("cidata", {"user-data": b"x" * 5000, "meta-data": b""})
    assert image[16 * 2048 + 40 : 16 * 2048 + 46] == b"cidata"
    assert image[16 * 2048 + 813 : 16 * 2048 + 830] == b"0" * 16 + b"\0"
    assert files_in(image) == {"user-data": "x" * 5000, "meta-data": ""}


def test_many_files_in_the_iso_are_all_found_again() -> None:
    many = {f"name-{number:03}-{'x' * 30}": str(number).encode() for number in range(60)}
    image = iso.image("cidata", many)
    assert files_in(image) == {name: body.decode() for name, body in many.items()}
    assert image == iso.image("cidata", many)


def test_lists_of_the_user_come_after_ours_and_mappings_are_merged(tmp_path: Path) -> None:
    merged = user_data(
        tmp_path,
        "#cloud-config\nssh_authorized_keys: [ssh-ed25519 CCCC]\n"
        "apt: {conf: 'x \"1\";'}\nruncmd: [[echo, hi]]\n",
    )
    assert merged["ssh_authorized_keys"] == [USER_KEY, "ssh-ed25519 CCCC"]
    assert merged["apt"] == {"preserve_sources_list": True, "conf": 'x "1";'}
    assert merged["runcmd"] == [["echo", "hi"]]


def test_what_cloud_init_writes_for_logging_in_is_known_unless_the_user_writes_too(tmp_path: Path) -> None:
    files = seed.written(spec(site()))
    assert files[names.AUTHORIZED_KEYS] == f"{USER_KEY}\n"
    assert files[names.SSHD].splitlines()[0] == "PasswordAuthentication no"
    assert seed.written(spec(site(custom(tmp_path, "#cloud-config\nruncmd: [echo]\n")))) == {}


def test_scalars_of_the_user_replace_ours(tmp_path: Path) -> None:
    assert user_data(tmp_path, "#cloud-config\nlocale: de_DE.UTF-8\n")["locale"] == "de_DE.UTF-8"


def test_with_user_data_no_module_of_the_image_is_left_out(tmp_path: Path) -> None:
    assert "cloud_final_modules" in parsed(site())["user-data"]
    assert "cloud_final_modules" not in user_data(tmp_path, "#cloud-config\npackages: [tcpdump]\n")


def test_an_empty_cloud_config_of_the_user_is_fine(tmp_path: Path) -> None:
    assert "packages" not in user_data(tmp_path, "#cloud-config\n")


def test_the_users_template_knows_the_host(tmp_path: Path) -> None:
    names = ["site", "host", "vm", "acts_for", "address", "prefix_length", "gateway", "dns", "mac"]
    template = "#cloud-config\nfinal_message: |\n" + "".join(f"  {{{{ {name} }}}}\n" for name in names)
    assert user_data(tmp_path, template)["final_message"].splitlines() == [
        "plant-a",
        "win-01",
        "vmproxy-plant-a-win-01",
        "None",
        "192.168.10.5",
        "24",
        "192.168.10.1",
        "['192.168.10.2']",
        MAC,
    ]


def test_user_data_is_read_as_cloud_init_reads_it(tmp_path: Path) -> None:
    """YAML 1.1: `yes` is true, 0644 is octal; strings that look like something else stay strings."""
    merged = user_data(
        tmp_path,
        "#cloud-config\npackage_upgrade: yes\n"
        "write_files: [{path: /a, permissions: '0644', content: 'yes'}]\n"
        "users: [{name: tmp, expiredate: 2030-01-01}]\n",
    )
    assert merged["package_upgrade"] is True
    assert merged["write_files"][1:] == [{"path": "/a", "permissions": "0644", "content": "yes"}]
    assert merged["users"][0]["expiredate"] == "2030-01-01"


HOSTILE = ['"', "'", "a\nb", "{{ 1 }}", "# x", ": ", "- a", "é漢\N{GRINNING FACE}", "\x85\u2028", "%", "\\"]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_reach_the_guest_unchanged(value: str) -> None:
    hostile = replace(
        spec(site()), values=dict.fromkeys(spec(site()).values, value) | {"dns": [value], "alone": False}
    )
    documents = {
        name: cloudconfig.parse(text)
        for name, text in seed.documents(hostile, host_key=seed.HostKey(value, value)).items()
    }
    assert documents["user-data"]["hostname"] == value
    assert documents["user-data"]["ssh_keys"] == {"ed25519_private": value, "ed25519_public": value}
    assert documents["user-data"]["ssh_authorized_keys"] == [value]
    assert documents["meta-data"]["local-hostname"] == value
    assert documents["network-config"]["config"][0]["mac_address"] == value
    assert documents["network-config"]["config"][0]["subnets"][0]["dns_nameservers"] == [value]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_of_the_user_survive_the_merge(value: str) -> None:
    text = cloudconfig.merged("#cloud-config\nruncmd: [a]\n", {"runcmd": [value], value: value})
    assert text.startswith("#cloud-config\n")
    assert cloudconfig.parse(text) == {"runcmd": ["a", value], value: value}


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        spec(site(custom(tmp_path, text)))
    return "\n".join([caught.value.message, *caught.value.details])


@pytest.mark.parametrize("key", ["ssh_keys", "ssh_deletekeys", "disable_root", "hostname", "merge_how"])
def test_what_vmproxy_depends_on_can_not_be_overridden(tmp_path: Path, key: str) -> None:
    assert f"{key}: cannot be set: " in complaint(tmp_path, f"#cloud-config\n{key}: x\n")


def test_every_mistake_in_the_users_cloud_config_is_reported_at_once(tmp_path: Path) -> None:
    said = complaint(tmp_path, "#cloud-config\nssh_keys: {}\nruncmd: 5\npackage_update: maybe\nrunmcd: []\n")
    assert "4 mistakes" in said
    assert "ssh_keys: cannot be set" in said
    assert "runcmd: 5 is not of type 'array'" in said
    assert "package_update: 'maybe' is not of type 'boolean'" in said
    assert "'runmcd' was unexpected" in said


def test_a_script_instead_of_a_cloud_config_is_refused(tmp_path: Path) -> None:
    assert "first line is not #cloud-config" in complaint(tmp_path, "#!/bin/sh\n")


def test_wrong_yaml_of_the_user_is_named_with_its_line(tmp_path: Path) -> None:
    assert "line 3, column" in complaint(tmp_path, "#cloud-config\na: b\nc: ]\n")


def test_a_control_character_of_the_user_is_named_with_its_file(tmp_path: Path) -> None:
    said = complaint(tmp_path, "#cloud-config\na: b\x07\n")
    assert str(tmp_path / "mine.j2") in said
    assert "special characters are not allowed" in said


def test_binary_values_of_the_user_are_refused(tmp_path: Path) -> None:
    assert "binary values" in complaint(tmp_path, "#cloud-config\nwrite_files: [{content: !!binary aGk=}]\n")


def test_a_list_instead_of_a_mapping_is_refused(tmp_path: Path) -> None:
    assert "not a mapping" in complaint(tmp_path, "#cloud-config\n- a\n")


def test_an_unknown_variable_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hostt") as caught:
        spec(site(custom(tmp_path, "#cloud-config\nfinal_message: {{ hostt }}\n")))
    assert "host, mac" in (caught.value.hint or "")


def test_missing_user_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.j2"):
        spec(site(tmp_path / "none.j2"))


def test_schema_mistakes_do_not_hide_behind_protected_keys(tmp_path: Path) -> None:
    with pytest.raises(SiteError):
        spec(site(custom(tmp_path, "#cloud-config\nssh_keys: 5\n")))


def test_the_mac_is_stable_and_microsofts() -> None:
    assert static_mac("vmproxy-a-b") == static_mac("vmproxy-a-b")
    assert static_mac("vmproxy-a-b").startswith("00:15:5d:")
    assert static_mac("vmproxy-a-b") != static_mac("vmproxy-a-c")


def test_the_mac_stays_out_of_the_hosts_dynamic_pool() -> None:
    first = static_mac("vm")
    other = static_mac("vm", pool=(first.replace(":", "-").upper(), first))
    assert other != first
    assert other == static_mac("vm", pool=(first, first))


REFERENCE = (Path(__file__).parents[3] / "docs" / "site-file.md").read_text(encoding="utf-8")


def test_the_reference_lists_what_a_template_may_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        spec(site(custom(tmp_path, "#cloud-config\n{{ none_such }}\n")))
    offered = (caught.value.hint or "").removeprefix("available variables: ").split(", ")
    assert sorted(re.findall(r"^\| \{\{(\w+)\}\} \|", REFERENCE, re.MULTILINE)) == offered


def test_the_references_example_of_user_data_works(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(#cloud-config\n.*?)```", REFERENCE, re.DOTALL)
    assert example
    merged = user_data(tmp_path, example[1])
    assert merged["write_files"][1:] == [
        {"path": "/etc/motd", "content": "proxy VM of win-01 at 192.168.10.5"}
    ]


def test_the_reference_names_every_protected_key() -> None:
    last = REFERENCE.partition("cannot set them")[2]
    assert set(re.findall(r"`(\w+)`", last)) == set(cloudconfig.PROTECTED)


BOM = "\ufeff"


@pytest.mark.parametrize(
    "start",
    [
        "## template: jinja\n",
        "##template:jinja\r\n",
        "## Template: Jinja \n",
        f"{BOM}",
        f"{BOM}## template: jinja\n",
    ],
    ids=ascii,
)
def test_a_mark_before_the_header_is_taken_off(tmp_path: Path, start: str) -> None:
    merged = user_data(tmp_path, f"{start}#cloud-config\r\ntimezone: {{{{ host }}}}\r\n")
    assert merged["timezone"] == "win-01"


def test_user_data_saved_by_windows_as_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.j2"
    path.write_text("#cloud-config\ntimezone: Zürich\n", encoding="utf-16")
    text = seed.documents(spec(site(path)), host_key=seed.HostKey(private="", public=""))["user-data"]
    assert cloudconfig.parse(text)["timezone"] == "Zürich"


@pytest.mark.parametrize("name", ["y", "n", "Y", "N", "1e3", "0o17", "1:60x", "~x"])
def test_a_plain_word_is_text_where_cloud_init_reads_text(tmp_path: Path, name: str) -> None:
    merged = user_data(tmp_path, f"#cloud-config\nusers:\n- name: {name}\n- {name}\n")
    assert merged["users"][-2:] == [{"name": name}, name]


def test_merge_keys_and_aliases_of_the_user_work(tmp_path: Path) -> None:
    merged = user_data(
        tmp_path,
        "#cloud-config\nwrite_files:\n- &a {path: /a, owner: root}\n"
        "- {<<: *a, path: /b}\n- {<<: [*a], path: /c}\n",
    )
    assert [item["path"] for item in merged["write_files"][-3:]] == ["/a", "/b", "/c"]
    assert {item["owner"] for item in merged["write_files"][-3:]} == {"root"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timezone: a\ntimezone: b", "timezone is given twice at line 3"),
        pytest.param("runcmd: " + "[" * 5000 + "]" * 5000, "nested too deeply", id="deep"),
        ("bootcmd: [[.inf]]", "inf is not supported"),
        ("a: !!set {b}", "sets"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: *nothing", "undefined alias"),
    ],
)
def test_what_no_guest_could_read_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, f"#cloud-config\n{text}\n")


def test_what_render_shows_of_the_users_cloud_config_has_no_secret(tmp_path: Path) -> None:
    config = """#cloud-config
password: s3cret
chpasswd: {users: [{name: a, password: s3cret}], expire: false}
users: [{name: b, passwd: s3cret, hashed_passwd: s3cret, plain_text_passwd: s3cret, groups: [adm]}]
write_files: [{path: /etc/x, content: s3cret}]
timezone: UTC
"""
    shown = seed.redacted(spec(site(custom(tmp_path, config))))
    text = seed.documents(shown, host_key=seed.HostKey(private="", public=""))["user-data"]
    assert "s3cret" not in text
    for kept in ("/etc/x", "adm", "UTC"):
        assert kept in text
