from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from vmproxy.errors import Forbidden, NotReady, RemoteFailed, Unreachable
from vmproxy.transport.powershell import InputClosed, Output, PowerShell, PowerShellFailed

Answer = Callable[[str, dict[str, Any]], list[bytes]]
ERROR = {
    "type": "System.Exception",
    "id": "Some,Id",
    "category": "NotSpecified",
    "message": "it failed",
    "position": "\nAt line:1 char:1\n",
}


class Host:
    """A process that answers frames as it is told to."""

    host = "win-01"

    def __init__(self, answer: Answer, code: int | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.pending: list[bytes] = []
        self.ended = 0
        self._answer = answer
        self._code = code
        self._mark = ""
        self._count = 0

    def send(self, data: bytes) -> None:
        for line in data.decode("ascii").splitlines():
            frame = json.loads(line)
            if "mark" in frame:
                self._mark = frame["mark"]
            else:
                self.sent.append(frame)
                self.pending += self._answer(self._mark, frame)

    def receive(self, timeout: float) -> Output:
        if self.pending:
            return Output(self.pending.pop(0))
        if self._code is not None:
            return Output(b"", b"last words", self._code)
        time.sleep(min(timeout, 0.05))
        raise NotReady("nothing came")

    def end(self) -> None:
        self.ended += 1


def numbered(mark: str, number: int, frame: dict[str, Any], **rest: Any) -> bytes:
    return f"{mark}{json.dumps({'n': number, 'id': frame['id'], **rest})}\r\n".encode()


def plain(mark: str, frame: dict[str, Any]) -> list[bytes]:
    first = 2 * frame["id"] - 1
    return [numbered(mark, first, frame, line=frame["data"]), numbered(mark, first + 1, frame, done=True)]


def test_the_last_object_is_the_answer_and_frames_are_ascii() -> None:
    host = Host(plain)
    with PowerShell(host) as ps:
        assert ps.call("x", {"name": "Größe 😀"}) == {"name": "Größe 😀"}
        assert ps.call("y", [1, 2]) == [1, 2]
    assert [frame["id"] for frame in host.sent] == [1, 2]
    assert host.ended == 1


def test_answers_are_found_however_they_are_cut() -> None:
    def byte_by_byte(mark: str, frame: dict[str, Any]) -> list[bytes]:
        return [bytes([one]) for one in b"".join(plain(mark, frame))]

    with PowerShell(Host(byte_by_byte)) as ps:
        assert ps.call("x", "whole") == "whole"


def test_what_is_printed_beside_is_passed_over_even_on_the_same_line() -> None:
    def noisy(mark: str, frame: dict[str, Any]) -> list[bytes]:
        first, second = plain(mark, frame)
        return [b"WARNING: {\r\n\r\nno newline" + first, b'{"n": 1}\r\n' + second]

    with PowerShell(Host(noisy)) as ps:
        assert ps.call("x", 5) == 5


def test_a_gap_in_the_numbers_is_lost_output() -> None:
    def gap(mark: str, frame: dict[str, Any]) -> list[bytes]:
        return [numbered(mark, 1, frame, line=1), numbered(mark, 3, frame, done=True)]

    with PowerShell(Host(gap)) as ps:
        for _ in range(2):  # and it stays so
            with pytest.raises(Unreachable, match="part of the output was lost"):
                ps.call("x")


def test_an_answer_that_was_cut_short_is_lost_output() -> None:
    def cut(mark: str, frame: dict[str, Any]) -> list[bytes]:
        return [numbered(mark, 1, frame, line="long text")[:-12] + b"\r\n"]

    with PowerShell(Host(cut)) as ps, pytest.raises(Unreachable, match="part of the output was lost"):
        ps.call("x")


def test_an_error_is_told_and_the_next_call_goes_on() -> None:
    def fails_first(mark: str, frame: dict[str, Any]) -> list[bytes]:
        if frame["id"] == 1:
            return [numbered(mark, 1, frame, error=ERROR)]
        return [numbered(mark, 2, frame, line="fine"), numbered(mark, 3, frame, done=True)]

    with PowerShell(Host(fails_first)) as ps:
        with pytest.raises(PowerShellFailed, match="cannot run PowerShell on win-01: it failed") as caught:
            ps.call("x")
        assert caught.value.details == ("System.Exception (Some,Id)", "At line:1 char:1")
        assert ps.call("y") == "fine"


def test_without_an_answer_the_deadline_is_the_end() -> None:
    with PowerShell(Host(lambda mark, frame: [])) as ps, pytest.raises(NotReady):
        ps.call("x", timeout=0.2)


def test_a_process_that_ended_is_told_with_its_last_words() -> None:
    with PowerShell(Host(lambda mark, frame: [], code=5)) as ps:
        with pytest.raises(RemoteFailed, match="it exited with code 5") as caught:
            ps.call("x")
        assert caught.value.details == ("last words",)


@pytest.mark.parametrize("code", [0xC0000017, 0xC0000017 - (1 << 32)])
def test_a_process_that_ran_out_of_memory_is_told_with_the_quota(code: int) -> None:
    with PowerShell(Host(lambda mark, frame: [], code=code)) as ps:
        with pytest.raises(NotReady, match="it ran out of memory") as caught:
            ps.call("x")
        assert "MaxMemoryPerShellMB" in str(caught.value.hint)


class Deaf(Host):
    """It has exited when the first frame comes."""

    def send(self, data: bytes) -> None:
        raise InputClosed("the pipe is being closed")


def test_why_a_process_does_not_read_its_input_is_told() -> None:
    host = Deaf(plain, code=3)
    host.pending = [b"LanguageMode: ConstrainedLanguage\r\n"]
    with PowerShell(host) as ps:
        for _ in range(2):
            with pytest.raises(Forbidden, match="it is in ConstrainedLanguage mode"):
                ps.call("x")


def test_an_empty_frame_is_sent_when_nothing_else_is() -> None:
    host = Host(plain)
    with PowerShell(host, keepalive=0.1) as ps:
        ps.call("x")
        time.sleep(0.45)
        ps.call("y")
    scripts = [frame["script"] for frame in host.sent]
    assert scripts[0] == "x"
    assert scripts[-1] == "y"
    assert 2 <= scripts.count("") <= 4


def test_before_the_first_call_nothing_is_sent() -> None:
    host = Host(plain)
    with PowerShell(host, keepalive=0.05):
        time.sleep(0.2)
    assert host.sent == []
