"""One lab and one VM for all tests that leave them as they found them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Literal, NamedTuple

import pytest

from tests import names
from tests.hypervisors import Tier
from tests.integration import hyperv_world
from tests.integration.world import World, bring_up
from tests.winhost.presence import require
from vmproxy import lab

Kind = Literal["qemu", "hyperv"]


class Setup(NamedTuple):
    """On which kind of host a test runs, and what carries its VM."""

    kind: Kind
    tier: Tier

    def __str__(self) -> str:
        return f"{self.kind}-{self.tier}"

    @property
    def lab(self) -> str:
        """A lab of its own, so that several can be tested at the same time."""
        base = {"qemu": "it", "hyperv": "wh"}[self.kind]
        return names.own(base + ("vm" if self.tier == "vm" else ""))


@pytest.fixture(scope="session", autouse=True)
def _end_like_a_failure() -> Iterator[None]:
    """A SIGTERM ends the tests as Ctrl-C does, so that the lab is taken down."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module's `PLACES` says on which kinds of host its tests run; else on the embedded one.

    The VM is a container unless the test is marked: `vm(reason, on=(kinds,))`.
    """
    if "bare" in metafunc.fixturenames:
        places: tuple[Kind, ...] = getattr(metafunc.module, "PLACES", ("qemu",))
        setups = [Setup(kind, _tier(metafunc.definition.get_closest_marker("vm"), kind)) for kind in places]
        marked = [
            pytest.param(setup, id=str(setup), marks=pytest.mark.xdist_group(_group(setup, metafunc.module)))
            for setup in setups
        ]
        metafunc.parametrize("bare", marked, indirect=True, scope="session")


def _group(setup: Setup, module: ModuleType) -> str:
    """What runs in one worker: a file on one kind of host; of VMs all, as one fills the machine."""
    return "vm" if setup.tier == "vm" else f"{setup}/{module.__name__.rpartition('.')[2]}"


def _tier(mark: pytest.Mark | None, kind: Kind) -> Tier:
    if mark is None:
        return "container"
    (_reason,) = mark.args
    return "vm" if kind in mark.kwargs.get("on", (kind,)) else "container"


@pytest.fixture(scope="session")
def bare(request: pytest.FixtureRequest) -> Iterator[World]:
    """The lab; whatever VM there is."""
    if os.geteuid() != 0:
        pytest.fail("these tests need root: run make test, which asks sudo")
    setup: Setup = request.param
    folder = Path(tempfile.mkdtemp(prefix="site-"))  # short, as a VM's monitor is a socket in it
    try:
        if setup.kind == "hyperv":
            require()
            with hyperv_world.bring_up(setup.lab, folder, tier=setup.tier) as world:
                yield world
        else:
            yield bring_up(setup.lab, folder, tier=setup.tier)
    finally:
        lab.down(name=setup.lab, report=print)
        shutil.rmtree(folder)  # disks of 1 GiB


@pytest.fixture
def world(bare: World) -> World:
    """The lab with its VM in sync with the lab's own site file."""
    bare.reset()
    bare.settle()
    return bare


@pytest.fixture
def settled(bare: World) -> World:
    """The lab with its VM in sync with its site file: in a VM as the test before left it, which saves a boot.

    Which files share a container is a matter of how they are spread, and it boots in seconds.
    """
    if bare.failed or bare.tier == "container":
        bare.reset()
    bare.settle()
    return bare


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    report = yield
    world = item.funcargs.get("bare") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(world, World):
        world.failed, world.clean = True, False
        report.sections.append(("the guest's journal", world.journal()))
    return report
