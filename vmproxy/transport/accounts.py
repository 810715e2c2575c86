"""Passwords that were refused in this run: not tried on the next host, so that no account is locked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from vmproxy.errors import Unreachable


class Refused(Unreachable):
    """The host does not take the account's password."""


@dataclass
class _Password:
    """One account's. `turn` is held while nobody knows yet whether it is right."""

    turn: Lock = field(default_factory=Lock)
    accepted: bool = False
    refused_by: str | None = None


class Accounts:
    """Of one run, for all of its hosts."""

    def __init__(self) -> None:
        self._passwords: dict[tuple[str, str], _Password] = {}
        self._lock = Lock()

    @contextmanager
    def logging_in(self, account: str, password: str, host: str) -> Iterator[None]:
        """One host at a time until one has taken the password. Raises Refused, without a try, once one has
        refused it; another error leaves the next host its own try."""
        known = self._of(account, password)
        if known.accepted:
            yield
            return
        with known.turn:
            if known.refused_by:
                raise Refused(
                    f"cannot log in to {host}: {known.refused_by} refused {account}, so it was not tried",
                    hint=f"see the error of {known.refused_by}: more attempts could lock the account",
                )
            try:
                yield
            except Refused:
                known.refused_by = None if known.accepted else host
                raise
            known.accepted = True

    def _of(self, account: str, password: str) -> _Password:
        with self._lock:
            return self._passwords.setdefault((account.casefold(), password), _Password())
