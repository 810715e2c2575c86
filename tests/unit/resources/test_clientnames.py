"""The rules for the cluster's names: which are wanted, and what becomes of those that are there."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmproxy.errors import Conflict
from vmproxy.model.seen import ClientSeen, DnsSeen, NameRule
from vmproxy.model.steps import NameStep, RemoveNames, SetNames
from vmproxy.resources import clientnames

OURS = "vmproxy:a:win-01"
DNS = DnsSeen("cluster.local", ip_address("10.96.0.10"))


def wanted(*cidrs: str) -> tuple[NameRule, ...]:
    return clientnames.wanted(DNS, [ip_network(cidr) for cidr in cidrs], comment=OURS)


def plan(rules: tuple[NameRule, ...], *there: NameRule) -> tuple[NameStep, ...]:
    return clientnames.plan(rules, ClientSeen((), rules=there), comment=OURS, client="win-01")


def carried_out(steps: tuple[NameStep, ...], there: list[NameRule]) -> list[NameRule]:
    for number, step in enumerate(steps):
        going = step.before if isinstance(step, SetNames) else (step.rule,)
        there = [rule for rule in there if rule not in going]
        if isinstance(step, SetNames):
            made = NameRule(step.rule.namespaces, step.rule.servers, step.rule.comment, f"new-{number}")
            there.append(made)
    return there


@pytest.mark.parametrize(
    ("cidr", "zones"),
    [
        ("10.96.0.0/16", ["96.10.in-addr.arpa"]),
        ("10.96.0.0/15", ["96.10.in-addr.arpa", "97.10.in-addr.arpa"]),
        ("10.43.7.0/24", ["7.43.10.in-addr.arpa"]),
        ("10.43.6.0/23", ["6.43.10.in-addr.arpa", "7.43.10.in-addr.arpa"]),
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("10.43.7.0/26", []),
        ("fd00::/112", []),
    ],
)
def test_reverse_zones_are_those_of_whole_octets(cidr: str, zones: list[str]) -> None:
    assert list(clientnames.reverse_zones(ip_network(cidr))) == zones


def test_a_rule_has_the_domain_with_a_leading_dot_and_the_ranges_zones() -> None:
    (rule,) = wanted("10.96.0.0/16", "fd00::/112")
    assert rule.namespaces == (".cluster.local", ".96.10.in-addr.arpa")
    assert rule.servers == (DNS.server,)


def test_more_zones_than_a_rule_may_have_make_more_rules() -> None:
    rules = wanted("10.0.0.0/10")
    assert [len(rule.namespaces) for rule in rules] == [50, 15]
    assert plan(rules, *carried_out(plan(rules), [])) == ()


ANY_RULE = st.builds(
    NameRule,
    st.lists(st.sampled_from([".cluster.local", ".96.10.in-addr.arpa", ".old.local"]), max_size=3).map(tuple),
    st.lists(st.sampled_from([DNS.server, ip_address("10.96.0.99")]), max_size=2).map(tuple),
    st.just(OURS),
    st.uuids().map(str),
)


@given(st.lists(ANY_RULE, max_size=4), st.sampled_from(["10.96.0.0/16", "10.96.0.0/12", ""]))
def test_whatever_rules_of_ours_there_are_the_plan_makes_the_next_one_empty(
    there: list[NameRule], cidr: str
) -> None:
    rules = wanted(cidr) if cidr else ()
    steps = plan(rules, *there)
    assert all(step.drift for step in steps)
    after = carried_out(steps, there)
    assert plan(rules, *after) == ()
    assert len(after) == len(rules)


def test_one_that_is_there_twice_is_removed_once() -> None:
    (rule,) = wanted("10.96.0.0/16")
    twice = [NameRule(rule.namespaces, rule.servers, OURS, name) for name in "ab"]
    (step,) = plan((rule,), *twice)
    assert isinstance(step, RemoveNames)


@pytest.mark.parametrize(
    "name", [".cluster.local", "cluster.local", ".SVC.cluster.local", ".7.96.10.in-addr.arpa"]
)
def test_a_foreign_rule_for_names_of_ours_is_a_conflict(name: str) -> None:
    with pytest.raises(Conflict) as caught:
        plan(wanted("10.96.0.0/16"), NameRule((".corp", name), (), "", "{7}"))
    assert "{7}" in caught.value.details[0]


@pytest.mark.parametrize("name", [".", ".local", ".mycluster.local", ".10.in-addr.arpa", "local"])
def test_a_wider_or_another_foreign_rule_is_none(name: str) -> None:
    rules = wanted("10.96.0.0/16")
    assert len(plan(rules, NameRule((name,), (), "", "{7}"))) == 1


def test_a_question_is_a_dns_query_for_that_name() -> None:
    asked = clientnames.question("web.demo.svc.cluster.local")
    assert asked[2:6] == b"\x01\x00\x00\x01"
    assert asked[12:].startswith(b"\x03web\x04demo\x03svc\x07cluster\x05local\x00")
