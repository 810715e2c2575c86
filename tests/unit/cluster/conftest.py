from __future__ import annotations

import pytest

from vmproxy.lab.pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(tmp_path_factory.mktemp("pki"))
    made.make(server_names=("127.0.0.1", "kubernetes.default"))
    return made
