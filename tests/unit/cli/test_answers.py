"""Every JSON document has its type's keys, also when a host failed; docs/json.md shows and explains them."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address, ip_interface
from pathlib import Path
from types import UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import click
import pytest

from tests.values import route
from vmproxy.cli import answers, cli
from vmproxy.engine.run import HostResult
from vmproxy.errors import VmproxyError
from vmproxy.image import Image
from vmproxy.lab import LabStatus
from vmproxy.model.seen import Unobservable
from vmproxy.model.steps import Plan, SetRoute
from vmproxy.operations.doctor import Finding
from vmproxy.operations.status import (
    CredentialStatus,
    HostStatus,
    NamesStatus,
    PodRoutesStatus,
    ProxyStatus,
    RouteStatus,
    VmStatus,
)
from vmproxy.operations.verify import Check

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/json.md").read_text()

ROUTE = route("10.96.0.0/16", "192.168.10.5")
STEP = SetRoute(ROUTE, (), (ROUTE,))
STATUS = HostStatus(
    vm=VmStatus("running", "vmproxy-a-win-01", ip_interface("192.168.10.5/24"), image_age=12),
    proxy=ProxyStatus("live", "nftables", "v1.36.3", rule_age=4.2, failures=0),
    route=RouteStatus("set", (ROUTE,)),
    names=NamesStatus("set", "cluster.local", ip_address("10.96.0.10")),
    credential=CredentialStatus("valid", datetime(2026, 11, 25, 9, 39, 26, tzinfo=UTC)),
    converged=True,
    drops={"unknown_service": 2, "transit": 0},
    repairs={"routes": 1},
    warnings=("kube-proxy failed to write its rules 2 times; see: vmproxy logs",),
    pod_routes=PodRoutesStatus("current", "endpoints", routes=14, since=61.5),
)
UNSEEN = HostStatus(
    vm=VmStatus("absent", "vmproxy-a-win-01"),
    proxy=Unobservable("the VM does not run"),
    route=RouteStatus("missing", ()),
    credential=Unobservable("the VM does not run"),
    converged=False,
)
CHECKS = (
    Check("demo/web:80", "tcp", ok=True, hop=None, detail="answered in 1.8 ms"),
    Check("demo/log:514", "udp", ok=None, hop=None, detail="no answer to 3 datagrams"),
    Check("demo/pods:80", "tcp", ok=False, hop="endpoint", detail="the VM does not reach 10.244.1.10:8080"),
    Check(
        "demo/web",
        "dns",
        ok=True,
        hop=None,
        detail="web.demo.svc.cluster.local is 10.96.7.1 by Resolve-DnsName and GetHostAddresses",
    ),
)
FINDING = Finding(
    "memory", ok=False, detail="200 MiB free, 512 MiB needed", next_step="set vm.memory to less"
)
IMAGE = Image(
    name="debian-13",
    raw=Path("/root/.cache/vmproxy/images/debian-13.raw"),
    sha256="5f3e8d6c0b7a41928374655647382910a1b2c3d4e5f60718293a4b5c6d7e8f90",
    origin="https://images.corp.example/debian-13.qcow2",
    size=2 << 30,
    made=datetime(2026, 11, 25, tzinfo=UTC).timestamp(),
)
LAB = LabStatus(
    running=True,
    kubeconfig=Path("/root/.local/state/vmproxy/lab/lab/kubeconfig"),
    site=Path("/root/.local/state/vmproxy/lab/lab/vmproxy.yaml"),
    namespaces={"host": "lab-host"},
    binaries={"etcd": Path("/root/.cache/vmproxy/binaries/etcd")},
)
FAILED = VmproxyError("cannot reach win-01: no route", hint="look at its cable", details=["tried twice"])

GOOD: dict[str, tuple[Any, Any]] = {
    "plan": (answers.HostPlan, answers.plan("win-01", Plan((STEP,)))),
    "apply": (
        answers.HostChanges,
        answers.changes("win-01", HostResult("win-01", (STEP,))),
    ),
    "status": (answers.HostStatus, answers.status("win-01", STATUS)),
    "verify": (answers.HostChecks, answers.verify("win-01", CHECKS)),
    "doctor": (answers.HostFindings, answers.doctor("win-01", (FINDING,))),
}
BAD: dict[str, Any] = {
    "plan": answers.plan("win-01", FAILED),
    "apply": answers.changes("win-01", FAILED),
    "status": answers.status("win-01", FAILED),
    "verify": answers.verify("win-01", FAILED),
    "doctor": answers.doctor("win-01", FAILED),
}
DOCUMENTS: dict[str, tuple[Any, Any]] = {
    **{command: (answers.Hosts, {"hosts": [answer]}) for command, (_, answer) in GOOD.items()},
    "image": (answers.Images, answers.images([IMAGE])),
    "lab": (answers.Lab, answers.lab(LAB)),
}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has exactly its type's keys, recursively, and what they may hold."""
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        always = {key for key, hint in hints.items() if get_origin(hint) is not NotRequired}
        exact = isinstance(value, dict) and always <= value.keys() <= hints.keys()
        return exact and all(fits(inner, hints[key]) for key, inner in value.items())
    origin, args = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, args[1]) for item in value.values())
    if origin is Literal:
        return value in args
    if origin in {Union, UnionType, NotRequired}:
        return any(fits(value, arg) for arg in args)
    return kind is Any or isinstance(kind, TypeVar) or isinstance(value, kind)


def example(command: str) -> Any:
    (text,) = re.findall(rf"```json {command}\n(.*?)```", PAGE, re.DOTALL)
    return json.loads(text)


def answering(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands that can write JSON."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from answering(command, (*path, name))
        elif command and any(option.name == "output" for option in command.params):
            yield " ".join((*path, name))


@pytest.mark.parametrize("command", DOCUMENTS)
def test_each_example_is_what_the_command_writes_and_has_its_types_keys(command: str) -> None:
    shape, document = DOCUMENTS[command]
    shown = example(command)
    assert shown == document
    assert fits(shown, shape)
    assert all(fits(host, GOOD[command][0]) for host in shown.get("hosts", ()))


def test_every_command_that_writes_json_has_an_example() -> None:
    headings = re.findall(r"^## (.+)\n\n```json", PAGE, re.MULTILINE)
    assert sorted(", ".join(headings).split(", ")) == sorted(answering(cli))


def test_the_page_explains_every_key_of_every_shape() -> None:
    made = runpy.run_path(str(ROOT / "scripts/json-doc"))["page"]()
    assert made == PAGE, "run scripts/json-doc"
    shapes = [name for name, kind in vars(answers).items() if is_typeddict(kind)]
    assert sorted(re.findall(r"^\| (\w+) \| Value", PAGE, re.MULTILINE)) == sorted(shapes)


@pytest.mark.parametrize("command", BAD)
def test_a_host_that_failed_has_all_keys_of_a_good_one(command: str) -> None:
    shape, good = GOOD[command]
    assert list(BAD[command]) == list(good)
    assert fits(BAD[command], shape)
    assert BAD[command]["error"] == {
        "message": "cannot reach win-01: no route",
        "hint": "look at its cable",
        "details": ["tried twice"],
    }


def test_a_host_that_failed_is_neither_in_sync_nor_ok_and_its_state_is_not_known() -> None:
    assert BAD["plan"]["inSync"] is False
    assert BAD["verify"]["ok"] is False
    assert BAD["doctor"]["ok"] is False
    assert {BAD["status"][part] for part in ("vm", "proxy", "route", "credential", "converged")} == {None}


def test_what_could_not_be_seen_of_a_host_says_why() -> None:
    answer = answers.status("win-01", UNSEEN)
    assert fits(answer, answers.HostStatus)
    assert answer["vm"] == {"state": "absent", "name": "vmproxy-a-win-01"}
    assert answer["proxy"] == {"state": "unknown", "detail": "the VM does not run"}
    assert answer["credential"] == answer["proxy"]


def test_changes_that_were_made_before_a_failure_stay_in_the_answer() -> None:
    answer = answers.changes("win-01", HostResult("win-01", (STEP,), error=FAILED))
    assert [outcome["target"] for outcome in answer["outcomes"]] == [STEP.target]
    assert answer["error"] == BAD["apply"]["error"]


@pytest.mark.parametrize("change", [{"extra": 1}, {"ok": "yes"}, {"checks": None}, {"checks": [{}]}])
def test_another_shape_does_not_fit(change: dict[str, Any]) -> None:
    assert not fits({**GOOD["verify"][1], **change}, answers.HostChecks)
