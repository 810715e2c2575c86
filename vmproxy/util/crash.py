"""A fault of vmproxy itself, for a person: one line, and a file to send in."""

from __future__ import annotations

import os
import platform
import time
import traceback
from importlib.metadata import distributions
from pathlib import Path

from vmproxy.errors import VmproxyError, unexpected
from vmproxy.util import paths

_FRAMES = 60


def as_error(exc: Exception, what: str) -> VmproxyError:
    """The exception as an error of `what`, such as "continue on win-01". One that nobody expected leaves a
    report in a file."""
    if isinstance(exc, VmproxyError):
        return exc
    problem = unexpected(exc) if isinstance(exc, OSError) else _fault(exc, what)
    problem.step, problem.__cause__ = getattr(exc, "step", None), exc
    return problem


def _fault(exc: Exception, what: str) -> VmproxyError:
    cause = type(exc).__name__
    if last := traceback.extract_tb(exc.__traceback__)[-1:]:
        cause += f" at {Path(last[0].filename).name}:{last[0].lineno}"
    return VmproxyError(f"cannot {what}: a fault of vmproxy itself ({cause})", hint=_kept(_report(exc, what)))


def _kept(report: str) -> str:
    try:
        return f"please send in the report, which has no secrets: {_write(report)}"
    except (VmproxyError, OSError) as exc:
        return f"no report could be written: {exc}"


def _write(report: str) -> Path:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 1_000_000}.txt"
    path = paths.state_dir("reports") / name
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(report)
    return path


def _report(exc: BaseException, what: str) -> str:
    """Where it happened and in which versions. No messages and no values: a secret may be in them."""
    versions = sorted(f"{found.name} {found.version}" for found in distributions())
    head = [f"cannot {what}", f"Python {platform.python_version()}"]
    return "\n".join([*head, platform.platform(), "", *_causes(exc), "", *versions, ""])


def _causes(exc: BaseException) -> list[str]:
    lines, seen = list[str](), set[int]()
    at: BaseException | None = exc
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        frames = traceback.extract_tb(at.__traceback__)[-_FRAMES:]
        lines += [f"{type(at).__module__}.{type(at).__qualname__}"]
        lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        at = at.__cause__ or at.__context__
    return lines
