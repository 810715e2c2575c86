"""The only polling loop: it has a deadline, and reports the last observation on timeout."""

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

    A `str` is an observation: why the condition is not true yet. Errors of the probe are not caught:
    a probe must convert the failures that it expects into such a string.
    `timeout` and `every` are seconds. Raises NotReady with the last observation.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = probe()
        if not isinstance(result, str):
            return result
        if time.monotonic() >= deadline:
            raise NotReady(f"{what}: timed out after {timeout:.0f} s: {result}", hint=hint)
        time.sleep(min(every, max(0.0, deadline - time.monotonic())))
