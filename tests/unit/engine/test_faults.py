"""A fault of vmproxy itself on one host is that host's error; all other results stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.memory import Product, made
from vmproxy.engine import phases, run
from vmproxy.errors import VmproxyError
from vmproxy.model.steps import failing_at
from vmproxy.model.topology import Member

FAULTS = [
    KeyError("token"),
    RecursionError("deep"),
    ValueError("no address"),
    AttributeError(),
    MemoryError(),
]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("hosts", [1, 3])
def test_one_host_fails_and_the_others_answer(tmp_path: Path, fault: Exception, hosts: int) -> None:
    member = Product(made()).topology.members[0]
    asked: list[Member] = []

    def work(host: Member) -> str:
        asked.append(host)
        if len(asked) == 1:
            raise fault
        return "done"

    results = run.for_each([member] * hosts, work)
    failed = [result for result in results if isinstance(result, VmproxyError)]
    assert len(failed) == 1
    assert failed[0].message.startswith("cannot continue on win-01: a fault of vmproxy itself (")
    assert str(tmp_path / "state/vmproxy/reports") in (failed[0].hint or "")
    assert results.count("done") == hosts - 1


def test_what_was_done_before_a_fault_stays_in_the_result_with_the_step_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_scope: object, steps: list[object]) -> Iterator[object]:
        yield steps[0]
        with failing_at(steps[1]):  # type: ignore[arg-type]
            raise TypeError("a datum that nobody expected")

    world = Product(made()).world
    world.cluster.objects.clear()
    identity = replace(phases.IDENTITY, change=broken)
    monkeypatch.setattr(run, "PHASES", (identity, *phases.PHASES[1:]))
    result = Product(world).apply()
    assert len(result.done) == 1
    assert result.error is not None
    assert "a fault of vmproxy itself (TypeError at test_faults.py:" in result.error.message
    assert result.error.step is not None


def test_a_report_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")

    def work(_host: Member) -> str:
        raise KeyError

    (result,) = run.for_each([Product(made()).topology.members[0]], work)
    assert isinstance(result, VmproxyError)
    assert "no report could be written" in (result.hint or "")
