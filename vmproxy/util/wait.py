"""The one polling loop: with a deadline, and a reason when it ends in vain."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vmproxy.errors import NotReady

T = TypeVar("T")


def until(
    what: str,
    probe: Callable[[], T | str],
    *,
    timeout: float,
    every: float = 0.5,
    hint: str | None = None,
) -> T:
    """Call `probe` until it returns something that is not a `str`, and return that.

    A `str` is the last observation: why the condition is not true yet. Errors of the probe pass
    through: a probe that may fail turns the failures it expects into such a sentence itself.
    `timeout` and `every` are seconds. Raises NotReady with the last observation.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = probe()
        if not isinstance(result, str):
            return result
        if time.monotonic() >= deadline:
            raise NotReady(f"{what}: not within {timeout:.0f} s: {result}", hint=hint)
        time.sleep(min(every, max(0.0, deadline - time.monotonic())))
