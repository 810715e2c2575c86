from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.values import route as route_to
from vmproxy.errors import Conflict
from vmproxy.model.net import Route, overlap
from vmproxy.model.seen import ClientSeen
from vmproxy.model.steps import MarkRoutes, RouteStep, SetRoute
from vmproxy.resources import route

VM = "192.168.10.5"
ADDRESS = ip_address(VM)
WANTED = (route_to("10.96.0.0/16", VM),)
DEFAULT = route_to("0.0.0.0/0", "192.168.10.1")


@dataclass(frozen=True)
class Routed:
    """A client's routes, and those that the marker of its VM names."""

    routes: tuple[Route, ...]
    marked: tuple[Route, ...]


def seen(*routes: Route, marked: tuple[Route, ...] = ()) -> Routed:
    return Routed(routes, marked)


def plan(there: Routed, wanted: tuple[Route, ...]) -> tuple[RouteStep, ...]:
    return route.plan(wanted, there.marked, ClientSeen(there.routes), client="h")


def carried_out(steps: tuple[RouteStep, ...], before: Routed) -> Routed:
    """What a client looks like after the steps, by what each of them means."""
    routes, marked = list(before.routes), before.marked
    for step in steps:
        if not isinstance(step, MarkRoutes):
            routes = [item for item in routes if item.prefix != step.route.prefix]
        if isinstance(step, SetRoute):
            routes.append(step.route)
        marked = step.routes
    return seen(*routes, marked=marked)


def test_a_missing_route_is_added_and_named_alone() -> None:
    (action,) = plan(seen(DEFAULT), WANTED)
    assert (action.verb, action.target) == ("add", "route 10.96.0.0/16")
    assert [(d.field, d.wanted, d.seen) for d in action.drift] == [("route 10.96.0.0/16", VM, "absent")]


def test_a_marked_route_with_another_next_hop_is_drift() -> None:
    (action,) = plan(seen(route_to("10.96.0.0/16", "192.168.10.9"), marked=WANTED), WANTED)
    assert action.verb == "replace"
    assert action.drift[0].seen == "192.168.10.9"


def test_a_second_route_to_the_same_range_is_drift_though_the_wanted_one_is_there() -> None:
    other = route_to("10.96.0.0/16", "192.168.10.9")
    (action,) = plan(seen(*WANTED, other, marked=WANTED), WANTED)
    assert action.verb == "replace"
    assert action.drift[0].seen == f"{VM}, 192.168.10.9"


@pytest.mark.parametrize(
    "other",
    [
        route_to("10.96.0.0/16", "192.168.10.9"),
        route_to("10.96.3.0/24", ""),
        route_to("10.96.0.0/17", "10.8.0.1"),
    ],
)
def test_an_overlapping_route_that_is_not_ours_is_refused_and_named(other: Route) -> None:
    with pytest.raises(Conflict) as caught:
        plan(seen(DEFAULT, other), WANTED)
    assert str(other.prefix) in caught.value.details[0]


def test_the_default_route_covers_everything_and_is_no_conflict() -> None:
    assert plan(seen(DEFAULT, *WANTED, marked=WANTED), WANTED) == ()


@pytest.mark.parametrize(
    "wider", [["10.0.0.0/8"], ["0.0.0.0/1", "128.0.0.0/1"], ["10.96.0.0/15"]], ids=["company", "VPN", "twice"]
)
def test_a_wider_route_is_less_specific_and_no_conflict(wider: list[str]) -> None:
    others = [route_to(prefix, "10.8.0.1") for prefix in wider]
    assert [step.verb for step in plan(seen(DEFAULT, *others), WANTED)] == ["add"]


@pytest.mark.parametrize(
    ("own", "service_range", "named"),
    [
        ("172.20.48.1/20", "172.20.0.0/16", "Default Switch"),
        ("172.20.48.1/20", "172.20.48.0/24", "Default Switch"),
        ("10.96.4.2/24", "10.96.0.0/16", "Get-NetIPAddress 10.96.4.2"),
    ],
)
def test_a_range_that_an_interface_of_the_host_overlaps_is_refused_and_the_interface_is_named(
    own: str, service_range: str, named: str
) -> None:
    there = ClientSeen((DEFAULT,), (ip_interface(own),))
    with pytest.raises(Conflict) as caught:
        route.plan((route_to(service_range, VM),), (), there, client="h")
    assert named in str(caught.value.hint)
    assert "VPN" not in str(caught.value.hint)
    assert str(ip_interface(own).ip) in caught.value.details[0]


def test_a_trial_route_left_by_a_killed_run_is_removed() -> None:
    trial = route_to("10.96.0.1/32", VM)
    actions = plan(seen(*WANTED, trial, marked=(*WANTED, trial)), WANTED)
    assert [(action.verb, action.target) for action in actions] == [("remove", "route 10.96.0.1/32")]


def test_a_range_that_the_cluster_gave_up_is_removed() -> None:
    old = route_to("10.97.0.0/16", VM)
    actions = plan(seen(*WANTED, old, marked=(*WANTED, old)), WANTED)
    assert [(action.verb, action.target) for action in actions] == [("remove", "route 10.97.0.0/16")]


RANGES = [IPv4Network(f"10.{second}.0.0/16") for second in range(96, 100)]
some_routes = st.lists(
    st.builds(Route, st.sampled_from(RANGES), st.sampled_from([ADDRESS, ip_address("192.168.10.9"), None])),
    unique_by=lambda item: (item.prefix, item.via),
)


@given(st.lists(st.sampled_from(RANGES), unique=True, min_size=1), some_routes, some_routes)
def test_after_the_plan_is_carried_out_the_next_plan_is_empty(
    ranges: list[IPv4Network], there: list[Route], marked: list[Route]
) -> None:
    wanted = route.wanted(ranges, ADDRESS)
    before = seen(DEFAULT, *there, marked=tuple(marked))
    try:
        actions = plan(before, wanted)
    except Conflict:
        known = set(route.ours(wanted, marked, there))
        foreign = [item for item in there if item not in known]
        assert any(overlap(item.prefix, cidr) for item in foreign for cidr in ranges)
        return
    after = carried_out(actions, before)
    assert set(wanted) <= set(after.routes)
    assert plan(after, wanted) == ()
