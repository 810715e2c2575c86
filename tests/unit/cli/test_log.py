"""What a run writes to stderr, through the command line, in a world of plain data."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.memory import MemoryArtifacts, links
from vmproxy import api
from vmproxy.cli import cli
from vmproxy.hosts.memory import MemoryWorld
from vmproxy.model.topology import Topology
from vmproxy.util.events import Amount, Reporter

SITE = """name: a
hosts:
- {name: win-01, qemu: {}, network: {address: 192.0.2.5/24, gateway: 192.0.2.1}}
"""
SECOND = "- {name: win-02, qemu: {}, network: {address: 198.51.100.5/24, gateway: 198.51.100.1}}\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryWorld:
    """The product's connections lead into it."""
    made = MemoryWorld()
    (tmp_path / "vmproxy.yaml").write_text(SITE)
    monkeypatch.chdir(tmp_path)

    def connections(_topology: Topology) -> Any:
        return links({"win-01": made, "win-02": MemoryWorld(cluster=made.cluster)}, MemoryArtifacts())

    monkeypatch.setattr(api, "connections", connections)
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words, standalone_mode=False)


def lines(ran: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.stderr.splitlines()]


def test_every_line_of_a_json_log_is_an_event_of_its_host_at_its_time(world: MemoryWorld) -> None:
    ran = run("apply", "--log-format", "json")
    assert ran.return_value == 0
    events = lines(ran)
    assert {line["host"] for line in events} == {"win-01"}
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in events)
    phases = [line["name"] for line in events if line["event"] == "phase"]
    assert phases == ["identity", "switch", "vm", "pods", "guest", "routes", "containers", "names"]
    steps = [(line["place"], line["verb"]) for line in events if line["event"] == "step"]
    assert ("host", "create") in steps
    assert steps[-1] == ("host", "add")
    assert events[-1]["event"] == "ended"
    assert events[-1]["error"] is None
    assert f"win-01: {events[-1]['steps']} changes made" in ran.stdout
    assert any(line["event"] == "warned" and "plain gateway" in line["text"] for line in events)


def test_an_error_is_an_event_with_its_hint(world: MemoryWorld) -> None:
    world.cluster.reachable = False
    ran = run("apply", "--log-format", "json")
    assert ran.return_value == 1
    ended, error = lines(ran)[-2:]
    assert (ended["event"], ended["error"]) == ("ended", error["message"])
    assert error["event"] == "error"
    assert error["host"] == "win-01"
    assert set(error) == {"time", "event", "host", "message", "hint", "details"}


def test_errors_of_several_hosts_are_told_apart(world: MemoryWorld) -> None:
    world.cluster.reachable = False
    Path("vmproxy.yaml").write_text(SITE + SECOND)
    events = lines(run("apply", "--log-format", "json"))
    assert [line["host"] for line in events if line["event"] == "error"] == ["win-01", "win-02"]
    assert all(line["host"] for line in events)
    shown = run("apply").stderr.splitlines()
    for name in ("win-01", "win-02"):
        assert shown[shown.index(f"{name}:") + 1].startswith("error: cannot reach the API server")


def test_what_destroy_would_do_ends_as_any_other_run(world: MemoryWorld) -> None:
    run("apply")
    ended = lines(run("destroy", "--log-format", "json"))[-1]
    assert (ended["event"], ended["steps"], ended["error"]) == ("ended", 0, None)
    assert world.vms


def test_a_person_reads_the_steps_and_no_json(world: MemoryWorld) -> None:
    ran = run("apply")
    assert "create namespace/vmproxy" in ran.stderr
    assert "{" not in ran.stderr
    assert "in sync" in run("apply").stdout


def test_plan_and_destroy_go_through_the_same_world(world: MemoryWorld) -> None:
    assert run("plan", "--exit-code").return_value == 3
    assert run("apply").return_value == 0
    assert run("plan", "--exit-code").return_value == 0
    assert run("status").return_value == 0
    assert run("destroy").return_value == 3
    assert run("destroy", "--yes").return_value == 0
    assert (world.vms, world.cluster.objects, world.routes) == ({}, {}, [])


def test_a_transfer_carries_its_numbers() -> None:
    sent: list[Any] = []
    report = Reporter(lambda host, event: sent.append((host, event)), "win-01")
    report(Amount("8 of 16 MiB", done=8 << 20, total=16 << 20))
    report("unpacking")
    assert [(host, event.text, event.done, event.total) for host, event in sent] == [
        ("win-01", "8 of 16 MiB", 8 << 20, 16 << 20),
        ("win-01", "unpacking", None, None),
    ]
