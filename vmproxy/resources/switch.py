"""The virtual switch: it must exist and the host must be on it. vmproxy never makes one."""

from __future__ import annotations

from vmproxy.errors import Conflict, UsageError
from vmproxy.model.seen import CarrierSeen
from vmproxy.model.topology import Carrier


def check(carrier: Carrier, seen: CarrierSeen) -> None:
    """Raises UsageError when the switch is missing, Conflict when the host itself cannot use it."""
    if seen.switch is None:
        raise UsageError(
            f"cannot connect a VM on {carrier.name}: no switch named {carrier.switch}",
            hint="set hosts[].switch.name to an existing switch; vmproxy never creates one",
        )
    if not seen.switch.reachable:
        raise Conflict(
            f"cannot use switch {carrier.switch} on {carrier.name}: {seen.switch.why}",
            hint="choose a switch that the host itself has an adapter on",
        )
