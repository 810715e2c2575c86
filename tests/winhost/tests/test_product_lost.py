"""What the product makes of a connection that is lost, and of a second controller, on the emulated host."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.winhost.hyperv.model import hyperv
from tests.winhost.presence import require
from tests.winhost.tests.product import DIRECTORY, IMAGE, NAME, SEED, Windows, windows
from vmproxy.errors import Busy, VmproxyError
from vmproxy.hosts.hyperv import carrier as product
from vmproxy.hosts.hyperv.paths import Paths

pytestmark = pytest.mark.winhost

MESSAGES = [
    ("Create", 1),
    ("Command", 1),
    *(("Send", nth) for nth in range(1, 21)),
    ("Signal", 1),
    ("Delete", 1),
]
"""Every message of a create but the Receives, which are repeated."""
FILES = [
    f"images/{IMAGE}.sha256",
    f"images/{IMAGE}.vhdx",
    f"{NAME}/disk-{IMAGE}.vhdx",
    f"{NAME}/seed-{SEED}.iso",
    "vmproxy.lock",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    require()
    with windows(tmp_path_factory.mktemp("windows")) as running:
        yield running


@pytest.fixture(autouse=True)
def _as_before(world: Windows) -> Iterator[None]:
    """Each test begins with nothing on the host."""
    yield
    world.winhost.switchboard.clear()
    if hyperv(world.state).vms or world.state.local(DIRECTORY).exists():
        world.destroy()
    assert not hyperv(world.state).vms
    assert not world.state.local(DIRECTORY).exists()


def test_a_create_has_no_more_messages_than_are_tried_here(world: Windows) -> None:
    before = len(world.winhost.messages)
    world.run()
    sent = world.winhost.messages[before:]
    assert sent.count("Send") <= max(nth for name, nth in MESSAGES if name == "Send")
    assert [sent.count(name) for name in ("Create", "Command", "Signal", "Delete")] == [1, 1, 1, 1]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("operation", "nth"), MESSAGES)
def test_after_any_message_of_a_create_was_lost_the_next_apply_converges(
    world: Windows, operation: str, nth: int, when: Literal["before", "after"]
) -> None:
    rule = world.winhost.switchboard.add("drop", operation=operation, nth=nth, when=when)
    problem = failure_of(world)
    assert rule.seen >= nth
    if problem is not None:
        assert "localhost" in problem.message
        assert problem.hint
    else:
        assert operation in {"Signal", "Delete"}  # the host tidies up by itself
    with world.place() as place, place.lock(world.said.append):  # one process also for what follows
        world.converge(place)
        (vm,) = hyperv(world.state).vms.values()
        assert vm.name == NAME
        assert [path for path in world.files() if "Virtual Machines" not in path] == sorted(FILES)
        world.remove(place)
    assert not world.state.local(DIRECTORY).exists()


def failure_of(world: Windows) -> VmproxyError | None:
    try:
        world.run()
    except VmproxyError as exc:
        return exc
    return None


def test_a_second_controller_waits_for_the_first_and_then_goes_on(world: Windows) -> None:
    with world.place() as first:
        holding, done = threading.Event(), threading.Event()

        def work() -> None:
            with first.lock(world.said.append):
                holding.set()
                done.wait(60.0)

        thread = threading.Thread(target=work)
        thread.start()
        assert holding.wait(30.0)
        said: list[str] = []
        with world.place() as second:
            threading.Timer(2.0, done.set).start()
            with second.lock(said.append):
                thread.join()
    assert said == ["another vmproxy works on win-01: waiting for it"]


def test_a_second_controller_stops_with_a_clear_word(world: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_LOCK_SECONDS", 1.0)
    said = world.said.append
    with (
        world.place() as first,
        first.lock(said),
        world.place() as second,
        pytest.raises(Busy),
        second.lock(said),
    ):
        raise AssertionError


def test_a_controller_that_died_leaves_no_lock(world: Windows) -> None:
    """Its process ends by itself when no frames come any more."""
    with world.connect(idle=3.0) as shell:
        shell._closing.set()  # as if nobody were there to send the empty frames
        shell.call("lib.ps1")
        paths = Paths(DIRECTORY, NAME)
        data = {"directory": DIRECTORY, "lock": paths.lock, "unfinished": paths.unfinished}
        data["images"] = paths.images
        assert shell.call("lock.ps1", data) == {"held": True}
        with world.place() as place:
            started = time.monotonic()
            with place.lock(world.said.append):
                assert time.monotonic() - started < 60.0


def test_a_host_that_restarts_in_the_middle_is_an_error_and_the_next_apply_converges(world: Windows) -> None:
    def restarts(line: str) -> None:
        if line.startswith("making the VM's disk"):
            world.winhost.reboot()

    def interrupted() -> None:
        with world.place() as place, place.lock(world.said.append):
            for step in world.plan(place, place.observe(), starts=False):
                place.do(step, restarts)

    with pytest.raises(VmproxyError):
        interrupted()
    world.run()
    assert len(hyperv(world.state).vms) == 1
