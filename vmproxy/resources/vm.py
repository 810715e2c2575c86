"""The VM: its disk, seed, size and place on the switch, and whether it runs.

What a change costs (Hyper-V's rules, kept on QEMU too): the switch and VLAN change while the VM
runs; CPUs, memory, firmware and the automatic stop action need it off (the last by dsccommunity's
HyperVDsc, issue 216); another image or seed needs a new VM, since cloud-init works once for each
instance and the VM holds nothing that is worth keeping. What a place does not report and nobody wants
is not compared: each kind of host adds its own settings.
"""

from __future__ import annotations

from vmproxy.errors import Conflict
from vmproxy.model.drift import differences
from vmproxy.model.seen import CarrierSeen, VmSeen
from vmproxy.model.steps import (
    CreateVm,
    DeleteVm,
    ReconfigureVm,
    SetVm,
    StartVm,
    VmStep,
    VmWanted,
    made_of,
)


def plan(wanted: VmWanted, seen: CarrierSeen) -> tuple[VmStep, ...]:
    """The steps to the wanted VM, running. Raises Conflict when a foreign VM has its name."""
    _refuse_renamed(wanted.name, wanted.host, seen)
    vm = seen.vm
    if vm is None:
        return (CreateVm(wanted), StartVm(wanted.name))
    _refuse_foreign(wanted.name, wanted.site, wanted.host, vm)
    _refuse_damaged(wanted, vm)
    if made_of(wanted, vm):
        return (CreateVm(wanted, vm), StartVm(wanted.name, cold=vm.running))
    return _settings(wanted, vm) + (() if vm.running else (StartVm(wanted.name),))


def moves(wanted: VmWanted, seen: CarrierSeen) -> bool:
    """Whether the VM has another address now than the wanted one."""
    marker = seen.vm.marker if seen.vm else None
    return marker is not None and marker.address != wanted.address


def destroy_plan(name: str, *, site: str, host: str, seen: CarrierSeen) -> tuple[VmStep, ...]:
    """Raises Conflict when a foreign VM has its name."""
    _refuse_renamed(name, host, seen)
    if seen.vm is None:
        return (DeleteVm(name, seen.leftovers),) if seen.leftovers else ()
    _refuse_foreign(name, site, host, seen.vm)
    return (DeleteVm(name),)


def _settings(wanted: VmWanted, vm: VmSeen) -> tuple[VmStep, ...]:
    drift = differences(wanted.settings, vm.settings)
    hot = tuple(item for item in drift if item.field in wanted.hot)
    off = tuple(item for item in drift if item.field not in wanted.hot)
    steps: list[VmStep] = []
    if hot:
        steps.append(SetVm(wanted, hot))
    if off:
        steps.append(ReconfigureVm(wanted, off, cold=vm.running))
    return tuple(steps)


def _refuse_foreign(name: str, site: str, host: str, vm: VmSeen) -> None:
    if vm.marker is None and vm.trace:
        raise Conflict(
            f"cannot use VM {name} on {host}: it has no marker of vmproxy, though {vm.trace}",
            hint="if it is vmproxy's and its marker was lost: remove that VM on the host, then run apply",
        )
    if vm.marker is None:
        raise Conflict(
            f"cannot use VM {name} on {host}: it exists and was not made by vmproxy",
            hint="rename or remove that VM, or change the site's or the host's name",
        )
    if (vm.marker.site, vm.marker.host) != (site, host):
        raise Conflict(
            f"cannot use VM {name} on {host}: it belongs to site {vm.marker.site}, host {vm.marker.host}",
            hint="change the site's or the host's name",
        )


def _refuse_damaged(wanted: VmWanted, vm: VmSeen) -> None:
    """The seed has the address in it: beside the wanted seed, any other one was written by somebody else."""
    marker = vm.marker
    if marker and marker.seed == wanted.seed and marker.address != wanted.address:
        raise Conflict(
            f"cannot use VM {wanted.name} on {wanted.host}: its marker is damaged: it names the address "
            f"{marker.address}, and the VM was made with {wanted.address}",
            hint="remove that VM on the host, then run apply",
        )


def _refuse_renamed(name: str, host: str, seen: CarrierSeen) -> None:
    if seen.renamed is not None:
        raise Conflict(
            f"cannot find VM {name} on {host}: it was renamed to {seen.renamed}",
            hint=f"give it its name back ({name}), or remove it, then run again",
        )
