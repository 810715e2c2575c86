"""vm.json, the definition of a VM of the embedded host, as it may be after somebody edited it."""

from __future__ import annotations

import json
import os
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from tests.unit.guest.test_answers import JUNK, places
from tests.values import route
from vmproxy.errors import VmproxyError
from vmproxy.hosts.linux.vm import ONLY_OWNER, Definition, QemuVm
from vmproxy.model.seen import Marker

GOOD = Definition(
    {"cpus": 2, "memory": 512 << 20, "mac": "00:15:5d:00:00:01", "switch": "br0", "vlan": 0, "more": "x"},
    Marker(
        "a",
        "b",
        ip_interface("192.168.10.5/24"),
        "5" * 64,
        "1" * 64,
        "ssh-ed25519 AAAA",
        (route("10.0.0.0/8", "192.168.10.5"),),
    ),
)


def vm(folder: Path) -> QemuVm:
    return QemuVm("vmproxy-a-b", folder=folder, switch_namespace="none")


def test_a_definition_is_read_as_it_was_written(tmp_path: Path) -> None:
    vm(tmp_path).define(GOOD)
    assert vm(tmp_path).definition() == GOOD


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"5", b"{", b"\xff", b"[" * 100_000, b'{"marker": null, "settings": {}}']
)
def test_a_file_that_is_none_is_an_error_with_its_path(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "vm.json").write_bytes(text)
    with pytest.raises(VmproxyError, match=str(tmp_path / "vm.json")):
        vm(tmp_path).definition()


def written(folder: Path) -> Any:
    vm(folder).define(GOOD)
    return json.loads((folder / "vm.json").read_text())


def test_whatever_value_is_edited_it_is_an_error_or_a_definition(tmp_path: Path) -> None:
    good = written(tmp_path)
    for path in [path for path in places(good) if path]:
        for junk in JUNK:
            edited = json.loads(json.dumps(good))
            at = edited
            for part in path[:-1]:
                at = at[part]
            at[path[-1]] = junk
            (tmp_path / "vm.json").write_text(json.dumps(edited))
            try:
                found = vm(tmp_path).definition()
            except VmproxyError:
                continue
            assert found is not None
            assert int(found.settings["memory"]) is not None


@pytest.mark.parametrize(
    ("part", "key"),
    [("settings", "memory"), ("settings", "vlan"), ("marker", "seed"), ("marker", "host_key")],
)
def test_a_key_that_was_removed_is_named(tmp_path: Path, part: str, key: str) -> None:
    edited = written(tmp_path)
    del edited[part][key]
    (tmp_path / "vm.json").write_text(json.dumps(edited))
    with pytest.raises(VmproxyError, match=key):
        vm(tmp_path).definition()


def test_a_hash_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    edited = written(tmp_path)
    edited["marker"]["seed"] = "../../x"
    (tmp_path / "vm.json").write_text(json.dumps(edited))
    with pytest.raises(VmproxyError, match=r"marker\.seed is not a hash"):
        vm(tmp_path).definition()


def test_a_folder_that_others_may_enter_is_told_and_closed(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir(mode=0o700)
    assert vm(folder).access() == ONLY_OWNER
    folder.chmod(0o755)
    assert vm(folder).access() == f"0755 of user {os.geteuid()}"
    vm(folder).protect()
    assert vm(folder).access() == ONLY_OWNER
