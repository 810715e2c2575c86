"""The age of an image. Nothing in a VM updates its packages: a new image does."""

from __future__ import annotations

from datetime import UTC, date, datetime

OLD_DAYS = 60
"""Security updates of the kernel and OpenSSH come about once a month."""


def age(made: str) -> int | None:
    """In days, from a day such as 2026-01-31; None when it is not known."""
    try:
        return max(0, (datetime.now(UTC).date() - date.fromisoformat(made)).days)
    except ValueError:
        return None


def days(made: str) -> str:
    """For a reader."""
    known = age(made)
    return "" if known is None else f"{known} day{'' if known == 1 else 's'}"
