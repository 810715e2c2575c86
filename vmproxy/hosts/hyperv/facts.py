"""What the scripts report: objects of PowerShell, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def items(value: Any) -> list[Any]:
    """PowerShell turns a list of one into the item, and an empty list into null or {}."""
    if value is None or value == {}:
        return []
    return list(value) if isinstance(value, list) else [value]
