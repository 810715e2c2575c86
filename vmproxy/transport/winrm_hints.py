"""Hints for WinRM failures, and the cause inside an exception."""

from __future__ import annotations

import re
from typing import Any

EXPIRES = "it ends by itself after five minutes without a message"
LEFT = "if a shell was opened nevertheless, it ends by itself after five minutes"
REFUSED = (
    "check the user name (CORP\\name, or HOST\\name for a local account) and the password: it was tried "
    "once; a proxy that re-encrypts TLS causes the same refusal, and so do policies that deny local accounts "
    "or NTLM over the network, and the group Protected Users: then use auth: kerberos or certificate; with "
    "auth: kerberos, HTTP/HOST may be another service's (`setspn -Q HTTP/HOST`): set kerberosService: WSMAN"
)
KERBEROS_EXTRA = (
    "run: pip install 'vmproxy[kerberos]' (on Debian it needs the packages gcc, python3-dev and libkrb5-dev)"
)
NO_TICKET = (
    "get a ticket first (`kinit NAME@REALM`; `klist` shows it), and use the host's full domain name in "
    "the endpoint"
)
NOT_ADMINISTRATOR = (
    "WinRM's shell needs an account that is a local administrator of the host; for a local account other "
    "than the built-in Administrator also set LocalAccountTokenFilterPolicy to 1 in "
    "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System"
)
NO_REMOTE_SHELLS = (
    "the policy `Allow Remote Shell Access` is disabled on the host: enable it (Windows Remote Shell in the "
    "group policies; `winrm get winrm/config/winrs` shows AllowRemoteShellAccess)"
)
QUOTA = "see `winrm get winrm/config` on the host; shells that were left open end after their idle timeout"
NO_ANSWER = (
    "check that the host is up, WinRM listens there (`winrm quickconfig`), and no firewall blocks the port"
)
NOT_WINRM = "check that this is WinRM's port, and that no proxy answers instead"
NOT_TLS = "check that this port is the https listener (5986): `winrm enumerate winrm/config/listener`"
OTHER_NAME = "use the name in the certificate as the endpoint's host, or give the host another certificate"
UNKNOWN_CA = "set `ca:` to the PEM file of the CA that signed the host's certificate"


def redirected(exc: Any) -> str:
    """Where a redirect leads. It is not followed, whatever it is."""
    target = exc.response.headers.get("Location", "") if exc.response is not None else ""
    return f"it redirects to {target or 'another place'}, which vmproxy does not follow"


def gss_reason(text: str) -> str:
    """The last of the reasons in a GSSError, in the library's own words."""
    reasons = re.findall(r"\(['\"](.*?)['\"], -?\d+\)", text)
    return reasons[-1] if reasons else text


def root(exc: BaseException) -> str:
    """The operating system's message, from inside the errors of requests and urllib3."""
    inner: Any = exc
    while True:
        reason = getattr(inner, "reason", None)
        inside = [reason, *inner.args]
        deeper = next((one for one in inside if isinstance(one, BaseException)), None)
        if deeper is None:
            return getattr(inner, "strerror", None) or str(inner).rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1]
        inner = deeper
