"""What is looked at before every cmdlet: whether it is for this host, and whether its service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.winhost import engine

if TYPE_CHECKING:
    from tests.winhost.state import Host

_LONGEST_NAME = 15


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


def resolved(host: Host, call: engine.Call) -> None:
    """A cmdlet of Hyper-V that is given neither a computer nor an object asks for the host by its name: a
    NetBIOS name, of 15 characters at most. `localhost` needs no answer, but may be denied."""
    function = engine.BEHAVIOURS[call.cmdlet.lower()].function
    if not function.__module__.startswith("tests.winhost.hyperv"):
        return
    if "localhost" in call.list("ComputerName"):
        if host.denies_localhost:
            raise _denied()
        return
    objects = any(isinstance(one, engine.Ref) for name in call.parameters for one in call.list(name))
    if not objects and len(host.name) > _LONGEST_NAME:
        raise engine.CmdletError(
            f'The computer "{host.name}" could not be resolved. Make sure you typed the machine name '
            "correctly and that you have network access.",
            exception="Microsoft.HyperV.PowerShell.VirtualizationException",
            error_id="InvalidParameter",
            category="InvalidArgument",
            terminating=False,
        )


def _denied() -> engine.CmdletError:
    return engine.CmdletError(
        "You do not have the required permission to complete this task. Contact the administrator of the "
        "authorization policy for the computer 'localhost'.",
        exception="Microsoft.HyperV.PowerShell.VirtualizationException",
        error_id="AccessDenied",
        category="PermissionDenied",
        terminating=False,
    )


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
