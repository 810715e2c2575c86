"""Every error class of vmproxy. The class says who must act.

VmproxyError
├── UsageError          the command line or the site file is wrong (exit code 2)
│   └── SiteError       the site file, with one entry of `details` for each mistake
├── Unreachable         a host, guest or API server does not answer, or refuses the log-in
├── Forbidden           it answers, but the rights do not suffice
├── Conflict            something that is not ours stands in the way; never touched
├── NotReady            waited for, and did not happen in time
├── ToolFailed          a program on this machine failed
├── RemoteFailed        a program on a host failed; `details` are its own words
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
    """Nothing answers there, or the log-in is refused."""


class Forbidden(VmproxyError):
    """The log-in works, the rights do not suffice."""


class Conflict(VmproxyError):
    """Something that vmproxy did not make stands in the way."""


class NotReady(VmproxyError):
    """A condition did not come true before its deadline."""


class ToolFailed(VmproxyError):
    """A program on this machine failed."""


class RemoteFailed(VmproxyError):
    """A program on a host failed."""


class BadArtifact(VmproxyError):
    """An image or a binary is missing, damaged or of the wrong kind."""


class Busy(VmproxyError):
    """Another vmproxy works on the same host."""


def unexpected(exc: OSError) -> VmproxyError:
    """What the system says, where nothing more is known of it: a full disk, a right on a file."""
    return VmproxyError(f"cannot go on: {exc.strerror or exc}: {exc.filename or ''}".rstrip(": "))
