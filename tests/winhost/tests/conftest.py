"""The emulated host for its own tests, and what is said where it can not run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.winhost.host import Machine, WinHost
from tests.winhost.presence import require
from vmproxy.transport.winrm import Limits, Login, WinRM

SOON = Limits(operation=2, lost=4.0)


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[WinHost]:
    """A host with one administrator; its PowerShell only where the test is marked `winhost`."""
    if request.node.get_closest_marker("winhost"):
        require()
    with WinHost(Machine(cmdlets=False)) as running:
        yield running


def client(host: WinHost, *, limits: Limits = SOON, **login: object) -> WinRM:
    """The product's client, logged in as the host's administrator by NTLM over https."""
    wanted = {"auth": "ntlm", "username": "Administrator", "password": host.password, **login}
    return WinRM(host.endpoint, Login(**wanted), ca=str(host.ca), limits=limits)  # type: ignore[arg-type]
