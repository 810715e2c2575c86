from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.resources.test_guest import CLUSTER, VM
from vmproxy.cli import answers
from vmproxy.errors import Conflict
from vmproxy.model import names
from vmproxy.model.seen import ClusterSeen, Grant
from vmproxy.model.steps import ClusterStep, object_name
from vmproxy.resources import identity

ROLE = "clusterrole/vmproxy-a-win-01"
SECRET = "secret/a-win-01-renewal"


def live() -> dict[str, Any]:
    """The objects as the API server gives them back: with more fields than were written."""
    objects: dict[str, Any] = json.loads(json.dumps(identity.wanted(VM)))
    for number, item in enumerate(objects.values()):
        item["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "7"}
        item.pop("apiVersion")
        item.pop("aggregationRule", None)
    objects[SECRET]["data"] = {"token": "f" * 64}
    objects[SECRET]["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = "uid-6"
    return objects


def seen(objects: dict[str, Any]) -> ClusterSeen:
    return replace(CLUSTER, identity=objects)


def fields(actions: tuple[ClusterStep, ...]) -> list[str]:
    return [drift.field for action in actions for drift in action.drift]


def test_an_identity_as_wanted_needs_nothing() -> None:
    assert identity.plan(VM, seen(live())) == ()


def test_all_is_made_in_an_order_that_works() -> None:
    actions = identity.plan(VM, seen({}))
    assert [action.target for action in actions] == [
        "namespace/vmproxy",
        "serviceaccount/a-win-01",
        ROLE,
        "clusterrolebinding/vmproxy-a-win-01",
        "role/default/vmproxy-a-win-01",
        "rolebinding/default/vmproxy-a-win-01",
        "serviceaccount/a-win-01-renewal",
        "role/a-win-01",
        "rolebinding/a-win-01",
        SECRET,
    ]


def test_its_names_are_those_that_are_looked_for() -> None:
    assert list(identity.wanted(VM)) == [name.key for name in names.identity(VM.account)]
    assert [object_name(item) for item in identity.wanted(VM).values()] == list(names.identity(VM.account))


def test_the_longest_names_are_still_labels() -> None:
    """The site file's check keeps the VM's name within 63 characters."""
    account = "a" * (63 - len("vmproxy-"))
    assert max(len(item.name) for item in names.identity(account)) == 63


def test_an_identity_of_an_earlier_version_becomes_that_of_this_one() -> None:
    """There, the account itself could create its tokens, and events everywhere."""
    objects = live()
    own = {"kind": "ServiceAccount", "name": "a-win-01", "namespace": "vmproxy"}
    events = {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
    objects["rolebinding/a-win-01"]["subjects"] = [own]
    objects[ROLE]["rules"].append(events)
    for name in list(objects):
        if name.endswith("-renewal") or "/default/" in name:
            del objects[name]
    steps = identity.plan(VM, seen(objects))
    assert [(step.verb, step.target) for step in steps] == [
        ("update", ROLE),
        ("create", "role/default/vmproxy-a-win-01"),
        ("create", "rolebinding/default/vmproxy-a-win-01"),
        ("create", "serviceaccount/a-win-01-renewal"),
        ("update", "rolebinding/a-win-01"),
        ("create", SECRET),
    ]


def test_an_aggregation_rule_is_drift_and_goes() -> None:
    objects = live()
    objects[ROLE]["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    (step,) = identity.plan(VM, seen(objects))
    assert fields((step,)) == [f"{ROLE}: aggregationRule"]
    assert step.object["aggregationRule"] is None


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"data": {}}, "token"),
        ({"data": None}, "token"),
        ({"type": "Opaque"}, "type"),
    ],
)
def test_a_secret_that_holds_no_token_of_its_account_is_drift(part: dict[str, Any], field: str) -> None:
    objects = live()
    objects[SECRET] |= part
    assert fields(identity.plan(VM, seen(objects))) == [f"{SECRET}: {field}"]


def test_a_secret_of_another_account_is_drift() -> None:
    objects = live()
    objects[SECRET]["metadata"]["annotations"]["kubernetes.io/service-account.name"] = "default"
    assert fields(identity.plan(VM, seen(objects))) == [
        f"{SECRET}: annotations.kubernetes.io/service-account.name"
    ]


def test_no_step_shows_what_is_in_a_secret() -> None:
    objects = live()
    objects[SECRET]["type"] = "Opaque"
    steps = (*identity.plan(VM, seen(objects)), *identity.destroy_plan(VM, seen(objects)))
    assert "f" * 64 not in repr(steps) + str([answers.step(step) for step in steps])


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
    renewing = replace(other, accounts=(*other.accounts, "a-win-01-renewal", "a-win-02-renewal"))
    for some in (other, renewing):
        together = identity.destroy_plan(VM, some, going=frozenset({"a-win-01", "a-win-02"}))
        assert fields(together)[-1] == "namespace/vmproxy"
    assert "namespace/vmproxy" not in fields(identity.destroy_plan(VM, renewing))


def test_the_renewal_account_is_no_other_account_and_goes_before_the_one_that_it_renews() -> None:
    own = replace(seen(live()), accounts=("a-win-01", "a-win-01-renewal"))
    removed = fields(identity.destroy_plan(VM, own))
    assert removed == list(reversed(identity.wanted(VM)))
    assert removed[0] == SECRET


@pytest.mark.parametrize(
    ("site", "host"), [("a", "win-01-renewal"), ("a-win-01", "renewal")], ids=["this site", "another site"]
)
def test_an_account_of_a_host_that_is_named_like_the_renewal_account_is_not_taken(
    site: str, host: str
) -> None:
    objects = live()
    labels = {"vmproxy.io/site": site, "vmproxy.io/host": host}
    objects["serviceaccount/a-win-01-renewal"]["metadata"]["labels"] |= labels
    with pytest.raises(Conflict, match=f"a-win-01-renewal .*: it is that of host {host} of site {site}"):
        identity.plan(VM, seen(objects))
    assert "serviceaccount/a-win-01-renewal" not in fields(identity.destroy_plan(VM, seen(objects)))


def test_what_others_give_the_accounts_is_a_warning_that_names_it() -> None:
    grants = [
        Grant("a-win-01", "clusterrolebinding/theirs", "gives the rights of ClusterRole cluster-admin to"),
        Grant("a-win-01-renewal", "secret/theirs", "holds a token, which does not expire, of"),
        Grant("a-win-02", "clusterrolebinding/of-another-host", "gives the rights of Role x to"),
        Grant("a-win-01", "clusterrolebinding/vmproxy-a-win-01", "gives the rights of Role x to"),
        Grant("a-win-01-renewal", SECRET, "holds a token, which does not expire, of"),
    ]
    assert list(identity.warnings(VM, grants)) == [
        "clusterrolebinding/theirs, which vmproxy did not make, gives the rights of ClusterRole "
        "cluster-admin to a-win-01: remove it if nobody needs it",
        "secret/theirs, which vmproxy did not make, holds a token, which does not expire, of "
        "a-win-01-renewal: remove it if nobody needs it",
    ]


def test_the_rules_give_no_more_than_kube_proxy_reads() -> None:
    rules = identity.wanted(VM)[ROLE]["rules"]
    given = {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in rules}
    assert given == {
        (("services",), ("list", "watch")),
        (("endpointslices",), ("list", "watch")),
        (("servicecidrs",), ("list", "watch")),
        (("nodes",), ("get", "list", "watch")),
    }
    (nodes,) = [rule for rule in rules if rule["resources"] == ["nodes"]]
    assert nodes["resourceNames"] == ["win-01"]
    (events,) = identity.wanted(VM)["role/default/vmproxy-a-win-01"]["rules"]
    assert (events["resources"], events["verbs"]) == (["events"], ["create", "patch"])


def test_only_the_renewal_account_creates_tokens_and_it_does_nothing_else() -> None:
    objects = identity.wanted(VM)
    bound = {
        item["roleRef"]["name"]: [subject["name"] for subject in item["subjects"]]
        for item in objects.values()
        if item["kind"] == "RoleBinding"
    }
    assert bound == {"a-win-01": ["a-win-01-renewal"], "vmproxy-a-win-01": ["a-win-01"]}
    assert objects["role/a-win-01"]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts/token"],
            "resourceNames": ["a-win-01"],
            "verbs": ["create"],
        }
    ]
