"""One lab and one VM for all tests that leave them as they found them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.integration.world import World, bring_up
from vmproxy import lab

NAME = "it"


@pytest.fixture(scope="session", autouse=True)
def _end_like_a_failure() -> Iterator[None]:
    """A SIGTERM ends the tests as Ctrl-C does, so that the lab is taken down."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The lab; whatever VM there is."""
    if os.geteuid() != 0:
        pytest.fail("these tests need root: run make test, which asks sudo")
    try:
        yield bring_up(NAME, tmp_path_factory.mktemp("site"))
    finally:
        lab.down(name=NAME, report=print)


@pytest.fixture
def world(bare: World) -> Iterator[World]:
    """The lab with its VM in sync with the lab's own site file; brought back there afterwards."""
    bare.reset()
    bare.apply("--yes")
    yield bare
    bare.reset()
