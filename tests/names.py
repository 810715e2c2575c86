"""Names of what tests make machine-wide, as labs and namespaces: no worker and no run has another's."""

from __future__ import annotations

import os
import secrets

_RUN = "VMPROXY_TEST_RUN"


def begin() -> None:
    """In the run's first process, before its workers are started."""
    os.environ[_RUN] = secrets.token_hex(2)[:3]


def run() -> str:
    """Three letters that this run's names end with."""
    return os.environ[_RUN]


def own(base: str) -> str:
    """`base` with this worker's and this run's mark; short, as a lab's name has at most 12 letters."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gwm").removeprefix("gw")
    return f"{base}-{worker}{run()}"


def namespace(role: str) -> str:
    """A network namespace for one test or module."""
    return own(f"vmproxy-{role}")
