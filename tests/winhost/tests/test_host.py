"""One emulated host as a whole: its namespaces, its cmdlets over the wire, a reboot, several at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import names
from tests.winhost.engine import CmdletError, CmdletFault
from tests.winhost.host import Machine, Version, WinHost
from tests.winhost.presence import require
from tests.winhost.tests.conftest import client
from tests.winhost.tests.relay import forwarding
from vmproxy.errors import Unreachable
from vmproxy.transport.powershell import PowerShellFailed
from vmproxy.transport.winrm import Login, WinRM
from vmproxy.util import netns
from vmproxy.util.run import run

pytestmark = pytest.mark.winhost
OUTSIDE, INSIDE = names.namespace("w-outside"), names.namespace("w-inside")


@pytest.fixture(autouse=True)
def _present() -> None:
    require()


@pytest.fixture
def namespaces() -> Iterator[None]:
    if os.geteuid() != 0:
        require("root is needed for network namespaces")
    for name in (OUTSIDE, INSIDE):
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
    yield
    for name in (OUTSIDE, INSIDE):
        run(["ip", "netns", "del", name])


@pytest.mark.usefixtures("namespaces")
def test_programs_run_inside_the_hosts_namespace_and_winrm_listens_in_another() -> None:
    machine = Machine(cmdlets=False, namespace=INSIDE, listen_namespace=OUTSIDE)
    with WinHost(machine) as host, netns.open_socket(INSIDE, "tcp") as inside:
        inside.bind(("127.0.0.1", 0))
        inside.listen()
        with pytest.raises(Unreachable, match="Connection refused"):
            client(host).__enter__()
        with forwarding(host.https.port, into=OUTSIDE) as port:
            login = Login("ntlm", "Administrator", host.password)
            wire = WinRM(f"https://localhost:{port}", login, ca=str(host.ca))
            with wire, wire.powershell() as ps:
                connected = "param($Data) (New-Object Net.Sockets.TcpClient('127.0.0.1', $Data)).Connected"
                assert ps.call(connected, inside.getsockname()[1]) is True


@pytest.mark.parametrize("version", ["2016", "2025"])
def test_cmdlets_of_each_version_answer_over_the_wire(version: Version) -> None:
    with WinHost(Machine(version=version)) as host:
        with client(host) as wire, wire.powershell() as ps:
            assert ps.call("Get-VM | ForEach-Object { $_.Name }") is None
            assert ps.call("(Get-Service vmms).Status.ToString()") == "Running"
            assert ps.call("(Get-CimInstance Win32_OperatingSystem).Caption").endswith(f"{version} Standard")
        assert host.processes == 1
        assert host.state.mistakes == []
        assert host.state.calls[0].cmdlet == "Get-VM"


def test_a_cmdlet_that_is_made_to_fail_is_told_in_its_words() -> None:
    with WinHost() as host:
        error = CmdletError("The RPC server is unavailable.", error_id="Rpc", category="ConnectionError")
        host.state.faults.append(CmdletFault("Get-VM", error=error))
        with client(host) as wire, wire.powershell() as ps:
            with pytest.raises(PowerShellFailed, match=r"The RPC server is unavailable\."):
                ps.call("Get-VM")
            ps.call("Get-VM")


def test_a_reboot_keeps_the_disk_and_ends_the_rest() -> None:
    with WinHost() as host:
        with client(host) as wire:
            ps = wire.powershell()
            ps.call("Set-Content -LiteralPath C:\\ProgramData\\kept.txt -Value kept")
            host.reboot()
            with pytest.raises(Unreachable):
                ps.call("1")
        with client(host) as wire, wire.powershell() as ps:
            assert ps.call("(Get-Content -LiteralPath C:\\ProgramData\\kept.txt) -join ''") == "kept"
        assert host.processes == 2


def test_two_hosts_know_nothing_of_each_other() -> None:
    with (
        WinHost(Machine(name="WIN-01", cmdlets=False)) as one,
        WinHost(Machine("WIN-02", cmdlets=False)) as two,
    ):
        (one.drive / "only-here").mkdir()
        for host in (one, two):
            with client(host) as wire, wire.powershell() as ps:
                assert ps.call("$env:COMPUTERNAME") == host.machine.name
                assert ps.call("Test-Path C:\\only-here") is (host is one)
        with pytest.raises(Unreachable, match="the login was refused"):
            client(two, password=one.password).__enter__()


def test_nothing_is_left_of_a_host_that_failed_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Path] = []

    def fails(host: WinHost, *_: object) -> None:
        left.append(host.folder)
        raise OSError("no port")

    monkeypatch.setattr(WinHost, "_listen", fails)
    with pytest.raises(OSError, match="no port"):
        WinHost(Machine(cmdlets=False)).__enter__()
    assert not left[0].exists()
