"""What is known of an image without building, fetching or converting it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.image.test_fetch import DISK, quiet, sha256
from vmproxy import image
from vmproxy.errors import BadArtifact, UsageError
from vmproxy.image import cache
from vmproxy.image.age import age, days
from vmproxy.image.build import recipe
from vmproxy.site import model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def kept(key: str, content: bytes, tmp_path: Path, name: str = "debian-13") -> cache.Image:
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    return cache.keep(key, disk, name=name, origin="built")


def test_a_built_image_is_known_by_its_recipe_before_it_is_there(tmp_path: Path) -> None:
    key = recipe("trixie").key
    base = image.base(model.Image(name="debian-13"))
    assert (base.recipe, base.sha256) == (key, None)
    assert base.name == "to be built from the packages of Debian trixie"
    found = kept(key, DISK, tmp_path)
    base = image.base(model.Image(name="debian-13"))
    assert (base.recipe, base.sha256, base.made) == (key, found.sha256, found.day)
    assert age(base.made) == 0


def test_a_newer_image_of_the_same_recipe_takes_the_place_of_the_older(tmp_path: Path) -> None:
    first = kept("debian-13-x", DISK, tmp_path)
    (cache.folder() / f"{first.sha256}.vhdx.gz").write_bytes(b"converted")
    second = kept("debian-13-x", DISK + b"\1", tmp_path)
    assert cache.listing() == [second]
    assert not list(cache.folder().glob(f"{first.sha256}*"))


def test_a_file_is_known_by_its_content_not_by_its_time(tmp_path: Path) -> None:
    path = tmp_path / "own.img"
    path.write_bytes(DISK)
    wanted = model.Image(path=path)
    assert image.base(wanted).sha256 is None
    found = image.use_file(path, report=quiet)
    os.utime(path, (1, 1))
    assert image.base(wanted).sha256 == found.sha256
    path.unlink()
    gone = image.base(wanted)
    assert isinstance(gone.problem, BadArtifact)
    assert "own.img" in gone.problem.message


def test_an_image_by_its_url_is_known_by_its_checksum() -> None:
    wanted = model.Image.model_validate({"url": "https://u:p@a.example/d.qcow2?t=1", "sha256": "a" * 64})
    base = image.base(wanted)
    assert base.recipe == f"d-{'a' * 12}"
    assert base.how == "fetched from https://a.example/d.qcow2"


def test_an_image_of_an_unknown_name_is_no_error_before_it_is_needed() -> None:
    base = image.base(model.Image(name="plan-9"))
    assert (base.recipe, base.sha256) == ("name:plan-9", None)
    assert isinstance(base.problem, UsageError)
    assert "debian-13" in str(base.problem.hint)


@pytest.mark.parametrize("note", ["", "[]", "null", "{}", '{"size": "x"}', "\xff"])
def test_a_damaged_note_is_no_image(tmp_path: Path, note: str) -> None:
    found = kept("a", DISK, tmp_path)
    found.raw.with_suffix(".json").write_text(note, encoding="latin-1")
    assert cache.listing() == []


def test_an_older_note_has_the_disks_own_time(tmp_path: Path) -> None:
    found = kept("a", DISK, tmp_path)
    note = found.raw.with_suffix(".json")
    note.write_text(
        json.dumps({key: value for key, value in json.loads(note.read_text()).items() if key != "made"})
    )
    os.utime(found.raw, (86400, 86400))
    (again,) = cache.listing()
    assert (again.day, again.sha256) == ("1970-01-02", sha256(DISK))


def test_an_age_is_in_days_or_unknown() -> None:
    today = datetime.now(UTC).date()
    assert days(str(today - timedelta(days=1))) == "1 day"
    assert age(str(today - timedelta(days=90))) == 90
    assert age(str(today + timedelta(days=3))) == 0
    assert (age(""), age("junk"), days("")) == (None, None, "")
