"""Whether the emulated host can run here; what a test run says when it can not."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from tests.winhost import powershell

_FIRST_WORD = "not run for the Windows host"


def require(why: str | None = None, *, environment: Mapping[str, str] = os.environ) -> None:
    """Fail in CI, skip elsewhere, when what is missing (the stand-in for PowerShell) is missing."""
    why = why or powershell.missing()
    if why is None:
        return
    if environment.get("CI") == "true":
        pytest.fail(f"{_FIRST_WORD}: {why}", pytrace=False)
    pytest.skip(f"{_FIRST_WORD}: {why}")


def closing_line(skipped: list[pytest.TestReport]) -> str | None:
    """What pytest's closing lines say of the tests that were not run for want of it.

    `skipped` is `terminalreporter.getreports("skipped")`.
    """
    texts = [str(one.longrepr[2]) for one in skipped if isinstance(one.longrepr, tuple)]
    reasons = [text.partition(f"{_FIRST_WORD}: ")[2] for text in texts if _FIRST_WORD in text]
    if not reasons:
        return None
    return f"THE WINDOWS HOST WAS NOT TESTED ({len(reasons)} tests): {'; '.join(sorted(set(reasons)))}"
