from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.resources.test_guest import CLUSTER, VM
from vmproxy.errors import Conflict
from vmproxy.model.seen import ClusterSeen
from vmproxy.model.steps import ClusterStep
from vmproxy.resources import identity

ROLE = "clusterrole/vmproxy-a-win-01"


def live() -> dict[str, Any]:
    """The objects as the API server gives them back: with more fields than were written."""
    objects: dict[str, Any] = json.loads(json.dumps(identity.wanted(VM)))
    for number, item in enumerate(objects.values()):
        item["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "7"}
        item.pop("apiVersion")
    return objects


def seen(objects: dict[str, Any]) -> ClusterSeen:
    return replace(CLUSTER, identity=objects)


def fields(actions: tuple[ClusterStep, ...]) -> list[str]:
    return [drift.field for action in actions for drift in action.drift]


def test_an_identity_as_wanted_needs_nothing() -> None:
    assert identity.plan(VM, seen(live())) == ()


def test_all_is_made_in_an_order_that_works() -> None:
    actions = identity.plan(VM, seen({}))
    assert [action.target.partition("/")[0] for action in actions] == [
        "namespace",
        "serviceaccount",
        "clusterrole",
        "clusterrolebinding",
        "role",
        "rolebinding",
    ]


def test_a_widened_rule_is_named_down_to_its_field() -> None:
    objects = live()
    objects[ROLE]["rules"][0]["verbs"] = ["list", "watch", "delete"]
    assert fields(identity.plan(VM, seen(objects))) == [f"{ROLE}: rules[0].verbs"]


def test_a_binding_to_somebody_else_is_drift() -> None:
    objects = live()
    objects["rolebinding/a-win-01"]["subjects"][0]["name"] = "default"
    assert fields(identity.plan(VM, seen(objects))) == ["rolebinding/a-win-01: subjects[0].name"]


def test_an_object_of_that_name_that_is_not_ours_is_refused() -> None:
    objects = live()
    objects[ROLE]["metadata"]["labels"] = {}
    with pytest.raises(Conflict, match=ROLE):
        identity.plan(VM, seen(objects))


def test_the_account_of_another_site_is_neither_taken_nor_removed() -> None:
    objects = live()
    for name in objects:
        if name != "namespace/vmproxy":
            objects[name]["metadata"]["labels"] |= {"vmproxy.io/site": "a-win", "vmproxy.io/host": "01"}
    with pytest.raises(Conflict, match="host 01 of site a-win"):
        identity.plan(VM, seen(objects))
    other = replace(seen(objects), accounts=("x",))
    assert identity.destroy_plan(VM, other) == ()


def test_a_namespace_of_somebody_else_will_do_and_is_not_deleted() -> None:
    objects = live()
    objects["namespace/vmproxy"]["metadata"]["labels"] = {}
    assert identity.plan(VM, seen(objects)) == ()
    assert "namespace/vmproxy" not in fields(identity.destroy_plan(VM, seen(objects)))


def test_the_namespace_goes_with_the_last_account() -> None:
    assert fields(identity.destroy_plan(VM, seen(live())))[-1] == "namespace/vmproxy"
    other = replace(seen(live()), accounts=("a-win-01", "a-win-02"))
    assert "namespace/vmproxy" not in fields(identity.destroy_plan(VM, other))
    together = identity.destroy_plan(VM, other, going=frozenset({"a-win-01", "a-win-02"}))
    assert fields(together)[-1] == "namespace/vmproxy"


def test_the_rules_give_no_more_than_kube_proxy_reads() -> None:
    rules = identity.wanted(VM)[ROLE]["rules"]
    given = {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in rules}
    assert given == {
        (("services",), ("list", "watch")),
        (("endpointslices",), ("list", "watch")),
        (("servicecidrs",), ("list", "watch")),
        (("nodes",), ("get", "list", "watch")),
        (("events",), ("create", "patch")),
    }
    (nodes,) = [rule for rule in rules if rule["resources"] == ["nodes"]]
    assert nodes["resourceNames"] == ["win-01"]
