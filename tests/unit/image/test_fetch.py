from __future__ import annotations

import gzip
import hashlib
import lzma
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.served import serving
from vmproxy import image
from vmproxy.cli.image import fetch
from vmproxy.errors import BadArtifact, Unreachable, UsageError
from vmproxy.site import model

DISK = (b"\0" * 510 + b"\x55\xaa").ljust(1 << 20, b"\0")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cache is where the environment says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return iter([None])


def quiet(_text: str) -> None:
    """Progress that nobody reads."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_an_image_is_fetched_checked_and_unpacked(pack: object) -> None:
    assert callable(pack)
    content = pack(DISK)
    with serving({"/debian.img": content}) as served:
        found = image.fetch(f"{served.url}/debian.img", sha256=sha256(content), report=quiet)
    assert found.raw.read_bytes() == DISK
    assert (found.name, found.sha256, found.size) == ("debian", sha256(DISK), len(DISK))


def test_it_is_fetched_only_once(tmp_path: Path) -> None:
    with serving({"/debian.img": DISK}) as served:
        for _ in range(2):
            image.fetch(f"{served.url}/debian.img", sha256=sha256(DISK), report=quiet)
        assert len(served.asked) == 1


@pytest.mark.parametrize("kind", ["qcow2", "vpc", "vhdx"])
def test_other_formats_are_converted(tmp_path: Path, kind: str) -> None:
    (tmp_path / "disk.raw").write_bytes(DISK)
    made = tmp_path / f"disk.{kind}"
    subprocess.run(["qemu-img", "convert", "-O", kind, tmp_path / "disk.raw", made], check=True)
    found = image.use_file(made, report=quiet)
    assert found.raw.read_bytes()[: len(DISK)] == DISK


def test_a_wrong_checksum_is_refused_and_leaves_no_image() -> None:
    with serving({"/debian.img": DISK}) as served, pytest.raises(BadArtifact, match="SHA-256"):
        image.fetch(f"{served.url}/debian.img", sha256="0" * 64, report=quiet)
    assert image.listing() == []


def test_a_download_cut_off_midway_is_resumed() -> None:
    with serving({"/debian.img": DISK}, cuts=1) as served:
        image.fetch(f"{served.url}/debian.img", sha256=sha256(DISK), report=quiet)
        assert served.asked[-1][1] == f"bytes={len(DISK) // 2}-"


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.img").write_bytes(b"not a disk\n" * 1000)
    with pytest.raises(BadArtifact, match="not a disk image"):
        image.use_file(tmp_path / "notes.img", report=quiet)
    assert image.listing() == []


def test_a_gzip_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk.img.gz").write_bytes(gzip.compress(DISK)[:-9])
    with pytest.raises(BadArtifact, match="cannot unpack"):
        image.use_file(tmp_path / "disk.img.gz", report=quiet)


def test_a_changed_file_is_another_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(DISK)
    before = image.use_file(path, report=quiet)
    path.write_bytes(DISK + b"\0" * 512)
    assert image.use_file(path, report=quiet).sha256 != before.sha256


def test_an_unknown_name_tells_what_there_is() -> None:
    with pytest.raises(UsageError, match="plan-9") as caught:
        image.resolve(model.Image(name="plan-9"), report=quiet)
    assert "debian-13" in str(caught.value.hint)


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(Unreachable):
        image.fetch("http://127.0.0.1:9/x.img", sha256="0" * 64, report=quiet)


def test_a_vhdx_has_one_megabyte_blocks_and_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(DISK)
    found = image.use_file(tmp_path / "disk.img", report=quiet)
    first = image.vhdx(found, compressed=False, report=quiet)
    told = subprocess.run(["qemu-img", "info", first], capture_output=True, text=True, check=True).stdout
    assert "cluster_size: 1048576" in told
    stamp = first.stat().st_mtime_ns
    packed = image.vhdx(found, compressed=True, report=quiet)
    assert first.stat().st_mtime_ns == stamp
    assert gzip.decompress(packed.read_bytes()) == first.read_bytes()


def test_a_url_is_shown_and_kept_without_its_secrets(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(Unreachable) as caught:
        image.fetch("http://me:word@127.0.0.1:9/x.img?sig=secret", sha256="0" * 64, report=said.append)
    told = " ".join([*said, caught.value.message])
    assert "http://127.0.0.1:9/x.img" in told
    assert "word" not in told
    assert "secret" not in told


@pytest.mark.parametrize("words", [["http://[::1/x"], ["x"], ["http://h/x", "--name", "../x"]])
def test_what_is_no_url_or_no_name_is_said(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is not a URL|is not a valid image name"):
        fetch.main([*words, "--sha256", "0" * 64], standalone_mode=False)
