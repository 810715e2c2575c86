"""The engine without PowerShell: what a request becomes, and what is behind every cmdlet."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.winhost import engine, hyperv  # noqa: F401 (hyperv registers its cmdlets)
from tests.winhost.engine import Call, CmdletError, CmdletFault, Enum, Item, Ref, Warn
from tests.winhost.state import Host
from tests.winhost.values import CimEnum, UInt16, encoded


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """What the cmdlet `Get-Anything` gives; it is emulated meanwhile."""
    outputs: list[Any] = []

    def give(host: Host, call: Call) -> Iterator[Any]:
        for one in outputs:
            if isinstance(one, CmdletError) and one.terminating:
                raise one
            yield one

    engine.emulates("Get-Anything")(give)
    yield outputs
    del engine.BEHAVIOURS["get-anything"]


def ask(host: Host, cmdlet: str = "Get-Anything", **parameters: Any) -> dict[str, Any]:
    return engine.answer(host, {"cmdlet": cmdlet, "parameters": parameters, "set": ""})


def test_a_cmdlet_that_nobody_emulates_is_an_error() -> None:
    answer = ask(Host(), "Get-Nothing")

    assert answer["outputs"] == []
    assert answer["error"]["message"] == "not emulated: Get-Nothing"
    assert (answer["error"]["category"], answer["error"]["terminating"]) == ("NotImplemented", True)


def test_nothing_is_emulated_twice(said: list[Any]) -> None:
    with pytest.raises(ValueError, match="get-ANYTHING is emulated twice"):
        engine.emulates("get-ANYTHING")(lambda host, call: None)


def test_items_errors_and_warnings_keep_their_order(said: list[Any]) -> None:
    said += [Item("A.B", "1"), CmdletError("no", terminating=False), Warn("careful"), "text"]
    outputs = ask(Host())["outputs"]

    assert [next(iter(one)) for one in outputs] == ["value", "error", "warning", "value"]


def test_an_error_keeps_what_came_before_it(said: list[Any]) -> None:
    said += ["one", CmdletError("stop", error_id="Stopped", target="t"), "never"]
    answer = ask(Host())

    assert answer["outputs"] == [{"value": "one"}]
    assert (answer["error"]["id"], answer["error"]["target"]) == ("Stopped", "t")


def test_arguments_come_back_as_references(said: list[Any]) -> None:
    host = Host()
    ask(host, VM=[{"$type": "X.VirtualMachine", "$ref": "7"}], Table={"a": [1, {"b": None}]})

    (call,) = host.calls
    assert call.list("VM") == [Ref("X.VirtualMachine", "7")]
    assert call.get("Table") == {"a": [1, {"b": None}]}
    assert call.has("VM")
    assert not call.switch("Force")
    assert call.list("Nothing") == []


def test_a_value_without_a_type_of_powershells_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        encoded(Path("x"))


def test_typed_values() -> None:
    item = Item(
        "A", "1", {"state": Enum("VMState", "Off"), "n": UInt16(7), "p": [CimEnum(3, "NetMgmt"), None]}
    )

    assert encoded(item)["properties"] == {
        "state": {"$": "enum:VMState", "value": "Off"},
        "n": {"$": "uint16", "value": 7},
        "p": {"$": "list", "value": [{"$": "cimenum", "value": [3, "NetMgmt"]}, None]},
    }


@pytest.mark.parametrize(
    "parameters",
    [{"ComputerName": ["other"]}, {"CimSession": ["other"]}, {"Credential": ["x"]}, {"AsJob": True}],
)
def test_what_is_for_elsewhere_is_refused_before_anything_happens(
    said: list[Any], parameters: dict[str, Any]
) -> None:
    said.append("done")

    answer = ask(Host(), **parameters)
    assert answer["outputs"] == []
    assert answer["error"]["category"] == "NotImplemented"


def test_faults_hit_the_calls_that_they_name(said: list[Any]) -> None:
    host = Host(faults=[CmdletFault("get-anything", nth=2, times=2, error=CmdletError("broken"))])

    assert [ask(host)["error"] is None for _ in range(4)] == [True, False, False, True]
    assert len(host.calls) == 4


def test_a_fault_is_an_error_unless_it_is_a_delay(said: list[Any]) -> None:
    assert ask(Host(faults=[CmdletFault("Get-Anything")]))["error"]["id"] == "OperationFailed"
    assert ask(Host(faults=[CmdletFault("Get-Anything", seconds=0.01)]))["error"] is None


def test_a_fault_after_the_work_leaves_it_done(said: list[Any]) -> None:
    said.append("done")
    host = Host(faults=[CmdletFault("Get-Anything", error=CmdletError("late"), after=True)])
    answer = ask(host)

    assert answer["outputs"] == [{"value": "done"}]
    assert answer["error"]["message"] == "late"


def test_without_the_role_or_its_service_hyper_v_fails(said: list[Any]) -> None:
    for host in (Host(features=set()), Host(services={"vmms": "Stopped"})):
        error = ask(host, "Get-VM")["error"]
        assert error["category"] == "ObjectNotFound"
        assert "Virtual Machine Management service" in error["message"]


def test_a_client_that_goes_away_does_not_end_the_server(said: list[Any], tmp_path: Path) -> None:
    host = Host()
    request = json.dumps({"cmdlet": "Get-Anything", "parameters": {}, "set": ""}).encode() + b"\n"
    with engine.serving(host, tmp_path / "engine") as path:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(request * 50)
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
            client.connect(str(path))
            client.sendall(request + b"not json\n")
            assert json.loads(answers.readline()) == {"outputs": [], "error": None}
            assert "mistake" in json.loads(answers.readline())["error"]["message"]
    assert not (tmp_path / "engine").exists()


def test_windows_paths_are_found_whatever_their_case(tmp_path: Path) -> None:
    (tmp_path / "Users/Public").mkdir(parents=True)
    host = Host(drives={"C": tmp_path})

    assert host.local(r"c:\USERS/public") == tmp_path / "Users/Public"
    assert host.local(r"C:\Users\new.txt") == tmp_path / "Users/new.txt"
    with pytest.raises(FileNotFoundError):
        host.local(r"Q:\x")


def test_a_part_is_made_once() -> None:
    host = Host()

    assert host.part(dict) is host.part(dict)
