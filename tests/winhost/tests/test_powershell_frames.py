"""One powershell.exe that answers frames: the product's client, WinRM, cmd.exe and PowerShell together."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator

import pytest

from tests.winhost.host import WinHost
from tests.winhost.tests.conftest import client
from vmproxy.errors import NotReady, RemoteFailed, Unreachable
from vmproxy.transport.powershell import PowerShell, PowerShellFailed, command_line
from vmproxy.transport.winrm import Limits, WinRM

pytestmark = pytest.mark.winhost


@pytest.fixture
def wire(host: WinHost) -> Iterator[WinRM]:
    with client(host, limits=Limits(operation=20, lost=5)) as opened:
        yield opened


@pytest.fixture
def ps(wire: WinRM) -> Iterator[PowerShell]:
    with wire.powershell() as started:
        yield started


def test_the_command_line_is_below_3000_characters() -> None:
    program, words = command_line()
    assert len(" ".join([program, *words])) < 8191 - 1000
    script = base64.b64decode(words[-1]).decode("utf-16-le")
    assert len(script) < 3000
    assert "$input" not in script


def test_several_calls_are_one_process(host: WinHost, ps: PowerShell) -> None:
    assert ps.call("param($Data) $Data.a + $Data.b", {"a": 1, "b": 2}) == 3
    assert ps.call("'second'") == "second"
    assert ps.call("$null") is None
    assert ps.call("") is None
    assert host.processes == 1
    assert host.service.command_lines[0].startswith(
        "powershell.exe -NoProfile -NonInteractive -EncodedCommand "
    )


def test_two_calls_are_few_messages(host: WinHost) -> None:
    with client(host, limits=Limits(operation=20)) as wire, wire.powershell() as ps:
        ps.call("1")
        ps.call("2")
    others = [one for one in host.messages if one != "Receive"]
    assert others == ["Create", "Command", "Send", "Send", "Signal", "Delete"]
    assert len(host.messages) <= 16  # what is printed at the start, then an object and an end for each


def test_the_session_lives_as_long_as_the_process(ps: PowerShell) -> None:
    ps.call("param($Data, $Session) $Session.kept = $Data", "value")
    assert ps.call("param($Data, $Session) $Session.kept") == "value"


def test_variables_of_a_script_do_not_leak_into_the_next(ps: PowerShell) -> None:
    ps.call("$Leak = 1; function Leak-It { 1 }")
    assert ps.call("$null -eq $Leak -and -not (Get-Command Leak-It -ErrorAction SilentlyContinue)") is True


def test_every_emitted_object_arrives_as_it_is_made(ps: PowerShell) -> None:
    seen: list[tuple[object, float]] = []
    began = time.monotonic()
    ps.call(
        "'first'; Start-Sleep -Milliseconds 700; 'last'",
        each=lambda line: seen.append((line, time.monotonic() - began)),
    )
    assert [line for line, _ in seen] == ["first", "last"]
    assert seen[1][1] - seen[0][1] > 0.5


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -7,
        2.5,
        "",
        "Straße € 😀 \u2028 中",
        "'; Remove-Item C:\\ #",
        '$(Get-Date) `n "quoted" %PATH% & | > <',
        "\r\n\t\x01",
        [],
        [1],
        [[1], [2, [3]]],
        {"a": {"b": {"c": [1, {"d": None}]}}},
        {"Größe": 1, "with blank": 2},
        "x" * 200_000,
    ],
)
def test_data_arrives_and_returns_unchanged(value: object, ps: PowerShell) -> None:
    assert ps.call("param($Data) @{ value = $Data.value }", {"value": value}) == {"value": value}


def test_the_script_text_may_hold_any_character(ps: PowerShell) -> None:
    assert ps.call("'Straße € 😀'.Length") == 11


def test_long_output_is_whole(ps: PowerShell) -> None:
    lines: list[object] = []
    ps.call("1..1000 | ForEach-Object { \"$_ \" + ('x' * 200) }", each=lines.append)
    assert len(lines) == 1000
    assert lines[999] == "1000 " + "x" * 200


def test_a_terminating_error_carries_windows_own_words(ps: PowerShell) -> None:
    with pytest.raises(PowerShellFailed) as caught:
        ps.call("Get-Item -LiteralPath 'C:\\nothing\\here' -ErrorAction Stop")
    error = caught.value
    assert "Cannot find path 'C:\\nothing\\here' because it does not exist." in error.message
    assert error.record.type == "System.Management.Automation.ItemNotFoundException"
    assert error.record.id.startswith("PathNotFound,")
    assert error.record.category == "ObjectNotFound"
    assert "Get-Item" in error.record.position
    assert any("ItemNotFoundException (PathNotFound" in line for line in error.details)


def test_any_error_ends_the_script(ps: PowerShell) -> None:
    with pytest.raises(PowerShellFailed):
        ps.call("Get-Item 'C:\\nothing'; 'went on'")


def test_an_unknown_command_and_bad_syntax_are_told(ps: PowerShell) -> None:
    with pytest.raises(PowerShellFailed, match="'No-Such' is not recognized"):
        ps.call("No-Such")
    with pytest.raises(PowerShellFailed, match="Missing"):
        ps.call("if (")


def test_thrown_text_is_the_message(ps: PowerShell) -> None:
    with pytest.raises(PowerShellFailed, match="kaputt: ä") as caught:
        ps.call("throw 'kaputt: ä'")
    assert caught.value.record.category == "OperationStopped"


def test_after_an_error_the_process_answers_on(host: WinHost, ps: PowerShell) -> None:
    for _ in range(3):
        with pytest.raises(PowerShellFailed):
            ps.call("throw 'no'")
    assert ps.call("'still here'") == "still here"
    assert host.processes == 1


def test_what_a_script_prints_beside_is_no_answer(ps: PowerShell) -> None:
    text = "Write-Host 'to the host'; [Console]::Out.WriteLine('to stdout'); Write-Warning 'w'; 5"
    assert ps.call(text) == 5


def test_a_script_that_ends_the_process_is_told_with_its_exit_code(ps: PowerShell) -> None:
    with pytest.raises(RemoteFailed, match="it exited with code 7"):
        ps.call("exit 7")
    with pytest.raises(RemoteFailed, match="exited with code 7"):
        ps.call("1")


def test_what_the_ending_process_said_is_shown(ps: PowerShell) -> None:
    with pytest.raises(RemoteFailed) as caught:
        ps.call("[Console]::Error.WriteLine('last words'); [Environment]::Exit(3)")
    assert caught.value.details == ("last words",)


def test_a_call_that_takes_too_long_is_given_up(ps: PowerShell) -> None:
    began = time.monotonic()
    with pytest.raises(NotReady):
        ps.call("Start-Sleep -Seconds 30", timeout=1.5)
    assert time.monotonic() - began < 20
    with pytest.raises(NotReady):
        ps.call("1")  # nobody knows what the process does now


def test_a_lost_answer_is_asked_for_again(host: WinHost, ps: PowerShell) -> None:
    ps.call("1")
    host.switchboard.add("drop", operation="Receive", when="after", times=2)
    assert ps.call("'whole'") == "whole"
    assert host.processes == 1


def test_output_that_is_lost_with_its_answer_is_noticed(host: WinHost, ps: PowerShell) -> None:
    ps.call("1")
    host.https.keeps_unread = False
    host.switchboard.add("drop", operation="Receive", when="after")
    with pytest.raises(Unreachable, match="part of the output was lost") as caught:
        ps.call("1..5 | ForEach-Object { Start-Sleep -Milliseconds 50; $_ }", timeout=10)
    assert "run the same command again" in (caught.value.hint or "")


def test_the_last_output_lost_ends_in_a_deadline_or_a_gap_never_in_success(
    host: WinHost, ps: PowerShell
) -> None:
    ps.call("1")
    host.https.keeps_unread = False
    host.switchboard.add("drop", operation="Receive", when="after", times=50)
    with pytest.raises((Unreachable, NotReady)):
        ps.call("'x'", timeout=3)


def test_without_frames_the_process_ends_by_itself(host: WinHost, wire: WinRM) -> None:
    with wire.powershell(idle=1.0, keepalive=60) as ps:
        ps.call("1")
        command = next(iter(host.service.shells[wire.shell].commands.values()))
        began = time.monotonic()
        while command.exit_code is None and time.monotonic() - began < 60:
            time.sleep(0.05)
        assert command.exit_code == 0
        assert time.monotonic() - began > 0.5
        with pytest.raises((RemoteFailed, Unreachable)):
            ps.call("2")


def test_keepalive_holds_the_process_over_a_pause(host: WinHost, wire: WinRM) -> None:
    with wire.powershell(idle=1.5, keepalive=0.4) as ps:
        ps.call("1")
        time.sleep(3)
        assert ps.call("'alive'") == "alive"
    assert host.processes == 1


def test_a_dead_controller_leaves_no_process(host: WinHost) -> None:
    """It neither signals nor deletes: the process ends for want of frames."""
    wire = client(host).__enter__()
    ps = wire.powershell(idle=1.0, keepalive=60)
    ps.call("1")
    command = next(iter(host.service.shells[wire.shell].commands.values()))
    host.https.hang_up()
    time.sleep(2.5)
    assert command.exit_code == 0
    wire._hang_up()


def test_feed_hands_pieces_to_a_script_that_asks(ps: PowerShell) -> None:
    script = """param($Data, $Session)
        $Total = 0
        foreach ($One in 1..3) {
            @{ want = $One }
            $Total += [Convert]::FromBase64String($Session.Reader.ReadLine()).Length
        }
        @{ total = $Total }"""
    asked: list[object] = []

    def pieces(line: dict[str, int]) -> bytes | None:
        asked.append(line)
        return base64.b64encode(b"x" * 300_000) + b"\n" if "want" in line else None

    ps.feed(script, None, pieces, timeout=30)
    assert asked == [{"want": 1}, {"want": 2}, {"want": 3}, {"total": 900_000}]
    assert ps.call("'next'") == "next"


def test_calls_from_two_threads_take_turns(ps: PowerShell) -> None:
    results: dict[int, object] = {}

    def work(number: int) -> None:
        results[number] = ps.call("param($Data) Start-Sleep -Milliseconds 50; $Data", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number for number in range(6)}


def test_the_processs_progress_records_are_no_error(ps: PowerShell) -> None:
    assert ps.call("Write-Progress -Activity 'work' -Status 'half'; 1") == 1


def test_the_process_runs_as_the_host_is(ps: PowerShell) -> None:
    facts = ps.call(
        "@{ computer = $env:COMPUTERNAME; user = $env:USERNAME; temp = Test-Path $env:TEMP; "
        "root = Test-Path 'C:\\Windows\\Temp'; version = $PSVersionTable.PSVersion.ToString() }"
    )
    assert facts == {
        "computer": "WIN-01",
        "user": "Administrator",
        "temp": True,
        "root": True,
        "version": "5.1.20348.1",
    }
