"""The published bytes, whatever lies between: labels, cuts, busy servers, proxies."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from tests.unit.served import serving
from vmproxy.errors import BadArtifact, Unreachable, UsageError, VmproxyError
from vmproxy.util import download

PLAIN = b"disk" * 50_000
PACKED = gzip.compress(os.urandom(200_000))


@pytest.fixture(autouse=True)
def _no_pauses_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def quiet(_text: str) -> None:
    """No report."""


def fetched(url: str, folder: Path, content: bytes) -> bytes:
    target = folder / "file"
    download.fetch(url, target, sha256=hashlib.sha256(content).hexdigest(), report=quiet)
    return target.read_bytes()


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "deflate", "br", "zstd", "identity", "nonsense"])
@pytest.mark.parametrize("cuts", [0, 1, 2])
@pytest.mark.parametrize("content", [PACKED, PLAIN], ids=["packed", "plain"])
def test_the_stored_bytes_arrive_however_they_are_labelled_and_cut(
    tmp_path: Path, label: str, cuts: int, content: bytes
) -> None:
    with serving({"/x.gz": content}, cuts=cuts, headers={"Content-Encoding": label}) as served:
        assert fetched(f"{served.url}/x.gz", tmp_path, content) == content
        ranges = [asked for _, asked in served.asked]
    assert len(ranges) == cuts + 1
    assert ranges[1:2] == ([f"bytes={len(content) // 2}-"] if cuts else [])


@pytest.mark.parametrize("busy", [1, 2])
def test_a_busy_server_is_asked_again(tmp_path: Path, busy: int) -> None:
    with serving({"/x": PLAIN}, busy=busy) as served:
        assert fetched(f"{served.url}/x", tmp_path, PLAIN) == PLAIN
    with serving({"/x": b"text"}, busy=busy) as served:
        assert download.read_text(f"{served.url}/x") == "text"


def test_one_that_stays_busy_is_an_error_with_its_status(tmp_path: Path) -> None:
    with serving({"/x": PLAIN}, busy=9) as served:
        with pytest.raises(Unreachable, match="HTTP 503"):
            fetched(f"{served.url}/x", tmp_path, PLAIN)
        assert len(served.asked) == 3


def test_a_file_that_is_missing_is_asked_for_once(tmp_path: Path) -> None:
    with serving({}) as served:
        with pytest.raises(Unreachable, match="HTTP 404"):
            fetched(f"{served.url}/x", tmp_path, PLAIN)
        assert len(served.asked) == 1


def test_a_small_text_without_an_end_is_refused() -> None:
    with serving({"/x": b"x" * (2 << 20)}) as served, pytest.raises(BadArtifact, match="longer"):
        download.read_text(f"{served.url}/x")


WRONG = [
    "socks://127.0.0.1:1",
    "socks9://127.0.0.1:1",
    "ftp://a:1",
    "://",
    "http://[::1",
    "http://a:port",
    "junk",
]


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("value", WRONG)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    for work in (
        lambda: fetched("http://files.example/x", tmp_path, PLAIN),
        lambda: download.read_text("http://files.example/x"),
    ):
        with pytest.raises(VmproxyError) as caught:
            work()
        if isinstance(caught.value, UsageError):
            assert variable in caught.value.message + (caught.value.hint or "")


def test_a_login_in_a_proxys_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks9://me:s3cret@127.0.0.1:1")
    with pytest.raises(UsageError) as caught:
        download.read_text("http://files.example/x")
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_a_socks_proxy_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("all_proxy", f"{scheme}://127.0.0.1:7890")
    with pytest.raises(UsageError, match="all_proxy=socks") as caught:
        download.read_text("http://files.example/x")
    assert "SOCKS is not supported" in (caught.value.hint or "")


def test_what_is_no_address_is_a_usage_error(tmp_path: Path) -> None:
    for url in ("ftp://a.example/x", "http://[", "x"):
        with pytest.raises(VmproxyError):
            fetched(url, tmp_path, PLAIN)
