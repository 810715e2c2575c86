"""The VM: its disk, seed, size and place on the switch, and whether it runs.

What a change costs (Hyper-V's rules, kept on QEMU too): the switch and VLAN change while the VM
runs; CPUs, memory, firmware and the automatic stop action need it off (the last by dsccommunity's
HyperVDsc, issue 216); another image or seed needs a new VM, since cloud-init works once for each
instance and the VM holds nothing that is worth keeping. What a place does not report and nobody wants
is not compared: each kind of host adds its own settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmproxy.errors import Conflict
from vmproxy.model.plan import ABSENT, Action, Drift, differences
from vmproxy.model.seen import HostSeen, VmSeen

HOT = frozenset(
    {
        "switch",
        "vlan",
        "macSpoofing",
        "start",
        "startDelay",
        "checkpoints",
        "automaticCheckpoints",
        "timeSync",
        "guestShutdown",
        "folderAccess",
    }
)
"""Settings that change while the VM runs; every other one needs it off."""

FIXED = frozenset({"generation"})
"""Settings that no VM ever changes."""


@dataclass(frozen=True)
class VmWanted:
    """`settings` by the names that the place reports them under; `image` and `seed` are hashes."""

    name: str
    site: str
    host: str
    address: str
    image: str
    seed: str
    settings: Mapping[str, Any]


def plan(wanted: VmWanted, seen: HostSeen) -> tuple[Action, ...]:
    """The steps to the wanted VM, running. Raises Conflict when a foreign VM has its name."""
    _refuse_renamed(wanted.name, wanted.host, seen)
    vm = seen.vm
    if vm is None:
        why = "there is no VM of that name"
        return (_action("create", wanted, why, (Drift("vm", "present", ABSENT),)), _start(wanted))
    _refuse_foreign(wanted, vm)
    if made_of := _made_of_something_else(wanted, vm):
        why = "its disk or seed is not the wanted one, and both are used at the first boot only"
        if all(item.field in FIXED for item in made_of):
            why = "no VM changes that"
        again = _action("recreate", wanted, why, made_of, cold=vm.running)
        return (again, _start(wanted, cold=vm.running))
    return _settings(wanted, vm) + (() if vm.running else (_start(wanted),))


def moves(wanted: VmWanted, seen: HostSeen) -> bool:
    """Whether the VM has another address now than the wanted one."""
    marker = seen.vm.marker if seen.vm else None
    return marker is not None and marker.address != wanted.address


def destroy_plan(wanted_name: str, *, site: str, host: str, seen: HostSeen) -> tuple[Action, ...]:
    _refuse_renamed(wanted_name, host, seen)
    params = {"vm": wanted_name}
    if seen.vm is None:
        left = tuple(Drift(path, ABSENT, "present") for path in seen.leftovers)
        why = "files that an earlier run left"
        return (Action("host", "delete", wanted_name, why, left, params, cold=True),) if left else ()
    _refuse_foreign_names(wanted_name, site, host, seen.vm)
    drift = (Drift("vm", ABSENT, "present"),)
    return (Action("host", "delete", wanted_name, "with its disk and seed", drift, params, cold=True),)


def _settings(wanted: VmWanted, vm: VmSeen) -> tuple[Action, ...]:
    drift = differences(wanted.settings, vm.settings)
    hot = tuple(item for item in drift if item.field in HOT)
    off = tuple(item for item in drift if item.field not in HOT)
    actions = []
    if hot:
        actions.append(_action("set", wanted, "it changes while the VM runs", hot))
    if off:
        why = "it changes only while the VM is off: stopped, set, started"
        actions.append(_action("reconfigure", wanted, why, off, cold=vm.running))
    return tuple(actions)


def _made_of_something_else(wanted: VmWanted, vm: VmSeen) -> tuple[Drift, ...]:
    assert vm.marker is not None
    seed = vm.seed if vm.seed is None else vm.marker.seed
    seen = {"disk": vm.disk or ABSENT, "seed": seed or ABSENT}
    fixed = {name: value for name, value in wanted.settings.items() if name in FIXED}
    return differences({"disk": wanted.image, "seed": wanted.seed, **fixed}, {**vm.settings, **seen})


def _refuse_foreign(wanted: VmWanted, vm: VmSeen) -> None:
    _refuse_foreign_names(wanted.name, wanted.site, wanted.host, vm)


def _refuse_foreign_names(name: str, site: str, host: str, vm: VmSeen) -> None:
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


def _refuse_renamed(name: str, host: str, seen: HostSeen) -> None:
    if seen.renamed is not None:
        raise Conflict(
            f"cannot find VM {name} on {host}: it was renamed to {seen.renamed}",
            hint=f"give it its name back ({name}), or remove it, then run again",
        )


def _start(wanted: VmWanted, *, cold: bool = False) -> Action:
    return _action("start", wanted, "it must run", (Drift("state", "running", "stopped"),), cold=cold)


def _action(verb: str, wanted: VmWanted, why: str, drift: tuple[Drift, ...], *, cold: bool = False) -> Action:
    params = {
        "vm": wanted.name,
        "site": wanted.site,
        "host": wanted.host,
        "address": wanted.address,
        "image": wanted.image,
        "seed": wanted.seed,
        "settings": dict(wanted.settings),
    }
    return Action("host", verb, f"vm {wanted.name}", why, drift, params, cold)
