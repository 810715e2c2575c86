from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.unit.served import serving
from vmproxy.binaries import release
from vmproxy.errors import BadArtifact, Unreachable

PROGRAM = b"\x7fELF" + bytes(range(256)) * 20_000
PATH = "/release/v1.36.3/bin/linux/amd64/kube-proxy"


def site(content: bytes = PROGRAM, *, of: bytes = PROGRAM) -> dict[str, bytes]:
    return {PATH: content, f"{PATH}.sha256": hashlib.sha256(of).hexdigest().encode() + b"\n"}


def fetched(url: str, folder: Path) -> bytes:
    target = folder / "kube-proxy"
    release.fetch_program("kube-proxy", "v1.36.3", target, site=url, report=lambda text: None)
    return target.read_bytes()


def test_a_program_comes_with_its_checksum(tmp_path: Path) -> None:
    with serving(site()) as served:
        assert fetched(served.url, tmp_path) == PROGRAM


def test_a_wrong_checksum_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with serving(site(of=b"another")) as served, pytest.raises(BadArtifact, match="SHA-256"):
        fetched(served.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_said_with_its_address(tmp_path: Path) -> None:
    with serving({}) as served, pytest.raises(Unreachable, match="404"):
        fetched(served.url, tmp_path)


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(site(), cuts=2) as served:
        assert fetched(served.url, tmp_path) == PROGRAM
        ranges = [asked for path, asked in served.asked if path == PATH]
    assert ranges == [None, f"bytes={len(PROGRAM) // 2}-", f"bytes={len(PROGRAM) * 3 // 4}-"]


def test_a_download_that_is_cut_off_too_often_is_resumed_by_the_next_run(tmp_path: Path) -> None:
    with serving(site(), cuts=3) as served:
        with pytest.raises(Unreachable, match="cannot fetch"):
            fetched(served.url, tmp_path)
        assert fetched(served.url, tmp_path) == PROGRAM
        assert served.asked[-1][1] == f"bytes={len(PROGRAM) * 7 // 8}-"


def test_a_checksum_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with serving({PATH: PROGRAM, f"{PATH}.sha256": b"<html>"}) as served, pytest.raises(BadArtifact):
        fetched(served.url, tmp_path)


def test_a_site_that_does_not_answer_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="cannot fetch"):
        fetched("http://127.0.0.1:9", tmp_path)
