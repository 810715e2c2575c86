from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmproxy.errors import Conflict
from vmproxy.model.seen import CarrierSeen, Marker, VmSeen
from vmproxy.model.steps import VmStep, VmWanted
from vmproxy.resources import vm

ADDRESS = ip_interface("192.168.10.5/24")
SETTINGS = {"cpus": 2, "memory": 512 << 20, "mac": "00:15:5d:00:00:01", "switch": "br0", "vlan": 0}
HOT = frozenset({"switch", "vlan"})
WANTED = VmWanted("vm", "site", "host", ADDRESS, "image", "seed", SETTINGS, HOT, frozenset())
MARKER = Marker("site", "host", ADDRESS, "seed", "image", "key")
GOOD = VmSeen("vm", running=True, settings=SETTINGS, marker=MARKER, disk="image", seed="seed")


def host(seen: VmSeen | None) -> CarrierSeen:
    return CarrierSeen(seen, None)


def plan(seen: VmSeen | None) -> tuple[VmStep, ...]:
    return vm.plan(WANTED, host(seen))


def carried_out(actions: tuple[VmStep, ...], seen: VmSeen | None) -> VmSeen | None:
    """What the VM is like after the actions, by what each of them means."""
    for action in actions:
        if action.verb in {"create", "recreate"}:
            seen = replace(GOOD, running=False)
        else:
            assert seen is not None
            settings = {"set": SETTINGS, "reconfigure": SETTINGS}.get(action.verb, seen.settings)
            seen = replace(
                seen, settings=settings, running=seen.running or action.verb in {"start", "reconfigure"}
            )
    return seen


def test_a_good_vm_needs_nothing() -> None:
    assert plan(GOOD) == ()


def test_a_missing_vm_is_made_and_started_and_neither_is_cold() -> None:
    assert [(action.verb, action.cold) for action in plan(None)] == [("create", False), ("start", False)]


def test_a_stopped_vm_is_started() -> None:
    assert [action.verb for action in plan(replace(GOOD, running=False))] == ["start"]


def test_a_foreign_vm_of_that_name_is_never_touched() -> None:
    with pytest.raises(Conflict, match="not made by vmproxy"):
        plan(replace(GOOD, marker=None))


def test_a_vm_of_another_site_is_never_touched() -> None:
    with pytest.raises(Conflict, match="belongs to site other"):
        plan(replace(GOOD, marker=replace(MARKER, site="other")))


@pytest.mark.parametrize(("field", "value"), [("cpus", 4), ("memory", 1 << 30)])
def test_size_changes_need_the_vm_off_and_are_named_alone(field: str, value: int) -> None:
    (action,) = plan(replace(GOOD, settings={**SETTINGS, field: value}))
    assert (action.verb, action.cold) == ("reconfigure", True)
    assert [drift.field for drift in action.drift] == [field]


def test_the_same_change_of_a_stopped_vm_is_not_cold() -> None:
    actions = plan(replace(GOOD, running=False, settings={**SETTINGS, "cpus": 4}))
    assert not any(action.cold for action in actions)


def test_the_switch_changes_while_the_vm_runs() -> None:
    (action,) = plan(replace(GOOD, settings={**SETTINGS, "switch": "other"}))
    assert (action.verb, action.cold) == ("set", False)


@pytest.mark.parametrize("gone", ["disk", "seed"])
def test_a_lost_disk_or_seed_means_a_new_vm_and_says_which(gone: str) -> None:
    actions = plan(replace(GOOD, **{gone: None}))
    assert [(action.verb, action.cold) for action in actions] == [("recreate", True), ("start", True)]
    assert [(drift.field, drift.seen) for drift in actions[0].drift] == [(gone, "absent")]


def test_a_marker_with_another_address_than_the_seed_gave_the_vm_is_damaged() -> None:
    elsewhere = ip_interface("192.168.10.66/24")
    with pytest.raises(Conflict, match="marker is damaged"):
        plan(replace(GOOD, marker=replace(MARKER, address=elsewhere)))
    moved = plan(replace(GOOD, seed="older", marker=replace(MARKER, address=elsewhere, seed="older")))
    assert [action.verb for action in moved] == ["recreate", "start"]


vms = st.none() | st.builds(
    replace,
    st.just(GOOD),
    running=st.booleans(),
    disk=st.sampled_from([None, "image", "older"]),
    seed=st.sampled_from([None, "seed"]),
    settings=st.fixed_dictionaries(
        {"cpus": st.integers(1, 4), "memory": st.sampled_from([512 << 20, 1 << 30])},
        optional={"switch": st.sampled_from(["br0", "br1"]), "vlan": st.integers(0, 2)},
    ),
)


@given(vms)
def test_after_the_plan_is_carried_out_the_next_plan_is_empty(seen: VmSeen | None) -> None:
    assert plan(carried_out(plan(seen), seen)) == ()
