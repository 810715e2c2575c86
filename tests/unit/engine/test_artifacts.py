"""What the real artifacts know without fetching or building, and that nothing is made by looking."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.memory import topology
from vmproxy import seed
from vmproxy.engine.artifacts import Artifacts
from vmproxy.hosts.hyperv.kind import HYPERV
from vmproxy.hosts.linux.kind import LINUX
from vmproxy.model.topology import compile_site
from vmproxy.site.model import Site

VHDX = {"url": "https://a.example/x.vhdx.gz", "sha256": "a" * 64}


@pytest.fixture(autouse=True)
def _offline_and_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")


def test_an_empty_cache_is_looked_at_without_making_anything(tmp_path: Path) -> None:
    artifacts = Artifacts(topology())
    assert artifacts.base(LINUX).sha256 is None
    assert artifacts.base(LINUX).how == "built from the packages of Debian trixie"
    program = artifacts.program("v1.36.3")
    assert (program.here, program.sha256, program.name) == (False, None, "v1.36.3 from https://dl.k8s.io")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_image_that_a_host_fetches_itself_is_known_by_its_checksum() -> None:
    host = {
        "name": "w",
        "hyperv": {"endpoint": "https://w:5986"},
        "network": {"address": "192.0.2.5/24", "gateway": "192.0.2.1"},
    }
    artifacts = Artifacts(compile_site(Site.model_validate({"name": "a", "image": VHDX, "hosts": [host]})))
    assert (artifacts.base(HYPERV).recipe, artifacts.base(HYPERV).sha256) == ("a" * 64, "a" * 64)
    assert artifacts.base(LINUX).sha256 is None


def test_what_a_vm_is_made_of_comes_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program = tmp_path / "kube-proxy"
    program.write_bytes(b"x")
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes((1 << 20) - 512))
    host = {"name": "win-01", "qemu": {}, "network": {"address": "192.0.2.5/24", "gateway": "192.0.2.1"}}
    binary = {"url": program.as_uri(), "sha256": hashlib.sha256(b"x").hexdigest()}
    site = {"name": "a", "image": {"path": str(disk)}, "proxy": {"binary": binary}}
    of = compile_site(Site.model_validate({**site, "hosts": [host]}))
    artifacts, said = Artifacts(of), list[str]()
    assert artifacts.user_key().startswith("ssh-ed25519 ")
    assert artifacts.user_key_file().stat().st_mode & 0o777 == 0o600
    assert not artifacts.fetched_by_host(LINUX)
    artifacts.get_program("v1.36.3", said.append)
    assert artifacts.program("v1.36.3").here
    artifacts.get_image(LINUX, said.append)
    spec = seed.spec(of.members[0].vm, of.cloud_init, user_key=artifacts.user_key(), mac="00:15:5d:00:00:07")
    delivery = artifacts.deliver(spec, LINUX, said.append)
    assert delivery.image().stat().st_size == 1 << 20
    assert delivery.host_key.startswith("ssh-ed25519 ")
    assert b"CIDATA" in delivery.seed.upper()
    assert delivery.download is None
