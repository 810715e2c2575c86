"""QEMU's monitor: one command, one answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MonitorError(Exception):
    """QEMU does not answer, or says no; the text is QEMU's."""


def ask(
    monitor: Path, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 10.0
) -> Any:
    """Run one command. Raises MonitorError."""
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(timeout)
            channel.connect(str(monitor))
            with channel.makefile("rw") as lines:
                json.loads(lines.readline())
                _execute(lines, "qmp_capabilities", {})
                return _execute(lines, command, arguments or {})
    except (OSError, ValueError) as exc:
        raise MonitorError(f"{command}: {exc}") from exc


def _execute(lines: Any, command: str, arguments: Mapping[str, object]) -> Any:
    lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    lines.flush()
    for line in lines:
        said = json.loads(line)
        if "error" in said:
            raise MonitorError(f"{command}: {said['error']['desc']}")
        if "return" in said:
            return said["return"]
    raise MonitorError(f"{command}: QEMU hung up")
