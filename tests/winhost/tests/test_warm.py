"""What a command of a kept PowerShell process may know of the command before: nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.winhost.cmd import Pipes
from tests.winhost.host import Machine, WinHost
from tests.winhost.presence import require
from tests.winhost.tests.conftest import client
from tests.winhost.warm import Pool
from vmproxy.errors import NotReady
from vmproxy.util import wait

pytestmark = pytest.mark.winhost

ACCELERATORS = "System.Management.Automation.TypeAccelerators"


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _present() -> None:
    require()


@pytest.fixture
def host() -> Iterator[WinHost]:
    with WinHost(powershells=Pool(keep=True)) as running:
        yield running


def run(host: WinHost, script: str, *, variables: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
    """A script by powershell.exe, at pipes."""
    with ExitStack() as stack:
        ends = [tuple(stack.enter_context(closing(_End(one))) for one in os.pipe()) for _ in range(3)]
        (read, given), (out, written), (err, told) = ends
        os.write(given.number, stdin)
        given.close()
        interpreter = host._interpreter(host.administrator, variables or {})
        code = interpreter.run(
            f'powershell.exe -NoProfile -NonInteractive -Command "{script}"',
            Pipes(read.number, written.number, told.number),
        )
        written.close()
        told.close()
        return Ran(code, out.text(), err.text())


@dataclass
class _End:
    """Of a pipe; reading ends when nobody holds the other end open."""

    number: int

    def close(self) -> None:
        if self.number >= 0:
            os.close(self.number)
        self.number = -1

    def text(self) -> str:
        pieces = iter(lambda: os.read(self.number, 65536), b"")
        return b"".join(pieces).decode()


def process(host: WinHost, **more: Mapping[str, str]) -> int:
    return int(run(host, "$PID", **more).out)


def test_one_process_runs_one_command_after_another_and_each_counts(host: WinHost) -> None:
    first = process(host)
    assert run(host, "Get-VM; (Get-Command Get-VM).Name").out == "Get-VM\r\n"
    assert run(host, "Get-DnsClientNrptRule; ([type]'Net.Dns').FullName").out == "Windows.Dns\r\n"
    assert process(host) == first
    assert host.processes == 4


@pytest.mark.parametrize(
    ("leaves", "looks", "finds"),
    [
        ("$global:Left = 1", "[bool] $Left", "False"),
        ("function global:Left { 1 }", "[bool] (Get-Command Left -ErrorAction Ignore)", "False"),
        (
            "$env:LEFT = 1; $env:TEMP = $null",
            "[bool] $env:LEFT; $env:TEMP",
            "False\r\nC:\\Users\\Administrator\\",
        ),
        (
            "[Environment]::CurrentDirectory = 'C:\\Windows'; cd C:\\",
            "(Get-Location).Path",
            "C:\\Users\\Admin",
        ),
        ("Import-Module Hyper-V", "[bool] (Get-Module Hyper-V)", "False"),
        ("$ErrorActionPreference = 'Stop'", "$ErrorActionPreference", "Continue"),
        ("[Console]::OutputEncoding = [Text.Encoding]::Unicode", "'text'", "text"),
        ("class Left { }", "[bool] ('Left' -as [type])", "False"),
        ("New-PSDrive -Name L -PSProvider FileSystem -Root C:\\Windows | Out-Null", "Test-Path L:", "False"),
        ("Get-Item C:\\no-such-file", "$Error.Count", "0"),
    ],
)
def test_a_command_finds_nothing_of_the_one_before(
    host: WinHost, leaves: str, looks: str, finds: str
) -> None:
    first = process(host)
    run(host, leaves)
    assert run(host, looks).out.startswith(finds)
    assert process(host) == first


@pytest.mark.parametrize(
    "leaves",
    [
        "[AppDomain]::CurrentDomain.SetData('held', [IO.File]::Open('C:\\Windows\\held', 'Create')); exit 5",
        f"[psobject].Assembly.GetType('{ACCELERATORS}')::Add('L', [int]); exit 5",
        "[Diagnostics.Process]::Start('slow.exe').Id; exit 5",
    ],
    ids=["a file in use", "names of types", "a program"],
)
def test_what_ends_with_a_process_ends_with_the_command(host: WinHost, leaves: str) -> None:
    program = host.folder / "programs/slow.exe"
    program.write_text("#!/bin/sh\nexec >/dev/null 2>&1\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    first = process(host)
    ran = run(host, leaves)
    if ran.out:
        os.kill(int(ran.out), signal.SIGKILL)
    assert ran.code == 5
    assert run(host, "[IO.File]::Open('C:\\Windows\\held', 'Create').Close()").code == 0
    assert process(host) != first


def test_a_file_that_a_command_forgot_to_close_is_closed(host: WinHost) -> None:
    first = process(host)
    for _ in range(2):
        assert run(host, "$file = [IO.File]::Open('C:\\Windows\\held', 'Create', 'Write', 'None')").code == 0
    assert process(host) == first


def test_another_environment_is_another_process(host: WinHost) -> None:
    other = {"WINPS_CODEPAGE": "65001"}
    assert process(host) == process(host) != process(host, variables=other) == process(host, variables=other)


def test_a_policy_an_antivirus_and_an_event_log_are_those_of_a_new_process(
    host: WinHost, tmp_path: Path
) -> None:
    for name, value in (
        ("WINPS_LANGUAGE_MODE", "ConstrainedLanguage"),
        ("WINPS_BLOCKED", "forbidden"),
        ("WINPS_EVENTS", str(tmp_path / "events")),
    ):
        variables = {name: value}
        assert process(host, variables=variables) != process(host, variables=variables)


def test_exit_codes_are_those_of_a_process(host: WinHost) -> None:
    assert [run(host, f"exit {code}").code for code in (0, 7, 256, -1)] == [0, 7, 0, 255]
    assert run(host, "throw 'no'").code == 1
    assert run(host, "[Environment]::Exit(9)").code == 9
    assert run(host, "'after'").out == "after\r\n"


def test_input_is_the_commands_own(host: WinHost) -> None:
    first = process(host)
    assert run(host, "[Console]::In.ReadToEnd().Length", stdin=b"12345").out == "5\r\n"
    assert run(host, "[Console]::In.ReadToEnd().Length").out == "0\r\n"
    assert process(host) == first


def test_without_keeping_each_command_has_a_process_of_its_own() -> None:
    with WinHost(Machine(cmdlets=False)) as host:
        assert process(host) != process(host)


def test_a_process_that_is_killed_is_replaced(host: WinHost) -> None:
    first = process(host)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert run(host, "'after'").out == "after\r\n"
    assert process(host) != first


def test_a_restart_of_the_host_ends_the_idle_ones_too(host: WinHost) -> None:
    first = process(host)
    host.reboot()
    assert not Path(f"/proc/{first}").exists()
    assert process(host) != first


def test_a_client_that_is_done_does_not_end_a_process_that_waits_for_it(host: WinHost) -> None:
    pids = []
    for _ in range(3):
        with client(host) as wire, wire.powershell() as shell:
            pids.append(shell.call("$PID"))
        wait.until("the process to be kept", lambda: bool(host.powershells.idle) or "no", timeout=5)
    assert len(set(pids)) == 1


def test_a_client_that_gives_up_ends_a_process_that_is_busy(host: WinHost) -> None:
    with client(host) as wire, wire.powershell() as shell:
        pid = shell.call("$PID")
        with pytest.raises(NotReady):
            shell.call("while ($true) { }", timeout=1.0)
    wait.until("its end", lambda: not Path(f"/proc/{pid}").exists() or "no", timeout=5)
    assert host.powershells.idle == []


def test_two_commands_at_once_have_two_processes_that_are_both_kept(host: WinHost) -> None:
    wait = "while (-not (Test-Path C:\\Windows\\{0})) {{ }} $PID"
    ran: dict[str, Ran] = {}

    def one(name: str, other: str) -> None:
        script = f"Set-Content C:\\Windows\\{name} x; " + wait.format(other)
        ran[name] = run(host, script)

    threads = [threading.Thread(target=one, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pids = {int(one.out) for one in ran.values()}
    assert len(pids) == 2
    assert process(host) in pids


def test_no_process_is_left_of_a_host_that_ends() -> None:
    with WinHost(Machine(cmdlets=False), powershells=Pool(keep=True)) as host:
        pid = process(host)
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
