"""The VM's static MAC address, derived from its name."""

from __future__ import annotations

import hashlib
from itertools import count

_OUI = "00155d"  # Hyper-V's own


def static_mac(vm_name: str, *, pool: tuple[str, str] | None = None) -> str:
    """The same address for the same name, as 00:15:5d:01:02:03.

    `pool` is the host's range for dynamic addresses, first and last: the address lies outside it.
    """
    for salt in count():
        digest = hashlib.sha256(f"{vm_name}/{salt}".encode()).hexdigest()
        number = _OUI + digest[:6]
        if pool is None or not _number(pool[0]) <= int(number, 16) <= _number(pool[1]):
            return ":".join(number[i : i + 2] for i in range(0, 12, 2))
    raise AssertionError("count() has no end")


def _number(address: str) -> int:
    return int(address.replace(":", "").replace("-", ""), 16)
