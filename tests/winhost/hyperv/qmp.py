"""QEMU's monitor: one command, one answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


class MonitorError(Exception):
    """QEMU does not answer, or says no; the text is QEMU's."""


def ask(monitor: Path, command: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
    """Run one command. `_` in the names of arguments stands for QEMU's `-`. Raises MonitorError."""
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(timeout)
            channel.connect(str(monitor))
            with channel.makefile("rw") as lines:
                json.loads(lines.readline())
                _execute(lines, "qmp_capabilities", {})
                return _execute(
                    lines, command, {name.replace("_", "-"): arguments[name] for name in arguments}
                )
    except (OSError, ValueError) as exc:
        raise MonitorError(f"{command}: {exc}") from exc


def _execute(lines: Any, command: str, arguments: dict[str, Any]) -> Any:
    lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    lines.flush()
    for line in lines:
        said = json.loads(line)
        if "error" in said:
            raise MonitorError(f"{command}: {said['error']['desc']}")
        if "return" in said:
            return said["return"]
    raise MonitorError(f"{command}: QEMU hung up")
