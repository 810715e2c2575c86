"""What reaches a terminal: nothing that it obeys, and nothing that its encoding lacks."""

from __future__ import annotations

import io
import json
import sys

import pytest

from vmproxy.cli import console
from vmproxy.errors import VmproxyError
from vmproxy.model.steps import Plan

HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]52;c;ZWNobw==\x1b\\",
    "\x9b31m",
    "\x9d52;c;eA==\x9c",
    "\x1bP1$r\x1b\\",
    "\x1bc",
    "\x07\x08\x0c\x00\x7f",
    "a\rb",
    "\u202eevil\u2066",
    "\x1b]52;c;never ends",
    "\x1b",
]


class Terminal(io.TextIOWrapper):
    """stdout or stderr of one encoding; strict, as Python's stdout is."""

    def __init__(self, encoding: str) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding, write_through=True)

    def shown(self) -> str:
        return self.raw_bytes.getvalue().decode(self.encoding)


def everything(text: str) -> None:
    """Each way to the terminal."""
    console.result(text)
    console.result_json({"key": text})
    console.table(["A"], [[text]])
    console.progress(text)
    console.error(VmproxyError(text, hint=text, details=[text]), text)
    console.plan(text, Plan((), (text,), (text,)))
    console.outcomes(text, (), Plan((), (), (text,)))
    console.removal(text, (), Plan())
    console.step(text)


def through(monkeypatch: pytest.MonkeyPatch, text: str, encoding: str = "utf-8") -> str:
    out, err = Terminal(encoding), Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    everything(text)
    return out.shown() + err.shown()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_nothing_that_a_terminal_obeys_gets_there(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    shown = through(monkeypatch, f"before {text} after")
    obeyed = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066"} - {"\n", "\t"}
    assert not obeyed & set(shown)
    assert "before" in shown


def test_sequences_leave_nothing_and_lines_stay(capsys: pytest.CaptureFixture[str]) -> None:
    console.result("\x1b[31mred\x1b[0m\tand\r\nnext \x1b]8;;http://x\x07link")
    assert capsys.readouterr().out.expandtabs() == "red     and\nnext link\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_character_shows_a_question_mark(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    shown = through(monkeypatch, "10.0.0.1 → 漢\udc80", encoding)
    assert "?" in shown
    assert "10.0.0.1" in shown


def test_json_keeps_what_a_terminal_lacks_or_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"a": "→ \x9b31m \x1b \x7f \u202e", "b": "two\nlines\t"}
    for encoding in ("ascii", "latin-1", "utf-8"):
        out = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", out)
        console.result_json(value)
        assert json.loads(out.shown()) == value


def test_an_address_is_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    console.result("fd00:100:1234::5 :warning: [bold]x[/bold]")
    console.table(["A:100:"], [["fd00:100:1"]])
    shown = capsys.readouterr().out
    assert "fd00:100:1234::5 :warning: [bold]x[/bold]" in shown
    assert "A:100:" in shown


@pytest.mark.parametrize("during", ["write", "flush"])
def test_ctrl_c_while_a_line_is_written_is_heard(monkeypatch: pytest.MonkeyPatch, during: str) -> None:
    """Python throws away what is raised while an object is finalized: none of ours may call there."""

    def shown(interrupted: int | None) -> int:
        calls = 0

        class Stream(io.StringIO):
            def write(self, text: str) -> int:
                count("write")
                return super().write(text)

            def flush(self) -> None:
                count("flush")

        def count(name: str) -> None:
            nonlocal calls
            if name == during:
                calls += 1
                if calls == interrupted:
                    raise KeyboardInterrupt

        monkeypatch.setattr(sys, "stderr", Stream())
        console.progress("pushing")
        return calls

    total = shown(None)
    assert total > 0
    for number in range(1, total + 1):
        with pytest.raises(KeyboardInterrupt):
            shown(number)
