"""Which machines, adapters and switches a call means: by name with wildcards, by id, by object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tests.winhost.engine import Call, CmdletError, Ref
from tests.winhost.hyperv.failures import gone, invalid, no_switch, no_vm, no_vm_id
from tests.winhost.hyperv.model import VM, Adapter, Switch, adapters, hyperv
from tests.winhost.state import Host
from tests.winhost.wildcards import matches, wild

Thing = TypeVar("Thing")


def vms(host: Host, call: Call) -> Iterator[VM | CmdletError]:
    """The machines of -VM, -Id, -Name or -VMName, and an error for each that is not there.

    A name that nothing has is an error; a pattern that nothing fits is none. Names are not unique:
    each machine of a name is meant.
    """
    known = hyperv(host).vms
    for ref in call.list("VM"):
        yield known.get(_id(ref)) or gone("virtual machine")
    for identity in call.list("Id"):
        yield known.get(str(identity).lower()) or no_vm_id(identity)
    for name in _vm_names(call):
        found = [vm for vm in known.values() if matches(name, vm.name)]
        yield from sorted(found, key=lambda vm: vm.name.lower())
        if not found and not wild(name):
            yield no_vm(name)


def _vm_names(call: Call) -> list[str]:
    """-VMName, or -Name where it is the machine's: beside -VM it is a device's."""
    if call.has("VMName"):
        return call.list("VMName")
    return [] if call.has("VM") or call.has("Id") else call.list("Name")


def _id(ref: object) -> str:
    return ref.id if isinstance(ref, Ref) else str(ref).lower()


def vm_adapters(host: Host, call: Call, *, name: str = "Name") -> Iterator[Adapter | CmdletError]:
    """The adapters of -VMNetworkAdapter, or of the machines or the management system, by their name."""
    if call.has("VMNetworkAdapter"):
        known = {one.id: one for one in adapters(host)}
        for ref in call.list("VMNetworkAdapter"):
            yield known.get(_id(ref)) or gone("network adapter")
        return
    for owner in _owners(host, call):
        if isinstance(owner, CmdletError):
            yield owner
            continue
        for pattern in call.list(name) if call.has(name) else ["*"]:
            found = [one for one in owner if matches(pattern, one.name)]
            yield from found
            if not found and not wild(pattern):
                yield invalid(f'Hyper-V was unable to find a network adapter with name "{pattern}".', pattern)


def _owners(host: Host, call: Call) -> Iterator[list[Adapter] | CmdletError]:
    if call.switch("ManagementOS"):
        yield hyperv(host).management
        return
    for vm in vms(host, call):
        yield vm if isinstance(vm, CmdletError) else vm.adapters


def switches(host: Host, call: Call) -> Iterator[Switch | CmdletError]:
    """The switches of -VMSwitch, -Id or -Name."""
    known = hyperv(host).switches
    for ref in call.list("VMSwitch"):
        yield known.get(_id(ref)) or gone("virtual switch")
    for identity in call.list("Id"):
        yield known.get(str(identity).lower()) or invalid(
            f'Hyper-V was unable to find a virtual switch with id "{identity}".', identity
        )
    for name in call.list("Name"):
        found = [one for one in known.values() if matches(name, one.name)]
        yield from sorted(found, key=lambda one: one.name.lower())
        if not found and not wild(name):
            yield no_switch(name)


def switch(host: Host, call: Call) -> Switch:
    """The one of -SwitchName or -VMSwitch; raises."""
    for ref in call.list("VMSwitch"):
        found = hyperv(host).switches.get(_id(ref))
        if found is None:
            raise gone("virtual switch")
        return found
    name = str(call.get("SwitchName"))
    exact = [one for one in hyperv(host).switches.values() if one.name.lower() == name.lower()]
    if not exact:
        raise no_switch(name)
    return exact[0]


def each(
    found: Iterable[Thing | CmdletError], do: Callable[[Thing], Iterable[object] | None]
) -> Iterator[object]:
    """Do it to every one; the error of one does not keep the others from it."""
    for one in found:
        if isinstance(one, CmdletError):
            yield one
            continue
        try:
            yield from do(one) or ()
        except CmdletError as exc:
            if exc.terminating:
                raise
            yield exc
