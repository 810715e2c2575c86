"""The errors that Hyper-V's cmdlets give: ids and texts as seen on real hosts where a source was found.

Most are not terminating: one object fails, the others go on.
"""

from __future__ import annotations

from tests.winhost.engine import CmdletError
from tests.winhost.hyperv.model import VM

EXCEPTION = "Microsoft.HyperV.PowerShell.VirtualizationException"


def failed(message: str, *, error_id: str = "OperationFailed", category: str = "NotSpecified") -> CmdletError:
    return CmdletError(message, exception=EXCEPTION, error_id=error_id, category=category, terminating=False)


def invalid(message: str, target: object = None) -> CmdletError:
    error = failed(message, error_id="InvalidParameter", category="InvalidArgument")
    error.target = target
    return error


def no_vm(name: str) -> CmdletError:
    return invalid(f'Hyper-V was unable to find a virtual machine with name "{name}".', name)


def no_vm_id(identity: str) -> CmdletError:
    return invalid(f'Hyper-V was unable to find a virtual machine with id "{identity}".', identity)


def no_switch(name: str) -> CmdletError:
    return invalid(f'Hyper-V was unable to find a virtual switch with name "{name}".', name)


def gone(what: str) -> CmdletError:
    """An object that is held by a script, and deleted meanwhile."""
    message = f"Hyper-V encountered an error trying to access an object: the {what} was not found."
    return failed(
        f"{message} The object might have been deleted.", error_id="ObjectNotFound", category="ObjectNotFound"
    )


def named(vm: VM) -> str:
    return f"The name of the virtual machine is {vm.name} and its ID is {vm.id}."


def wrong_state(vm: VM, *, doing: str = "") -> CmdletError:
    """A thing that cannot be done while the machine runs, or while it does not."""
    head = f"{doing}\r\n\r\n" if doing else ""
    message = (
        f"{head}The operation cannot be performed while the virtual machine is in its current state.\r\n\r\n"
    )
    return failed(message + named(vm), error_id="InvalidState", category="InvalidOperation")


def cannot_modify(vm: VM, device: str, because: str) -> CmdletError:
    """A setting that is refused; the text says it twice, as on Windows."""
    short = f"Failed to modify device '{device}'."
    long = f"'{vm.name}' failed to modify device '{device}'. (Virtual machine ID {vm.id.upper()})"
    return invalid(f"{short}\r\n\r\n{because}\r\n\r\n{long}\r\n\r\n{because}")


def running_device(vm: VM, device: str) -> CmdletError:
    """A device's setting that stays as it is while the machine runs."""
    because = "The operation cannot be performed while the object is in its current state."
    error = cannot_modify(vm, device, because)
    error.error_id, error.category = "InvalidState", "InvalidOperation"
    return error
