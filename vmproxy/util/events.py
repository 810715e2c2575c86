"""What happens during a run, as data. Every module reports to the same sink; the command line reads it.

Modules below the engine report lines of text; one about a transfer is an `Amount` and carries its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Report = Callable[[str], None]
"""Takes one line about what happens now."""


class Amount(str):
    """A line about a transfer. `done` and `total` are bytes; `total` None: not known."""

    done: int
    total: int | None

    def __new__(cls, text: str, *, done: int, total: int | None = None) -> Amount:
        line = super().__new__(cls, text)
        line.done, line.total = done, total
        return line


@dataclass(frozen=True)
class Phase:
    """A phase of a host begins: identity, switch, vm, pods, guest, routes, containers or names."""

    name: str


@dataclass(frozen=True)
class Step:
    """A step begins."""

    place: str
    verb: str
    target: str


@dataclass(frozen=True)
class Progress:
    """One line about what happens now. `done` and `total` are bytes; None where nothing is transferred."""

    text: str
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Warned:
    """A finding that no step of ours repairs."""

    text: str


@dataclass(frozen=True)
class Ended:
    """A host's run is over after that many steps. `error` None: it came to its end."""

    steps: int
    error: str | None


Event = Phase | Step | Progress | Warned | Ended
Sink = Callable[[str | None, Event], None]
"""Takes an event of a host, by its name; None: of the command itself."""


@dataclass(frozen=True)
class Reporter:
    """Sends the events of one host to a sink. It is a `Report` too."""

    sink: Sink
    host: str | None = None

    def __call__(self, text: str) -> None:
        amount = text if isinstance(text, Amount) else None
        done, total = (amount.done, amount.total) if amount else (None, None)
        self.send(Progress(str(text), done, total))

    def send(self, event: Event) -> None:
        self.sink(self.host, event)
