"""The adapter's end at the switch: a veth in the place of the tap that QEMU would open, by the same name."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.container.commandline import Adapter
from vmproxy.util.run import run


@dataclass(frozen=True)
class Port:
    """How the tap is plugged in. `bridge` None: into nothing."""

    name: str
    bridge: str | None
    up: bool


def look(tap: str) -> Port | None:
    """In this process's network namespace, which is the switch's. None: there is no such link."""
    (link,) = json.loads(run(["ip", "-j", "link", "show", "dev", tap], ok=(0, 1)).stdout or "[null]")
    return Port(tap, link.get("master"), "UP" in link["flags"]) if link else None


def connect(adapter: Adapter, port: Port, *, number: int, pid: int) -> None:
    """A cable from the port to ethN of the process's network namespace, with the adapter's MAC address."""
    run(["ip", "link", "del", port.name], ok=(0, 1, 2))
    inside = ["peer", "name", f"eth{number}", "address", adapter.mac, "netns", str(pid)]
    run(["ip", "link", "add", port.name, "type", "veth", *inside])
    if port.bridge:
        run(["ip", "link", "set", port.name, "master", port.bridge])
    run(["ip", "link", "set", port.name, "up" if port.up else "down"])
