"""Opens a PowerShell on the host, from the site file's `hyperv`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vmproxy.errors import UsageError
from vmproxy.site.model import Hyperv, SecretFromEnv, SecretRef
from vmproxy.transport.accounts import Accounts
from vmproxy.transport.powershell import PowerShell
from vmproxy.util import text

if TYPE_CHECKING:
    from vmproxy.transport.winrm import Login


@contextmanager
def connect(about: Hyperv, host: str, accounts: Accounts) -> Iterator[PowerShell]:
    """One shell with one powershell.exe in it, until the block ends."""
    from vmproxy.transport.winrm import WinRM  # noqa: PLC0415 (slow, and for Windows hosts only)

    ca = str(about.ca) if about.ca else None
    with (
        WinRM(about.endpoint, login(about, host), ca=ca, accounts=accounts) as winrm,
        winrm.powershell() as shell,
    ):
        yield shell


def login(about: Hyperv, host: str) -> Login:
    """Raises UsageError for a missing file or secret; never shows a secret's value."""
    from vmproxy.transport.winrm import Login  # noqa: PLC0415 (slow, and for Windows hosts only)

    for key in ("ca", "certificate", "key"):
        _readable(getattr(about, key), key, host)
    return Login(
        auth=about.auth,
        username=about.username,
        password=_secret(about.password, host) if about.password else None,
        certificate=str(about.certificate) if about.certificate else None,
        key=str(about.key) if about.key else None,
        service=about.kerberos_service,
    )


def _readable(file: Path | None, key: str, host: str) -> None:
    try:
        if file:
            file.read_bytes()
    except OSError as exc:
        raise UsageError(
            f"cannot log in to {host}: cannot read {file}: {exc.strerror}", hint=f"see hyperv.{key}"
        ) from exc


def _secret(reference: SecretRef, host: str) -> str:
    if isinstance(reference, SecretFromEnv):
        value = os.environ.get(reference.env)
        if not value:
            raise UsageError(
                f"cannot log in to {host}: the variable {reference.env} is not set",
                hint=f"set {reference.env} to the password, as hyperv.password says",
            )
        return value
    try:
        return text.read(reference.file).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise UsageError(
            f"cannot log in to {host}: cannot read {reference.file}: {reason}", hint="see hyperv.password"
        ) from exc
