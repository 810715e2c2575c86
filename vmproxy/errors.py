"""Every error class of vmproxy. The class says who must act.

VmproxyError
├── UsageError          the command line or the site file is wrong (exit code 2)
│   └── SiteError       the site file, with one entry of `details` for each mistake
├── Unreachable         a host, guest or API server does not answer, or refuses the login
├── Forbidden           it answers, but the rights are not sufficient
├── Conflict            something foreign is in the way; vmproxy never changes it
├── NotReady            a condition did not become true in time
├── ToolFailed          a program on this machine failed
├── RemoteFailed        a program on a host failed; `details` has its output
├── BadArtifact         an image or a binary is missing, damaged or of the wrong kind
└── Busy                another vmproxy works on the same host
"""

from __future__ import annotations

from collections.abc import Sequence


class VmproxyError(Exception):
    """What, where and why went wrong (`message`), and the next step (`hint`).

    `details` are further lines for the reader: a tool's own words, the end of a log. `step` is the step of
    a plan that failed; None: it happened outside of one.
    """

    step: object | None = None

    def __init__(
        self, message: str, *, hint: str | None = None, details: Sequence[str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details or ())


class UsageError(VmproxyError):
    """The command line is wrong."""


class SiteError(UsageError):
    """The site file is wrong; `details` has one line for each mistake."""


class Unreachable(VmproxyError):
    """Nothing answers, or the login is refused."""


class Forbidden(VmproxyError):
    """The login succeeds, but the rights are not sufficient."""


class Conflict(VmproxyError):
    """Something that vmproxy did not create is in the way."""


class NotReady(VmproxyError):
    """A condition did not become true before its deadline."""


class ToolFailed(VmproxyError):
    """A program on this machine failed."""


class RemoteFailed(VmproxyError):
    """A program on a host failed."""


class BadArtifact(VmproxyError):
    """An image or a binary is missing, damaged or of the wrong kind."""


class Busy(VmproxyError):
    """Another vmproxy works on the same host."""


def unexpected(exc: OSError) -> VmproxyError:
    """An operating system error without more context, such as a full disk or a file without access."""
    return VmproxyError(f"cannot continue: {exc.strerror or exc}: {exc.filename or ''}".rstrip(": "))
