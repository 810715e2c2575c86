from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.guest.machine import Machine
from vmproxy.lab.pki import Pki


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root = tmp_path / "guest"
    root.mkdir()
    return Machine(root)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates for a server on loopback."""
    made = Pki(tmp_path_factory.mktemp("pki"))
    made.make(server_names=("127.0.0.1",))
    return made


@pytest.fixture(scope="session")
def other_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Another CA."""
    made = Pki(tmp_path_factory.mktemp("other-pki"))
    made.make(server_names=("127.0.0.1",))
    return made
