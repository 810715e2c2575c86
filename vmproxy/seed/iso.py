"""A small, reproducible ISO 9660 image with Joliet names; the only module that uses pycdlib."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

_SECTOR = 2048
_DESCRIPTORS = 16 * _SECTOR
_ROOT_RECORD = 156
_VOLUME_DATES = slice(813, 881)  # created, modified, expires, effective: 17 bytes each
_RECORD_DATE = slice(18, 25)
_NO_DATE = b"0" * 16 + b"\0"
_EPOCH = bytes([70, 1, 1, 0, 0, 0, 0])  # years since 1900, month, day, hour, minute, second, zone


def image(label: str, files: Mapping[str, bytes]) -> bytes:
    """An image with `files` in its root folder, in any order."""
    import pycdlib  # noqa: PLC0415 (slow, and only a new VM has a seed)

    volume = pycdlib.PyCdlib()
    volume.new(interchange_level=1, vol_ident=label, joliet=3)
    for number, name in enumerate(sorted(files)):
        content = files[name]
        volume.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", joliet_path=f"/{name}")
    target = io.BytesIO()
    volume.write_fp(target)
    volume.close()
    return _without_dates(bytearray(target.getvalue()))


def _without_dates(raw: bytearray) -> bytes:
    """pycdlib writes the current time into volume descriptors and directory records."""
    for descriptor in _descriptors(raw):
        raw[descriptor + _VOLUME_DATES.start : descriptor + _VOLUME_DATES.stop] = _NO_DATE * 4
        root = descriptor + _ROOT_RECORD
        for record in (root, *_records(raw, root)):
            raw[record + _RECORD_DATE.start : record + _RECORD_DATE.stop] = _EPOCH
    return bytes(raw)


def _descriptors(raw: bytearray) -> Iterator[int]:
    """Offsets of the primary (type 1) and the Joliet (2) volume descriptor; 255 ends the list."""
    position = _DESCRIPTORS
    while raw[position] != 255:
        if raw[position] in (1, 2):
            yield position
        position += _SECTOR


def _records(raw: bytearray, root: int) -> Iterator[int]:
    """Offsets of the root folder's records. No record crosses a sector; zeros fill the rest of it."""
    start = int.from_bytes(raw[root + 2 : root + 6], "little") * _SECTOR
    end = start + int.from_bytes(raw[root + 10 : root + 14], "little")
    while start < end:
        length = raw[start]
        if length:
            yield start
        start += length or _SECTOR - start % _SECTOR
