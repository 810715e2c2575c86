"""One lab and one VM for all tests that leave them as they found them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.integration import hyperv_world
from tests.integration.world import World, bring_up
from tests.winhost.presence import require
from vmproxy import lab

NAMES = {"qemu": "it", "hyperv": "wh"}
"""Each kind of host in a lab of its own, so that both can be tested at the same time."""


@pytest.fixture(scope="session", autouse=True)
def _end_like_a_failure() -> Iterator[None]:
    """A SIGTERM ends the tests as Ctrl-C does, so that the lab is taken down."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module's `PLACES` says on which kinds of host its tests run; else on the embedded one."""
    if "bare" in metafunc.fixturenames:
        places = getattr(metafunc.module, "PLACES", ("qemu",))
        marked = [pytest.param(place, marks=pytest.mark.xdist_group(place)) for place in places]
        metafunc.parametrize("bare", marked, indirect=True, scope="session")


@pytest.fixture(scope="session")
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The lab; whatever VM there is."""
    if os.geteuid() != 0:
        pytest.fail("these tests need root: run make test, which asks sudo")
    name, folder = NAMES[request.param], tmp_path_factory.mktemp("site")
    try:
        if request.param == "hyperv":
            require()
            with hyperv_world.bring_up(name, folder) as world:
                yield world
        else:
            yield bring_up(name, folder)
    finally:
        lab.down(name=name, report=print)


@pytest.fixture
def world(bare: World) -> World:
    """The lab with its VM in sync with the lab's own site file."""
    if not bare.clean:
        bare.reset()
        _settle(bare)
    return bare


@pytest.fixture
def settled(bare: World) -> World:
    """The lab with its VM in sync with the site file as the test before left it: it saves a boot."""
    if not bare.clean:
        _settle(bare)
    return bare


def _settle(world: World) -> None:
    """From nothing where a test failed, so that one failure is not the next test's too."""
    if world.failed:
        world.reset()
        world.vmproxy("destroy", "--yes")
        world.failed = False
    world.apply("--yes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    report = yield
    world = item.funcargs.get("bare") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(world, World):
        world.failed, world.clean = True, False
    return report
