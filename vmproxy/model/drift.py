"""What differs, for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"
"""How a thing that does not exist is written in a drift."""


@dataclass(frozen=True)
class Drift:
    """One difference. Values are for a reader: files appear by hash, secrets never."""

    field: str
    wanted: Any
    seen: Any


def differences(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> tuple[Drift, ...]:
    """A drift for each field of `wanted` that `seen` has otherwise or lacks; other fields do not count."""
    return tuple(
        Drift(name, value, seen.get(name, ABSENT))
        for name, value in wanted.items()
        if seen.get(name, ABSENT) != value
    )


def deep_differences(path: str, wanted: Any, seen: Any) -> list[Drift]:
    """Down to the field that differs; None is a field that does not exist."""
    if isinstance(wanted, dict) and isinstance(seen, dict):
        return [
            drift
            for part in dict.fromkeys((*wanted, *seen))
            for drift in deep_differences(f"{path}.{part}", wanted.get(part), seen.get(part))
        ]
    if isinstance(wanted, list) and isinstance(seen, list) and len(wanted) == len(seen):
        pairs = enumerate(zip(wanted, seen, strict=True))
        return [drift for index, pair in pairs for drift in deep_differences(f"{path}[{index}]", *pair)]
    if wanted == seen:
        return []
    return [Drift(path, ABSENT if wanted is None else wanted, ABSENT if seen is None else seen)]
