"""The faults of WinRM's service, in its own words."""

from __future__ import annotations

from tests.winhost.soap import Fault

_REQUEST = "The WS-Management service cannot process the request"


def timed_out() -> Fault:
    text = (
        "The WS-Management service cannot complete the operation within the time specified in "
        "OperationTimeout.  "
    )
    return Fault(2150858793, "w:TimedOut", text, sender=False)


def denied() -> Fault:
    return Fault(5, "w:AccessDenied", "Access is denied. ")


def gone(what: str) -> Fault:
    """No such "shell" or "command"."""
    return Fault(
        2150858843,
        "w:InvalidSelectors",
        f"{_REQUEST} because the request contained invalid selectors for the resource. ",
        message="The Windows Remote Shell received a request to perform an operation on a "
        f"{what} identifier that does not exist. Either the {what} has completed execution or the client "
        f"specified an invalid {what} identifier. ",
        detail="UnexpectedSelectors",
    )


def wrong_parameter() -> Fault:
    """The message names no command at all."""
    text = "The parameter is incorrect. "
    return Fault(87, "w:InvalidParameter", text, detail="InvalidValue", by_plugin=True)


def no_remote_shells() -> Fault:
    """The policy "Allow Remote Shell Access" is disabled."""
    text = f"{_REQUEST}. The service is configured to not accept any remote shell requests. "
    return Fault(2150859180, "w:InternalError", text, sender=False)


def busy() -> Fault:
    text = "The requested resource is in use. "
    return Fault(170, "w:InternalError", text, sender=False, by_plugin=True)


def too_many_operations() -> Fault:
    text = (
        f"{_REQUEST}. The maximum number of concurrent operations for this user has been exceeded. "
        "Close existing operations for this user, or raise the quota for this user. "
    )
    return Fault(2150859174, "w:QuotaLimit", text, wmi=True)


def too_many_shells() -> Fault:
    text = (
        f"{_REQUEST}. The maximum number of concurrent shells for this user has been exceeded. "
        "Close existing shells or raise the quota for this user. "
    )
    return Fault(2150859173, "w:QuotaLimit", text)


def too_many_users() -> Fault:
    text = (
        f"{_REQUEST}. The maximum number of users executing shell operations has been exceeded. "
        "Retry after sometime or raise the quota for concurrent shell users. "
    )
    return Fault(2150859179, "w:QuotaLimit", text)


def too_many_processes() -> Fault:
    text = (
        f"{_REQUEST}. This shell has exceeded its quota of concurrent processes. "
        "Close existing processes or raise the quota for the shell. "
    )
    return Fault(2150859241, "w:QuotaLimit", text)


def pipe_closed() -> Fault:
    return Fault(232, "w:InternalError", "The pipe is being closed. ", sender=False)


def invalid(what: str) -> Fault:
    text = f"{_REQUEST} because the XML contains an invalid value for {what}. "
    return Fault(2150858817, "w:SchemaValidationError", text)


def unsupported(what: str) -> Fault:
    text = f"{_REQUEST}. The service cannot find the resource {what}"
    return Fault(2150858752, "w:InternalError", text)
