"""Text output; the only module that uses rich. Results go to stdout, progress to stderr.

What hosts, guests and the cluster say passes through here: `_plain` leaves nothing in it that a terminal
obeys.
"""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, assert_never, cast

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmproxy.errors import VmproxyError
from vmproxy.model import steps
from vmproxy.model.steps import Plan
from vmproxy.util.events import Ended, Event, Phase, Progress, Reporter, Step, Warned

_WIDTH_OF_A_PIPE = 200
_SEQUENCE = re.compile(
    # CSI: colours, the cursor; then OSC and its like: title, clipboard
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
)
_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""C0 and C1 but tab and line feed; what breaks lines or turns the direction of text."""
_OBEYED = re.compile(f"[{_CONTROL}\ud800-\udfff]")


@dataclass
class _Settings:
    """Of stderr, for the whole command. `since`: when progress lines began to show the time; None: not."""

    since: float | None = None
    log: Literal["text", "json"] = "text"
    hosts: bool = False


_settings = _Settings()


def _out() -> Console:
    console = _console(sys.stdout)
    return console if console.is_terminal else _console(sys.stdout, width=_WIDTH_OF_A_PIPE)


def _err() -> Console:
    return _console(sys.stderr)


def _console(stream: TextIO, width: int | None = None) -> Console:
    return Console(
        file=cast(TextIO, _Door(stream)),
        width=width,
        soft_wrap=True,
        highlight=False,
        markup=False,
        emoji=False,
    )


class _Door:
    """A stream that gets '?' for what its encoding lacks. No io.TextIOBase, which flushes once more while it
    is finalized: a Ctrl-C that came then was lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        return self._stream.encoding or "ascii"

    def write(self, text: str) -> int:
        return self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _plain(text: str) -> str:
    return _OBEYED.sub("?", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def _text(*parts: str | tuple[str, str], style: str = "") -> Text:
    """Of parts, each with a style or without one."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((_plain(words), look) for words, look in pairs), style=style)


def show_times() -> None:
    """From now on, prefix each progress line with the seconds since this call."""
    _settings.since = time.monotonic()


def log_as(form: Literal["text", "json"]) -> None:
    """How stderr is written from now on."""
    _settings.log = form


def name_hosts(*, named: bool) -> None:
    """Whether each progress line and each error begins with the name of its host."""
    _settings.hosts = named


def reporter(host: str | None = None) -> Reporter:
    """The events of a host, or of the command itself, to stderr."""
    return Reporter(sink, host)


def progress(text: str) -> None:
    """Print one progress line to stderr."""
    reporter()(text)


def sink(host: str | None, event: Event) -> None:
    """Write an event to stderr, as a line of text or of JSON."""
    if _settings.log == "json":
        _write_json(type(event).__name__.lower(), host, vars(event))
    elif (text := _line(event)) is not None:
        prefix = f"{host}: " if host and _settings.hosts else ""
        since = "" if _settings.since is None else f"{time.monotonic() - _settings.since:7.1f} s  "
        _err().print(_text(since + prefix + text, style="dim"))


def _line(event: Event) -> str | None:
    """What a person reads; None for what the answer shows anyway."""
    match event:
        case Progress():
            return event.text
        case Step():
            return f"{event.verb} {event.target}"
        case Phase() | Warned() | Ended():
            return None
        case _:
            assert_never(event)


def _write_json(kind: str, host: str | None, values: Mapping[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "event": kind, "host": host, **values}
    _write_line(sys.stderr, line)


def result(text: str) -> None:
    """Print one line of the result to stdout."""
    _out().print(_text(text))


def result_json(value: Any) -> None:
    """Print the result as JSON to stdout."""
    _write_line(sys.stdout, value, indent=2)


def _write_line(stream: TextIO, value: Any, indent: int | None = None) -> None:
    """JSON that keeps every value on every terminal: what it lacks or obeys is escaped."""
    ascii_only = (stream.encoding or "").lower().replace("-", "") != "utf8"
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, default=str)
    stream.write(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    stream.flush()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the result as a table to stdout."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*(_text(cell) for cell in row))
    _out().print(grid)


def error(problem: VmproxyError, host: str | None = None) -> None:
    """Write an error with its details and hint to stderr."""
    if _settings.log == "json":
        known = {"message": problem.message, "hint": problem.hint, "details": list(problem.details)}
        _write_json("error", host, known)
        return
    console = _err()
    if host and _settings.hosts:
        console.print(_text(f"{host}:", style="dim"))
    console.print(_text(("error: ", "bold red"), problem.message))
    for line in problem.details:
        console.print(_text(f"  {line}"))
    if problem.hint:
        console.print(_text(("hint: ", "bold"), problem.hint))


def usage(problem: click.ClickException) -> None:
    """What click says of a wrong command line, to stderr."""
    text = io.StringIO()
    problem.show(file=text)
    _err().print(_text(text.getvalue().rstrip()))


def plan(host: str, planned: Plan) -> None:
    """Print what apply would change on a host, field by field, to stdout."""
    console = _out()
    if planned.in_sync:
        console.print(_text((host, "bold"), ": in sync"))
    else:
        console.print(_text((host, "bold"), f": {count(len(planned.steps), 'change')}"))
    for item in planned.steps:
        _step(console, item)
    for line in planned.unseen:
        console.print(_text(f"  later: {line}", style="dim"))
    for line in planned.warnings:
        console.print(_text("  ", ("warning: ", "yellow"), line))


def outcomes(host: str, done: Sequence[steps.Step], left: Plan) -> None:
    """What apply did on a host, and what it did not do for lack of --yes, to stdout."""
    console = _out()
    if not done and left.in_sync:
        console.print(_text((host, "bold"), ": in sync, nothing to do"))
    else:
        console.print(_text((host, "bold"), f": {count(len(done), 'change')} made"))
    _done(console, done)
    if left.steps:
        console.print("  not done, as it interrupts the running VM (--yes does it):")
        for item in left.steps:
            _step(console, item)
    for line in left.warnings:
        console.print(_text("  ", ("warning: ", "yellow"), line))


def _done(console: Console, done: Sequence[steps.Step]) -> None:
    for item in done:
        console.print(_text("  ", (f"{item.verb:<12}", "green"), item.target))


def _step(console: Console, item: steps.Step) -> None:
    cold = " (cold)" if item.cold else ""
    head = _text("  ", (f"{item.verb:<12}", "cyan"), item.target, (cold, "yellow"))
    console.print(head, _text((f"  {item.why}", "dim")), sep="")
    for drift in item.drift:
        console.print(_text(f"      {drift.field}: {_value(drift.seen)} → {_value(drift.wanted)}"))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def count(number: int, noun: str) -> str:
    """As "1 change", "2 changes"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def removal(host: str, done: Sequence[steps.Step], left: Plan) -> None:
    """What destroy did, or would do with --yes, to stdout."""
    console = _out()
    if not done and not left.steps:
        console.print(_text((host, "bold"), ": nothing to remove"))
    elif done:
        console.print(_text((host, "bold"), f": {count(len(done), 'thing')} removed"))
        _done(console, done)
    else:
        console.print(_text((host, "bold"), ": --yes would remove"))
        for item in left.steps:
            _step(console, item)


def step(text: str) -> None:
    """Print a heading between the steps of the demo to stdout."""
    console = _out()
    console.print()
    console.print(_text(("▶ ", "bold cyan"), (text, "bold")))
