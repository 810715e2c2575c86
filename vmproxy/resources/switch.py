"""The virtual switch: it must exist and the host must be on it. vmproxy never makes one."""

from __future__ import annotations

from vmproxy.errors import Conflict, UsageError
from vmproxy.model.seen import HostSeen
from vmproxy.site.model import Host


def check(host: Host, seen: HostSeen) -> None:
    """Raises UsageError when the switch is missing, Conflict when the host itself can not use it."""
    if seen.switch is None:
        raise UsageError(
            f"cannot connect a VM on {host.name}: no switch named {host.switch.name}",
            hint="set hosts[].switch.name to an existing switch; vmproxy never creates one",
        )
    if not seen.switch.reachable:
        raise Conflict(
            f"cannot use switch {host.switch.name} on {host.name}: {seen.switch.why}",
            hint="choose a switch that the host itself has an adapter on",
        )
