"""What to do when WinRM fails, and the reason from inside an exception."""

from __future__ import annotations

import re
from typing import Any

EXPIRES = "it ends by itself after five minutes without a message"
LEFT = "a shell that was opened all the same ends by itself after five minutes"
REFUSED = (
    "check the user name (CORP\\name, or HOST\\name for a local account) and the password: it was tried "
    "once; a proxy that re-encrypts TLS in between is refused in the same way"
)
KERBEROS_EXTRA = (
    "pip install 'vmproxy[kerberos]'; on Debian that needs the packages gcc, python3-dev and libkrb5-dev"
)
NO_TICKET = (
    "get a ticket first (`kinit NAME@REALM`; `klist` shows it), and write the endpoint with the host's "
    "full name, as the domain knows it"
)
NOT_ADMINISTRATOR = (
    "WinRM's shell needs a local administrator of the host; for a local account other than the built-in "
    "Administrator also set LocalAccountTokenFilterPolicy to 1 in "
    "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System"
)
QUOTA = "see `winrm get winrm/config` on the host; shells that were left open end after their idle time"
NO_ANSWER = "is the host up, does its WinRM listen there (`winrm quickconfig`), is the port open in between?"
NOT_WINRM = "is this WinRM's port, or does a proxy answer in its place?"
NOT_TLS = "is this port the https listener (5986)? `winrm enumerate winrm/config/listener`"
OTHER_NAME = "write the endpoint with the name in the certificate, or give the host another certificate"
UNKNOWN_CA = "set `ca:` to the PEM file of the CA that signed the host's certificate"


def gss_reason(text: str) -> str:
    """The last of the reasons in a GSSError: the library's own words."""
    reasons = re.findall(r"\(['\"](.*?)['\"], -?\d+\)", text)
    return reasons[-1] if reasons else text


def root(exc: BaseException) -> str:
    """The operating system's own words, from under requests' and urllib3's."""
    inner: Any = exc
    while True:
        reason = getattr(inner, "reason", None)
        inside = [reason, *inner.args]
        deeper = next((one for one in inside if isinstance(one, BaseException)), None)
        if deeper is None:
            return getattr(inner, "strerror", None) or str(inner).rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1]
        inner = deeper
