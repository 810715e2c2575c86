"""How a command's time and memory are taken, and how a result is told."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A command that ended well. `peak` is its largest resident memory, in bytes."""

    seconds: float
    peak: int


def timed(command: Sequence[str]) -> Ended:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {errors.decode(errors='replace')}")
    return Ended(time.perf_counter() - started, usage.ru_maxrss * 1024)


def medians(first: Callable[[], float], second: Callable[[], float], *, rounds: int) -> tuple[float, float]:
    """Both by turns, so that what else happens on the machine meets both."""
    pairs = [(first(), second()) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def tell(what: str, ratio: float, how: str) -> None:
    print(f"{what}: {ratio:.2f}\n    {how}", flush=True)
