"""What the real artifacts know without fetching or building, and that nothing is made by looking."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.memory import topology
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
