"""WS-Management on the wire, by pywinrm's Protocol: what any client of WinRM sees."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
import requests
from winrm.exceptions import (
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol

from tests.winhost.auth import Account
from tests.winhost.host import Machine, WinHost
from vmproxy.util import wait

NO_SUCH = 2150858843


@pytest.fixture
def host() -> Iterator[WinHost]:
    with WinHost(Machine(cmdlets=False)) as running:
        program = running.folder / "programs/sh.exe"
        program.write_text('#!/bin/sh\nPATH=/usr/bin:/bin exec /bin/sh "$@"\n')
        program.chmod(0o755)
        yield running


@pytest.fixture
def wire(host: WinHost) -> Iterator[Protocol]:
    opened = protocol(host)
    yield opened
    opened.transport.close_session()


def protocol(host: WinHost, account: Account | None = None, *, timeout: int = 1) -> Protocol:
    user = account or host.administrator
    return Protocol(
        host.endpoint + "/wsman",
        transport="ntlm",
        username=user.name,
        password=user.password,
        ca_trust_path=str(host.ca),
        operation_timeout_sec=timeout,
        read_timeout_sec=timeout + 10,
        proxy=None,
    )


def fault(action: object, *arguments: object, **options: object) -> WSManFaultError:
    with pytest.raises(WSManFaultError) as caught:
        action(*arguments, **options)  # type: ignore[operator]
    return caught.value


def output(wire: Protocol, shell: str, command: str) -> tuple[bytes, bytes, int]:
    out, err, code = wire.get_command_output(shell, command)
    return out, err, code


def test_run_cmd_is_five_messages(host: WinHost, wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "echo", ["hello"])
    assert output(wire, shell, command) == (b"hello\r\n", b"", 0)
    wire.cleanup_command(shell, command)
    wire.close_shell(shell)
    messages = [
        one for one, before in zip(host.messages, [None, *host.messages], strict=False) if one != before
    ]
    assert messages == ["Create", "Command", "Receive", "Signal", "Delete"]  # Receive once or twice
    assert host.service.shells == {}


@pytest.mark.parametrize(("console", "length"), [(True, 4094), (False, 10_003)])
def test_a_console_s_input_cuts_lines_and_a_pipe_s_does_not(
    wire: Protocol, console: bool, length: int
) -> None:
    shell = wire.open_shell()
    words = ["-c", '"read x; printf %s $x | wc -c"']
    command = wire.run_command(shell, "sh", words, console_mode_stdin=console)
    wire.send_command_input(shell, command, b"x" * 10_000 + b"\x1a\x03\x08\n")
    assert output(wire, shell, command)[0].strip() == str(length).encode()


def test_stderr_and_the_exit_code_arrive_apart(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "echo out & nosuchthing & exit 3", [])
    out, err, code = output(wire, shell, command)
    assert (out, code) == (b"out \r\n", 3)
    assert err.startswith(b"'nosuchthing' is not recognized")


def test_a_command_line_above_8191_characters_is_too_long(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "echo", ["x" * 8187])
    assert output(wire, shell, command) == (b"", b"The command line is too long.\r\n", 1)


def test_input_is_handed_on_until_its_end(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"wc -c"'], console_mode_stdin=False)
    for _ in range(3):
        wire.send_command_input(shell, command, b"x" * 100_000)
    wire.send_command_input(shell, command, b"end", end=True)
    assert output(wire, shell, command)[0].strip() == b"300003"


def test_output_comes_as_soon_as_there_is_any(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"echo first; read go; echo second"'])
    out, _, _, done = wire.get_command_output_raw(shell, command)
    assert (out, done) == (b"first\n", False)
    wire.send_command_input(shell, command, b"go\n", end=True)
    assert output(wire, shell, command) == (b"second\n", b"", 0)


def test_a_receive_without_output_is_held_and_then_a_fault(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"sleep 30"'], console_mode_stdin=False)
    began = time.monotonic()
    with pytest.raises(WinRMOperationTimeoutError):
        wire.get_command_output_raw(shell, command)
    assert time.monotonic() - began > 0.9


def test_an_operation_timeout_above_the_hosts_is_cut(host: WinHost) -> None:
    host.quotas.longest_wait = 0.3
    wire = protocol(host, timeout=15)
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"sleep 30"'], console_mode_stdin=False)
    began = time.monotonic()
    with pytest.raises(WinRMOperationTimeoutError):
        wire.get_command_output_raw(shell, command)
    assert time.monotonic() - began < 10
    wire.transport.close_session()


def test_long_output_is_cut_to_the_clients_envelope_and_whole_in_the_end(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"head -c 700000 /dev/zero"'])
    first, _, _, done = wire.get_command_output_raw(shell, command)
    assert 0 < len(first) < 115_000
    assert not done
    assert len(first) + len(output(wire, shell, command)[0]) == 700_000


def test_signal_kills_the_whole_process_group_and_forgets_the_command(host: WinHost, wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"sleep 600 & echo $!; wait"'])
    child = int(wire.get_command_output_raw(shell, command)[0])
    assert _runs(child)
    wire.cleanup_command(shell, command)
    _ended(child)
    assert fault(wire.get_command_output_raw, shell, command).wsman_fault_code == NO_SUCH


def test_unknown_shells_and_commands_are_faults(wire: Protocol) -> None:
    shell = wire.open_shell()
    unknown = str(uuid.uuid4()).upper()
    told = fault(wire.run_command, unknown, "echo", ["x"])
    assert told.wsman_fault_code == NO_SUCH
    assert told.fault_subcode == "w:InvalidSelectors"
    assert fault(wire.get_command_output_raw, shell, unknown).wsman_fault_code == NO_SUCH
    assert fault(wire.close_shell, unknown, close_session=False).wsman_fault_code == NO_SUCH


def test_input_for_a_program_that_ended_is_a_fault(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "echo", ["x"])
    output(wire, shell, command)
    assert fault(wire.send_command_input, shell, command, b"more").wsman_fault_code == 232


def test_input_that_nobody_reads_times_out(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"sleep 30"'], console_mode_stdin=False)
    with pytest.raises(WinRMOperationTimeoutError):
        wire.send_command_input(shell, command, b"x" * 300_000)  # more than the pipe takes


def test_a_message_above_500_kilobytes_is_413_and_changes_nothing(wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"wc -c"'], console_mode_stdin=False)
    with pytest.raises(WinRMTransportError) as caught:
        wire.send_command_input(shell, command, b"x" * 400_000)
    assert caught.value.code == 413
    wire.send_command_input(shell, command, b"x" * 375_000, end=True)
    assert output(wire, shell, command)[0].strip() == b"375000"


def test_a_shell_outlives_the_connection(host: WinHost, wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"cat"'], console_mode_stdin=False)
    wire.transport.close_session()
    other = protocol(host)
    other.send_command_input(shell, command, b"still there", end=True)
    assert output(other, shell, command)[0] == b"still there"
    other.close_shell(shell)


def test_output_for_a_client_that_hung_up_comes_with_the_next_receive(host: WinHost) -> None:
    wire, impatient = protocol(host), protocol(host)
    shell = wire.open_shell()
    command = wire.run_command(shell, "echo", ["kept"])
    impatient.transport.read_timeout_sec = 1
    host.switchboard.add("delay", operation="Receive", seconds=1.5)
    with pytest.raises(requests.exceptions.ReadTimeout):
        impatient.get_command_output_raw(shell, command)
    impatient.transport.close_session()
    time.sleep(1)
    assert output(wire, shell, command)[0] == b"kept\r\n"
    wire.transport.close_session()


def test_a_shell_belongs_to_its_user(host: WinHost, wire: Protocol) -> None:
    other = Account("second", "secret-2")
    host.accounts.append(other)
    shell = wire.open_shell()
    stranger = protocol(host, other)
    assert fault(stranger.run_command, shell, "echo", ["x"]).wsman_fault_code == NO_SUCH
    stranger.transport.close_session()


def test_a_shell_without_messages_expires_and_its_programs_end(host: WinHost, wire: Protocol) -> None:
    shell = wire.open_shell(idle_timeout="PT2S")
    command = wire.run_command(shell, "sh", ["-c", '"echo $$; sleep 600"'])
    child = int(wire.get_command_output_raw(shell, command)[0])
    assert _runs(child)
    wait.until("the shell's end", lambda: host.service.shells == {} or "it is there", timeout=60, every=0.05)
    _ended(child)
    assert fault(wire.run_command, shell, "echo", ["x"]).wsman_fault_code == NO_SUCH


def test_a_held_receive_keeps_the_shell_alive(host: WinHost) -> None:
    wire = protocol(host, timeout=4)
    shell = wire.open_shell(idle_timeout="PT2S")
    command = wire.run_command(shell, "sh", ["-c", '"sleep 30"'], console_mode_stdin=False)
    with pytest.raises(WinRMOperationTimeoutError):
        wire.get_command_output_raw(shell, command)
    wire.cleanup_command(shell, command)


def test_create_honours_folder_environment_and_code_page(host: WinHost, wire: Protocol) -> None:
    (host.drive / "work").mkdir()
    (host.drive / "work/here.txt").write_text("found")
    shell = wire.open_shell(working_directory="C:\\work", env_vars={"MINE": "42"}, codepage=65001)
    command = wire.run_command(shell, "type here.txt & echo %MINE% & set WINPS_CODEPAGE", [])
    assert output(wire, shell, command)[0] == b"found42 \r\nWINPS_CODEPAGE=65001\r\n"


def test_more_shells_than_a_user_may_have_are_refused(host: WinHost, wire: Protocol) -> None:
    host.quotas.shells_per_user = 3
    for _ in range(3):
        wire.open_shell()
    told = fault(wire.open_shell)
    assert (told.wsman_fault_code, told.fault_subcode) == (2150859173, "w:QuotaLimit")
    wire.close_shell(next(iter(host.service.shells)))
    assert wire.open_shell()


def test_more_users_than_may_work_at_once_are_refused(host: WinHost, wire: Protocol) -> None:
    host.quotas.users = 1
    host.accounts.append(Account("second", "secret-2"))
    wire.open_shell()
    stranger = protocol(host, host.accounts[1])
    assert fault(stranger.open_shell).wsman_fault_code == 2150859179
    stranger.transport.close_session()


def test_more_processes_than_a_shell_may_run_are_refused(host: WinHost, wire: Protocol) -> None:
    host.quotas.processes_per_shell = 2
    shell = wire.open_shell()
    for _ in range(2):
        wire.run_command(shell, "sh", ["-c", '"sleep 30"'], console_mode_stdin=False)
    assert fault(wire.run_command, shell, "echo", ["x"]).wsman_fault_code == 2150859241


def test_ended_commands_still_count_until_the_shell_is_deleted(host: WinHost, wire: Protocol) -> None:
    host.quotas.operations_per_user = 4
    shell = wire.open_shell()
    for _ in range(4):
        wire.cleanup_command(shell, wire.run_command(shell, "echo", ["x"]))
    told = fault(wire.run_command, shell, "echo", ["x"])
    assert (told.wmierror_code, told.fault_subcode) == (2150859174, "w:QuotaLimit")
    wire.close_shell(shell, close_session=False)
    shell = wire.open_shell()
    assert wire.run_command(shell, "echo", ["x"])


def test_who_is_no_administrator_gets_access_denied_at_create(host: WinHost) -> None:
    host.accounts.append(Account("plain", "secret-3", administrator=False))
    wire = protocol(host, host.accounts[1])
    told = fault(wire.open_shell)
    assert (told.wsman_fault_code, told.reason) == (5, "Access is denied. ")
    wire.transport.close_session()


def test_a_reboot_drops_connections_and_ends_every_program(host: WinHost, wire: Protocol) -> None:
    shell = wire.open_shell()
    command = wire.run_command(shell, "sh", ["-c", '"echo $$; sleep 600"'])
    child = int(wire.get_command_output_raw(shell, command)[0])
    host.reboot()
    assert host.service.shells == {}
    _ended(child)
    assert fault(wire.run_command, shell, "echo", ["x"]).wsman_fault_code == NO_SUCH
    assert host.https.accepted == 2


def test_leaving_the_host_ends_its_programs() -> None:
    with WinHost(Machine(cmdlets=False)) as host:
        program = host.folder / "programs/sh.exe"
        program.write_text('#!/bin/sh\nPATH=/usr/bin:/bin exec /bin/sh "$@"\n')
        program.chmod(0o755)
        wire = protocol(host)
        shell = wire.open_shell()
        command = wire.run_command(shell, "sh", ["-c", '"echo $$; sleep 600"'])
        child = int(wire.get_command_output_raw(shell, command)[0])
        wire.transport.close_session()
    _ended(child)
    assert not host.folder.exists()


def _ended(pid: int) -> None:
    wait.until("the end of a program", lambda: not _runs(pid) or "it runs", timeout=60, every=0.02)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
