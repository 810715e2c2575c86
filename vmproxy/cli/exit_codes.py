"""The exit codes of every command, and the one rule that gives a command's from those of its hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TypeVar

from vmproxy.errors import UsageError, VmproxyError

T = TypeVar("T")


class ExitCode(IntEnum):
    """What a script learns from how a command ended."""

    DONE = 0
    """done or in sync"""
    FAILED = 1
    """failed"""
    USAGE = 2
    """bad usage or bad site file"""
    PENDING = 3
    """changes pending"""
    PROBLEM = 4
    """verify or doctor found a problem"""


_WORST_FIRST = (ExitCode.FAILED, ExitCode.USAGE, ExitCode.PROBLEM, ExitCode.PENDING, ExitCode.DONE)


def of_error(problem: VmproxyError) -> ExitCode:
    return ExitCode.USAGE if isinstance(problem, UsageError) else ExitCode.FAILED


def of_hosts(results: Iterable[T | VmproxyError], code: Callable[[T], ExitCode]) -> ExitCode:
    """A command ends like the host that ended worst; `code` says how one ended that did not fail."""
    codes = [of_error(result) if isinstance(result, VmproxyError) else code(result) for result in results]
    return min(codes, key=_WORST_FIRST.index, default=ExitCode.DONE)
