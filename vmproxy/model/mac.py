"""The VM's static MAC address, derived from its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_OUI = "00155d"  # Hyper-V's own
_LOCAL = "02155d"
_TRIES = 64


def static_mac(vm_name: str, *, pool: tuple[str, str] | None = None) -> str:
    """The same address for the same name, as 00:15:5d:01:02:03.

    `pool` is the host's range for dynamic addresses, first and last: the address lies outside it; where
    it takes all of Hyper-V's own, the address is a locally administered one.
    """
    low, high = map(_number, pool or ("0", "0"))
    numbers = map(_number, _candidates(vm_name))
    return next(number for number in numbers if not low <= number <= high).to_bytes(6).hex(":")


def _candidates(vm_name: str) -> Iterator[str]:
    for salt in range(_TRIES):
        yield _OUI + _digest(f"{vm_name}/{salt}")[:6]
    yield _LOCAL + _digest(vm_name)[:6]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _number(address: str) -> int:
    return int(address.replace(":", "").replace("-", ""), 16)
