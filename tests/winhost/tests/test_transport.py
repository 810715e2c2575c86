"""The product's WinRM client against what goes wrong on the way."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.winhost import wsman_faults
from tests.winhost.faults import When
from tests.winhost.host import WinHost
from tests.winhost.tests.conftest import client
from vmproxy.errors import Forbidden, NotReady, Unreachable
from vmproxy.transport.winrm import Counters, Limits, Login, Process, WinRM
from vmproxy.util import wait


def finish(process: Process, timeout: float = 5.0) -> tuple[bytes, bytes, int]:
    out, err = b"", b""
    while True:
        output = process.receive(timeout)
        out, err = out + output.stdout, err + output.stderr
        if output.exit_code is not None:
            return out, err, output.exit_code


def run_with_input(host: WinHost) -> None:
    with client(host) as wire:
        wire.start("sh", ["-c", '"cat"']).send(b"x")


def run_and_finish(wire: WinRM) -> None:
    process = wire.start("sh", ["-c", '"read x; echo done"'])
    process.send(b"x\n")
    finish(process)


def shell_program(host: WinHost) -> None:
    program = host.folder / "programs/sh.exe"
    program.write_text('#!/bin/sh\nPATH=/usr/bin:/bin exec /bin/sh "$@"\n')
    program.chmod(0o755)


@pytest.fixture(autouse=True)
def _sh(host: WinHost) -> None:
    shell_program(host)


def test_a_shell_is_opened_used_and_deleted_with_few_messages(host: WinHost) -> None:
    with client(host) as wire:
        assert finish(wire.start("echo", ["a", "b"])) == (b"a b\r\n", b"", 0)
    receives = host.messages.count("Receive")  # the exit code may come with the output or after it
    assert receives in {1, 2}
    assert host.messages == ["Create", "Command", *["Receive"] * receives, "Delete"]
    assert wire.counters == Counters(messages=3 + receives, processes=1, connections=1)
    assert host.https.accepted == 1


def test_the_shell_ends_after_five_minutes_without_a_message_and_speaks_utf_8(host: WinHost) -> None:
    with client(host) as wire:
        shell = host.service.shells[wire.shell]
        assert shell.idle == 300
        assert finish(wire.start("set", ["WINPS_CODEPAGE"]))[0] == b"WINPS_CODEPAGE=65001\r\n"


def test_output_of_a_megabyte_arrives_whole(host: WinHost) -> None:
    with client(host) as wire:
        out, _, code = finish(
            wire.start("sh", ["-c", '"head -c 1000000 /dev/urandom | tee sum; cksum < sum"'])
        )
    assert code == 0
    assert out[:1_000_000] == (host.drive / "Users/Administrator/sum").read_bytes()
    assert out[1_000_000:].split()[1] == b"1000000"


def test_input_of_two_megabytes_arrives_whole_in_large_messages(host: WinHost) -> None:
    data = bytes(range(256)) * 8192
    with client(host) as wire:
        process = wire.start("sh", ["-c", f'"head -c {len(data)} > received"'])
        process.send(data)
        finish(process)
    assert (host.drive / "Users/Administrator/received").read_bytes() == data
    assert host.messages.count("Send") == 6


def test_a_host_that_takes_small_messages_only_gets_smaller_ones(host: WinHost) -> None:
    host.quotas.envelope = 150 * 1024
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"head -c 500000 | wc -c"'])
        process.send(b"x" * 500_000)
        assert finish(process)[0].strip() == b"500000"


def test_a_host_that_takes_not_even_those_is_named(host: WinHost) -> None:
    host.quotas.envelope = 20 * 1024
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"wc -c"'])
        with pytest.raises(Unreachable, match=r"too large for it \(HTTP 413\)"):
            process.send(b"x" * 500_000)


def test_a_front_that_takes_48_kilobytes_gets_small_messages(host: WinHost) -> None:
    host.quotas.envelope = 48 * 1024
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"head -c 400000 | wc -c"'])
        process.send(b"x" * 400_000)
        assert finish(process)[0].strip() == b"400000"


def test_input_is_a_pipe_so_that_long_lines_and_control_characters_arrive(host: WinHost) -> None:
    line = b"x" * 300_000 + b"\x1a\x03\x08" + b"y" * 100_000
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"read x; printf %s $x | wc -c"'])
        process.send(line + b"\n")
        assert finish(process)[0].strip() == str(len(line)).encode()


def test_a_program_that_does_not_read_for_a_while_gets_all_its_input(host: WinHost) -> None:
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"sleep 3; head -c 300000 | wc -c"'])
        process.send(b"x" * 300_000)
        assert finish(process)[0].strip() == b"300000"
    assert host.messages.count("Send") == 1


def test_a_busy_host_gets_the_same_input_again(host: WinHost) -> None:
    host.switchboard.add("fault", operation="Send", fault=wsman_faults.busy(), times=2)
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"head -c 5 | wc -c"'])
        process.send(b"12345")
        assert finish(process)[0].strip() == b"5"
    assert host.messages.count("Send") == 3


def test_a_first_log_in_may_take_its_time(host: WinHost) -> None:
    host.quotas.first_login = 3.0
    run_with_input(host)
    assert host.messages.count("Create") == 1


def test_a_first_log_in_that_takes_longer_than_a_message_may_is_tried_once_more(host: WinHost) -> None:
    host.quotas.first_login = 1.5
    with client(host, limits=Limits(operation=1, slow=1, lost=4)):
        pass
    assert host.messages == ["Create", "Create", "Delete"]
    host.service.profiles.clear()
    host.quotas.first_login = 60.0
    with pytest.raises(NotReady, match="did not complete it in time"):
        client(host, limits=Limits(operation=1, slow=1, lost=4)).__enter__()
    assert host.messages.count("Create") == 4


def test_a_policy_against_remote_shells_is_named(host: WinHost) -> None:
    host.quotas.remote_shells = False
    with pytest.raises(Forbidden, match="not accept any remote shell requests") as caught:
        client(host).__enter__()
    assert "Allow Remote Shell Access" in str(caught.value.hint)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_redirect_is_not_followed(host: WinHost, nth: int, status: int) -> None:
    """At the first request, in the middle of the log-in, and at its end."""
    target = f"{host.http_endpoint}/wsman"
    host.switchboard.add("redirect", operation="http", nth=nth, times=100, status=status, location=target)
    with pytest.raises(Unreachable) as caught:
        client(host).__enter__()
    assert nth == 2 or f"it redirects to {target}" in caught.value.message
    assert host.http.accepted == 0
    assert host.messages == []


def test_a_redirect_over_http_is_not_followed(host: WinHost) -> None:
    target = f"{host.endpoint}/wsman"
    for operation, nth in (("http", 1), ("Command", 1)):
        host.switchboard.clear()
        host.switchboard.add("redirect", operation=operation, nth=nth, status=307, location=target)
        wire = WinRM(host.http_endpoint, Login("ntlm", "Administrator", host.password))
        with pytest.raises(Unreachable, match="it redirects to"), wire:
            wire.start("echo", ["x"])
    assert host.https.accepted == 0


def test_waiting_for_output_ends_at_its_deadline(host: WinHost) -> None:
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"sleep 30"'])
        began = time.monotonic()
        with pytest.raises(NotReady, match="no output"):
            process.receive(2.5)
        assert 2.4 < time.monotonic() - began < 20


def test_a_long_silence_is_only_more_messages(host: WinHost) -> None:
    with client(host, limits=Limits(operation=1, lost=4)) as wire:
        process = wire.start("sh", ["-c", '"while test ! -e enough; do sleep 0.1; done; echo done"'])
        with ThreadPoolExecutor(1) as pool:
            output = pool.submit(finish, process, 20)
            wait.until("three messages", lambda: host.messages.count("Receive") >= 3 or "", timeout=20)
            (host.drive / "Users/Administrator/enough").touch()
            assert output.result()[0] == b"done\n"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["Create", "Command", "Send"])
def test_a_message_whose_answer_was_lost_is_not_sent_again(host: WinHost, operation: str, when: When) -> None:
    host.switchboard.add("drop", operation=operation, when=when)
    with pytest.raises(Unreachable) as caught:
        run_with_input(host)
    assert caught.value.message.startswith("cannot ")
    assert caught.value.hint
    assert host.messages.count(operation) == 1
    left = 1 if (operation, when) == ("Create", "after") else 0
    assert len(host.service.shells) == left
    assert ("ends by itself" in caught.value.hint) is (operation == "Create")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["drop", "truncate"])
def test_receive_is_repeated_until_it_has_an_answer(host: WinHost, what: str, when: When) -> None:
    host.switchboard.add(what, operation="Receive", when=when, times=3)  # type: ignore[arg-type]
    with client(host) as wire:
        assert finish(wire.start("echo", ["hello"]))[0] == b"hello\r\n"
    assert host.messages.count("Receive") == 4
    assert wire.counters.connections == 4
    assert host.service.shells == {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_receive_is_repeated_over_http_too(host: WinHost, when: When) -> None:
    host.switchboard.add("drop", operation="Receive", when=when, times=2)
    with WinRM(host.http_endpoint, Login("ntlm", "Administrator", host.password)) as wire:
        assert finish(wire.start("echo", ["hello"]))[0] == b"hello\r\n"
    assert host.service.shells == {}


def test_a_connection_that_went_away_between_messages_is_made_anew(host: WinHost) -> None:
    cases = (host.endpoint, host.https, 2), (host.http_endpoint, host.http, 3)
    for endpoint, listener, connections in cases:
        with WinRM(endpoint, Login("ntlm", "Administrator", host.password), ca=str(host.ca)) as wire:
            listener.hang_up()
            time.sleep(0.05)
            assert finish(wire.start("echo", ["hello"]))[0] == b"hello\r\n"
        assert listener.accepted == connections  # a sealed message is first refused on the new one
    assert host.messages.count("Command") == 2
    assert host.administrator.failed == 0


def test_receive_gives_up_when_the_host_stays_away(host: WinHost) -> None:
    host.switchboard.add("drop", operation="Receive", times=1000)
    with client(host, limits=Limits(operation=2, lost=1.5)) as wire:
        process = wire.start("sh", ["-c", '"sleep 30"'])
        with pytest.raises(Unreachable, match="cannot read output on localhost"):
            process.receive(60)


@pytest.mark.parametrize("operation", ["Signal", "Delete"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_last_message_that_fails_does_not_hide_the_result(
    host: WinHost, operation: str, when: When
) -> None:
    host.switchboard.add("drop", operation=operation, when=when)
    with client(host) as wire:
        process = wire.start("echo", ["hello"])
        assert finish(process)[0] == b"hello\r\n"
        process.end()
    left = 1 if (operation, when) == ("Delete", "before") else 0
    assert len(host.service.shells) == left


def test_a_shell_that_could_not_be_deleted_ends_by_itself(
    host: WinHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    host.switchboard.add("drop", operation="Delete")
    with client(host) as wire:
        shell = host.service.shells[wire.shell]
        shell.idle = 0.3
    assert "cannot delete the shell on localhost" in caplog.text
    assert "ends by itself" in caplog.text
    time.sleep(0.8)
    assert host.service.shells == {}


def test_the_shell_is_deleted_when_the_work_fails(host: WinHost) -> None:
    def work() -> None:
        with client(host) as wire:
            wire.start("sh", ["-c", '"sleep 60"'])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert host.messages[-1] == "Delete"
    assert host.service.shells == {}


@pytest.mark.parametrize("operation", ["Create", "Command", "Receive"])
def test_a_proxys_page_is_not_taken_for_an_answer(host: WinHost, operation: str) -> None:
    host.switchboard.add("page", operation=operation, times=100)
    with pytest.raises(Unreachable, match="the response is not from WinRM") as caught, client(host) as wire:
        finish(wire.start("echo", ["x"]))
    assert "proxy" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [403, 404, 502, 503])
def test_a_status_without_soap_is_told(host: WinHost, status: int) -> None:
    host.switchboard.add("status", operation="http", status=status)
    with pytest.raises(Unreachable, match=f"HTTP {status}"):
        client(host).__enter__()


@pytest.mark.parametrize("operation", ["Command", "Receive", "Send"])
def test_a_log_in_that_is_refused_in_the_middle_is_not_tried_again(host: WinHost, operation: str) -> None:
    host.switchboard.add("status", operation=operation, status=401, times=100)
    with pytest.raises(Unreachable, match="the login was refused"), client(host) as wire:
        run_and_finish(wire)
    assert "Delete" not in host.messages
    assert host.messages.count(operation) == 1


def test_a_slow_answer_within_the_read_timeout_is_waited_for(host: WinHost) -> None:
    host.switchboard.add("delay", operation="Command", seconds=3.0)
    with client(host) as wire:  # its operation timeout is 2 s, the socket's 12 s
        assert finish(wire.start("echo", ["hello"]))[0] == b"hello\r\n"


def test_a_fault_is_told_in_windows_words(host: WinHost) -> None:
    told = wsman_faults.invalid("CommandLine")
    host.switchboard.add("fault", operation="Command", fault=told)
    with pytest.raises(Unreachable) as caught, client(host) as wire:
        wire.start("echo", ["x"])
    assert "the XML contains an invalid value for CommandLine" in caught.value.message
    assert "2150858817" in caught.value.message


def test_too_many_shells_is_a_reason_to_wait(host: WinHost) -> None:
    host.quotas.shells_per_user = 1
    with client(host), pytest.raises(NotReady) as caught:
        client(host).__enter__()
    assert "maximum number of concurrent shells" in caught.value.message
    assert "left open" in (caught.value.hint or "")


def test_too_many_users_and_operations_are_reasons_to_wait(host: WinHost) -> None:
    host.quotas.operations_per_user = 1
    with client(host) as wire:
        wire.start("echo", ["x"])
        with pytest.raises(NotReady, match="maximum number of concurrent operations"):
            wire.start("echo", ["x"])
    host.quotas.users = 0
    with pytest.raises(NotReady, match="maximum number of users"):
        client(host).__enter__()


def test_a_restarted_winrm_is_told_as_a_shell_that_is_gone(host: WinHost) -> None:
    with client(host) as wire:
        process = wire.start("sh", ["-c", '"sleep 30"'])
        host.reboot()
        with pytest.raises(Unreachable) as caught:
            process.receive(10)
    assert "its shell no longer exists" in caught.value.message
    assert "restarted" in (caught.value.hint or "")
    assert host.administrator.failed == 0


def test_a_host_that_is_down_is_unreachable_in_the_systems_words(host: WinHost) -> None:
    host.https.close()
    with pytest.raises(Unreachable, match="Connection refused") as caught:
        client(host).__enter__()
    assert "winrm quickconfig" in (caught.value.hint or "")


def test_http_on_the_https_port_is_told(host: WinHost) -> None:
    wire = WinRM(f"https://localhost:{host.http.port}", Login("ntlm", "Administrator", host.password))
    with pytest.raises(Unreachable) as caught:
        wire.__enter__()
    assert "TLS failed" in caught.value.message


def test_two_workers_have_a_connection_and_a_shell_each(host: WinHost) -> None:
    results: list[bytes] = []

    def work(word: str) -> None:
        with WinRM(host.http_endpoint, Login("ntlm", "Administrator", host.password)) as wire:
            for _ in range(10):
                results.append(finish(wire.start("echo", [word]))[0])

    workers = [threading.Thread(target=work, args=(word,)) for word in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(results) == [b"one\r\n"] * 10 + [b"two\r\n"] * 10
    assert host.http.accepted == 2
    assert host.service.shells == {}


def test_the_login_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(Login("ntlm", "me", "hunter2"))


def test_no_proxy_of_the_environment_is_used(host: WinHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    with client(host) as wire:
        assert finish(wire.start("echo", ["hello"]))[0] == b"hello\r\n"
