"""PowerShell's wildcards: *, ?, [a-c] and the backtick that takes their meaning away."""

from __future__ import annotations

import re
from functools import cache

from tests.winhost.engine import CmdletError

_PART = re.compile(r"`(.)|(\*)|(\?)|\[([^\]]+)\]|(\[)|(.)", re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether all of `text` fits, in any case. Raises CmdletError for a pattern that PowerShell refuses."""
    return _compiled(pattern).fullmatch(text) is not None


def wild(pattern: str) -> bool:
    """Whether it is a pattern at all."""
    return re.search(r"(?<!`)[*?\[]", pattern) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        translated = "".join(_translated(part, pattern) for part in _PART.finditer(pattern))
        return re.compile(translated, re.IGNORECASE | re.DOTALL)
    except re.error:
        raise _invalid(pattern) from None


def _translated(part: re.Match[str], pattern: str) -> str:
    escaped, star, question, letters, unclosed, plain = part.groups()
    if unclosed:
        raise _invalid(pattern)
    if letters:  # "^" is a letter as others are: it does not negate
        return f"[{re.escape(letters).replace(chr(92) + '-', '-')}]"
    if star or question:
        return ".*" if star else "."
    return re.escape(escaped or plain)


def _invalid(pattern: str) -> CmdletError:
    return CmdletError(
        f"The specified wildcard character pattern is not valid: {pattern}",
        exception="System.Management.Automation.WildcardPatternException",
        error_id="RuntimeException",
        category="NotSpecified",
    )
