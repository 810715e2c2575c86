"""What is looked at before every cmdlet: whether it is for this host, and whether its service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.winhost import engine

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
    """Without vmms, or the role that brings it, every cmdlet of Hyper-V fails the same way."""
    function = engine.BEHAVIOURS[call.cmdlet.lower()].function
    runs = "Hyper-V" in host.features and host.services.get("vmms") == "Running"
    if runs or not function.__module__.startswith("tests.winhost.hyperv"):
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
