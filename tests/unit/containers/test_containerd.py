from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmproxy.containers import containerd
from vmproxy.containers.containerd import Folders, fragment


def test_version_2_is_the_table_of_containerd_1() -> None:
    assert fragment(2) == (
        "version = 2\n\n"
        '[plugins."io.containerd.grpc.v1.cri".cni]\n'
        '  bin_dir = "C:\\\\Program Files\\\\containerd\\\\cni\\\\bin"\n'
        '  conf_dir = "C:\\\\Program Files\\\\containerd\\\\cni\\\\conf"\n'
    )


def test_version_3_has_a_list_of_program_folders() -> None:
    read = tomllib.loads(fragment(3))
    assert read == {
        "version": 3,
        "plugins": {
            "io.containerd.cri.v1.runtime": {
                "cni": {
                    "bin_dirs": [r"C:\Program Files\containerd\cni\bin"],
                    "conf_dir": r"C:\Program Files\containerd\cni\conf",
                }
            }
        },
    }


@pytest.mark.parametrize("version", [2, 3])
def test_a_note_is_a_comment_whatever_is_in_it(version: containerd.Version) -> None:
    noted = fragment(version, note='the VM is\nthe "gateway" = 1\r\n[x] ' + "long " * 60)
    assert noted.startswith('# the VM is the "gateway" = 1  [x] long')
    assert tomllib.loads(noted) == tomllib.loads(fragment(version))


@pytest.mark.parametrize("version", [2, 3])
@given(
    folders=st.builds(Folders, st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
)
def test_any_folder_is_read_back_as_it_is(version: containerd.Version, folders: Folders) -> None:
    ((_, table),) = tomllib.loads(fragment(version, folders))["plugins"].items()
    used = table["cni"]
    assert used.get("bin_dir", *used.get("bin_dirs", [])) == folders.programs
    assert used["conf_dir"] == folders.configurations
