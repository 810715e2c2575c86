"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass

from vmproxy.errors import VmproxyError


@dataclass(frozen=True)
class Finding:
    """`next_step` is empty when `ok`."""

    check: str
    ok: bool
    detail: str
    next_step: str = ""


def checked(check: str, *, ok: bool, detail: str, otherwise: str) -> Finding:
    """`otherwise` is the next step when it is not ok."""
    return Finding(check, ok, detail, "" if ok else otherwise)


def enough(check: str, free: int, needed: int, *, otherwise: str) -> Finding:
    detail = f"{free >> 20} MiB free, {needed >> 20} MiB needed"
    return checked(check, ok=free >= needed, detail=detail, otherwise=otherwise)


def failed(check: str, problem: VmproxyError) -> Finding:
    detail = "; ".join((problem.message, *problem.details))
    return Finding(check, ok=False, detail=detail, next_step=problem.hint or "correct it and look again")
