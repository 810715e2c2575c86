"""A program compressed once for all VMs that it is pushed to: a zlib stream next to the program."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import filelock

from vmproxy.errors import BadArtifact

_PIECE = 1 << 20
_LEVEL = 6


def packed(program: Path, sha256: str) -> Path:
    """The compressed file, created if missing. Raises BadArtifact if `program` has another hash."""
    target = program.with_name(f"{program.name}.{sha256[:16]}.zz")
    with filelock.FileLock(target.with_name(f"{target.name}.lock")):
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            _pack(program, part, sha256)
            part.replace(target)
    return target


def _pack(program: Path, target: Path, sha256: str) -> None:
    packer, summed = zlib.compressobj(_LEVEL), hashlib.sha256()
    with program.open("rb") as source, target.open("wb") as out:
        while piece := source.read(_PIECE):
            summed.update(piece)
            out.write(packer.compress(piece))
        out.write(packer.flush())
    if summed.hexdigest() != sha256:
        target.unlink()
        raise BadArtifact(
            f"cannot push {program}: it changed during compression",
            hint="run it again while nothing writes to that file",
        )
