"""A program is compressed once, whole, and only if it is the one that was meant."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pytest

from vmproxy.binaries.pack import packed
from vmproxy.errors import BadArtifact

CONTENT = os.urandom(3 << 20) + bytes(1 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "kube-proxy"
    path.write_bytes(CONTENT)
    return path


def test_the_whole_program_is_in_it(program: Path) -> None:
    assert zlib.decompress(packed(program, SHA256).read_bytes()) == CONTENT


def test_it_is_made_once(program: Path) -> None:
    first = packed(program, SHA256)
    made = first.stat()
    assert packed(program, SHA256) == first
    assert first.stat() == made


def test_another_program_has_another_one(program: Path) -> None:
    older = packed(program, SHA256)
    program.write_bytes(b"newer")
    newer = packed(program, hashlib.sha256(b"newer").hexdigest())
    assert newer != older
    assert zlib.decompress(newer.read_bytes()) == b"newer"


def test_a_program_that_is_not_the_one_meant_is_refused_and_nothing_is_kept(program: Path) -> None:
    program.write_bytes(CONTENT[:-1])
    with pytest.raises(BadArtifact, match="kube-proxy"):
        packed(program, SHA256)
    assert [path.name for path in program.parent.iterdir() if not path.name.endswith(".lock")] == [
        program.name
    ]
    program.write_bytes(CONTENT)
    assert zlib.decompress(packed(program, SHA256).read_bytes()) == CONTENT
