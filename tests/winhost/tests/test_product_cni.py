"""The CNI configuration on the emulated host: written, compared and removed, and only ever vmproxy's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.containers.test_cni import NETWORK
from tests.winhost.presence import require
from tests.winhost.tests.product import NAME, Windows, windows
from vmproxy.containers import cni
from vmproxy.errors import RemoteFailed
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.hosts.hyperv.session import Session
from vmproxy.model.names import HOST_LABEL, SITE_LABEL

pytestmark = pytest.mark.winhost
FOLDER = r"C:\Program Files\containerd\cni\conf"
FILE = cni.file_name("plant-a", "win-01")
PATH = rf"{FOLDER}\{FILE}"
CONTENT = cni.text(NETWORK)
LABELS = {SITE_LABEL: "plant-a", HOST_LABEL: "win-01"}


@dataclass
class Host:
    """One with containerd's folder of configurations."""

    windows: Windows
    session: Session

    @property
    def folder(self) -> Path:
        return self.windows.state.local(FOLDER)

    @property
    def file(self) -> Path:
        return self.folder / FILE

    def call(self, action: str, **more: Any) -> Any:
        return self.session.run("cni.ps1", action, {"action": action, "path": PATH, "labels": LABELS, **more})

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    require()
    with windows(tmp_path, version=getattr(request, "param", "2022")) as running, running.connect() as shell:
        session = Session(shell, "win-01", Paths(r"C:\ProgramData\vmproxy", NAME))
        session.run("lib.ps1", "load the functions")
        running.state.local(FOLDER).mkdir(parents=True)
        yield Host(running, session)


@pytest.mark.parametrize("host", ["2016", "2019", "2022", "2025"], indirect=True)
def test_written_seen_and_removed(host: Host) -> None:
    assert host.call("observe") == {"folder": True, "file": None, "others": []}
    host.call("write", content=CONTENT)
    assert host.file.read_bytes() == CONTENT.encode()
    sha256 = hashlib.sha256(CONTENT.encode()).hexdigest()
    assert host.call("observe")["file"] == {"sha256": sha256, "ours": True}
    host.call("remove")
    assert host.names() == []
    host.call("remove")  # nothing is left to do


def test_a_change_by_hand_is_seen_and_written_over(host: Host) -> None:
    host.call("write", content=CONTENT)
    changed = json.loads(CONTENT) | {"name": "other"}
    host.file.write_text(json.dumps(changed))
    seen = host.call("observe")["file"]
    assert seen["ours"]
    assert seen["sha256"] == hashlib.sha256(host.file.read_bytes()).hexdigest()
    host.call("write", content=CONTENT)
    assert host.file.read_bytes() == CONTENT.encode()
    assert host.names() == [FILE]


FOREIGN = (
    "",
    "not JSON",
    "[]",
    '"text"',
    '{"name": "cbr0"}',
    json.dumps({SITE_LABEL: "plant-a"}),
    json.dumps({SITE_LABEL: "plant-b", HOST_LABEL: "win-01"}),
    json.dumps({SITE_LABEL: "PLANT-A", HOST_LABEL: "win-01"}),
    json.dumps({SITE_LABEL: ["plant-a"], HOST_LABEL: "win-01"}),
    CONTENT[:-20],
)


def test_a_file_without_vmproxys_labels_is_never_changed(host: Host) -> None:
    for content in FOREIGN:
        host.file.write_text(content)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        assert host.call("observe")["file"] == {"sha256": sha256, "ours": False}
        for action in ("write", "remove"):
            with pytest.raises(RemoteFailed, match="is not vmproxy's: it does not have its labels"):
                host.call(action, content=CONTENT)
        assert host.file.read_text() == content
    assert host.names() == [FILE]


def test_a_link_of_that_name_is_foreign(host: Host) -> None:
    target = host.folder / "target.txt"
    target.write_text(CONTENT)
    host.file.symlink_to(target)
    assert host.call("observe")["file"] == {"sha256": "", "ours": False}
    for action in ("write", "remove"):
        with pytest.raises(RemoteFailed, match="is not vmproxy's"):
            host.call(action, content="{}")
    assert host.file.is_symlink()
    assert target.read_text() == CONTENT


def test_a_folder_of_that_name_is_foreign(host: Host) -> None:
    host.file.mkdir()
    (host.file / "kept").write_text("x")
    assert host.call("observe")["file"] == {"sha256": "", "ours": False}
    for action in ("write", "remove"):
        with pytest.raises(RemoteFailed, match="is not vmproxy's"):
            host.call(action, content=CONTENT)
    assert (host.file / "kept").read_text() == "x"


def test_a_missing_folder_is_told_apart_from_a_missing_file(host: Host) -> None:
    host.folder.rmdir()
    assert host.call("observe") == {"folder": False, "file": None, "others": []}
    with pytest.raises(RemoteFailed, match="no container runtime reads CNI configurations there"):
        host.call("write", content=CONTENT)
    host.call("remove")
    assert not host.folder.exists()


def test_other_configurations_are_named_and_kept(host: Host) -> None:
    for name in ("0-containerd-nat.conf", "20-flannel.conflist", "readme.txt", "x.json"):
        (host.folder / name).write_text("{}")
    host.call("write", content=CONTENT)
    assert sorted(host.call("observe")["others"]) == [
        "0-containerd-nat.conf",
        "20-flannel.conflist",
        "x.json",
    ]
    host.call("remove")
    assert host.names() == ["0-containerd-nat.conf", "20-flannel.conflist", "readme.txt", "x.json"]


def test_one_other_configuration_is_a_list_too(host: Host) -> None:
    (host.folder / "0-containerd-nat.conf").write_text("{}")
    assert host.call("observe")["others"] == ["0-containerd-nat.conf"]


def test_what_an_interrupted_run_left_is_written_over_and_removed(host: Host) -> None:
    part = host.folder / f"{FILE}.part"
    part.write_text("half")
    assert host.call("observe") == {"folder": True, "file": None, "others": []}
    host.call("write", content=CONTENT)
    assert host.names() == [FILE]
    part.write_text("half")
    host.call("remove")
    assert host.names() == []


def test_characters_outside_ascii_arrive_as_they_are(host: Host) -> None:
    content = json.dumps({**json.loads(CONTENT), "note": "größer 日本"}, ensure_ascii=False)
    host.call("write", content=content)
    assert host.file.read_bytes() == content.encode()
    assert host.call("observe")["file"]["ours"]
