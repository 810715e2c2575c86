"""Whether the emulated host can run here; what a test run says when it can not."""

from __future__ import annotations

import os

import pytest

from tests.winhost import powershell

_FIRST_WORD = "no Windows PowerShell stand-in"


def require() -> None:
    """Fail in CI, skip elsewhere, when the stand-in for Windows PowerShell is missing."""
    why = powershell.missing()
    if why is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{_FIRST_WORD}: {why}", pytrace=False)
    pytest.skip(f"{_FIRST_WORD}: {why}")


def closing_line(skipped: list[pytest.TestReport]) -> str | None:
    """What pytest's closing lines say of the tests that were not run for want of it.

    `skipped` is `terminalreporter.getreports("skipped")`.
    """
    reasons = [str(one.longrepr[2]) for one in skipped if isinstance(one.longrepr, tuple)]
    count = sum(_FIRST_WORD in reason for reason in reasons)
    if not count:
        return None
    return f"THE WINDOWS HOST WAS NOT TESTED: {count} tests need what is missing: {powershell.missing()}"
