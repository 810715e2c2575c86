from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.served import serving
from vmproxy.image import Download, download_of, packed
from vmproxy.site import model

VHDX = b"vhdxfile" + bytes(1 << 20)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cache is where the environment says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return iter([None])


def quiet(_text: str) -> None:
    """Progress that nobody reads."""


@pytest.mark.parametrize(
    "url", ["https://images/debian.vhdx", "http://images/debian.vhdx.gz?signature=a%2Fb"]
)
def test_a_published_vhdx_can_be_fetched_by_the_host(url: str) -> None:
    wanted = model.Image.model_validate({"url": url, "sha256": "a" * 64})
    assert download_of(wanted) == Download(url, "a" * 64)


@pytest.mark.parametrize(
    "wanted",
    [
        {"url": "https://images/debian.qcow2", "sha256": "a" * 64},
        {"url": "https://images/debian.vhdx.xz", "sha256": "a" * 64},
        {"url": "file:///srv/debian.vhdx", "sha256": "a" * 64},
        {"name": "debian-13"},
    ],
)
def test_anything_else_has_to_be_converted_or_sent(wanted: dict[str, str]) -> None:
    assert download_of(model.Image.model_validate(wanted)) is None


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_for_a_host_that_can_not_fetch_it_is_fetched_here_and_packed_once(pack: object) -> None:
    assert callable(pack)
    content = pack(VHDX)
    with serving({"/debian.vhdx": content}) as served:
        source = Download(f"{served.url}/debian.vhdx", hashlib.sha256(content).hexdigest())
        assert gzip.decompress(packed(source, report=quiet).read_bytes()) == VHDX
        packed(source, report=quiet)
    assert len(served.asked) == 1


def test_what_may_be_a_secret_in_a_url_is_not_shown() -> None:
    source = Download("https://anna:s3cret@images:8443/debian.vhdx?sig=s3cret#x", "a" * 64)
    assert source.shown == "https://images:8443/debian.vhdx"
