"""The VM's static MAC address, derived from its name."""

from __future__ import annotations

import hashlib
from itertools import count

_OUI = "00155d"  # Hyper-V's own


def static_mac(vm_name: str, *, pool: tuple[str, str] | None = None) -> str:
    """The same address for the same name, as 00:15:5d:01:02:03.

    `pool` is the host's range for dynamic addresses, first and last: the address lies outside it.
    """
    numbers = (_number(_OUI + _digest(f"{vm_name}/{salt}")[:6]) for salt in count())
    low, high = map(_number, pool or ("0", "0"))
    return next(number for number in numbers if not low <= number <= high).to_bytes(6).hex(":")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _number(address: str) -> int:
    return int(address.replace(":", "").replace("-", ""), 16)
