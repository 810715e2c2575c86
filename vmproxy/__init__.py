"""vmproxy: Kubernetes Services reachable from Windows hosts, through kube-proxy in a Linux VM.

The names in __all__ are the public ones, for use as a library. They are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmproxy.api import Selection, apply, destroy, doctor, load, plan, status, verify
    from vmproxy.errors import VmproxyError

__version__ = "0.1.0"

__all__ = [
    "Selection",
    "VmproxyError",
    "apply",
    "destroy",
    "doctor",
    "load",
    "plan",
    "status",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("vmproxy.errors" if name == "VmproxyError" else "vmproxy.api"), name)
