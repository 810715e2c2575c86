"""What is looked at before every cmdlet: whether it is for this host, and whether its service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.winhost import engine, tables

if TYPE_CHECKING:
    from tests.winhost.state import Host


def elsewhere(host: Host, call: engine.Call) -> None:
    """Other computers, other users and background jobs are not emulated."""
    here = {"localhost", ".", "127.0.0.1", "::1", host.name.lower()}
    for name in ("ComputerName", "CimSession"):
        for value in call.list(name):
            if not isinstance(value, str) or value.lower() not in here:
                raise engine.not_emulated(f"{call.cmdlet} -{name} {value}")
    for name in ("Credential", "DestinationHost", "DestinationCimSession"):
        if call.list(name):
            raise engine.not_emulated(f"{call.cmdlet} -{name}")
    if call.switch("AsJob"):
        raise engine.not_emulated(f"{call.cmdlet} -AsJob")


def management_service(host: Host, call: engine.Call) -> None:
    """Without vmms every cmdlet of Hyper-V fails the same way."""
    cmdlet = tables.cmdlets(host.version).get(call.cmdlet)
    if cmdlet is None or cmdlet.module != "Hyper-V" or host.services.get("vmms") == "Running":
        return
    raise engine.CmdletError(
        f"Hyper-V encountered an error trying to access an object on computer '{host.name}' because the "
        "object was not found. The object might have been deleted, or you might not have permission to "
        "perform the task. Verify that the Virtual Machine Management service on the computer is running. If "
        "the service is running, try to perform the task again by using Run as Administrator.",
        exception="Microsoft.HyperV.PowerShell.VirtualizationException",
        error_id="ObjectNotFound",
        category="ObjectNotFound",
        terminating=False,
    )
