"""Data about change: what differs, what to do about it, what came of it. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Place = Literal["cluster", "host", "guest"]

ABSENT = "absent"
"""How a thing that is not there is written in a drift."""


@dataclass(frozen=True)
class Drift:
    """One difference. Values are for a reader: files appear by hash, secrets never."""

    field: str
    wanted: Any
    seen: Any


@dataclass(frozen=True)
class Action:
    """One step as data.

    `params` is what the place needs to carry it out; it is never shown, as it may hold secrets.
    `cold` means that it interrupts a VM that runs now: done only with --yes.
    """

    place: Place
    verb: str
    target: str
    why: str
    drift: tuple[Drift, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    cold: bool = False


@dataclass(frozen=True)
class Plan:
    """Ordered actions; none means in sync.

    `unseen` names what could not be looked at yet and when it will be.
    `warnings` are findings that no action of ours repairs.
    """

    actions: tuple[Action, ...] = ()
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def in_sync(self) -> bool:
        return not self.actions and not self.unseen

    def at(self, place: Place) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.place == place)


@dataclass(frozen=True)
class Outcome:
    """What came of an action. `detail` says why it failed or was skipped."""

    action: Action
    result: Literal["done", "failed", "skipped"]
    detail: str = ""


def differences(wanted: Mapping[str, Any], seen: Mapping[str, Any], *, prefix: str = "") -> tuple[Drift, ...]:
    """A drift for each field of `wanted` that `seen` has otherwise or lacks; other fields do not count."""
    return tuple(
        Drift(prefix + name, value, seen.get(name, ABSENT))
        for name, value in wanted.items()
        if seen.get(name, ABSENT) != value
    )


def any_cold(actions: Iterable[Action]) -> bool:
    return any(action.cold for action in actions)
