"""Who sends a message: Negotiate (NTLM, SPNEGO), Kerberos, Basic and client certificates."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import spnego
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError

from tests.winhost.ntlm import Names, NegotiateAcceptor, NtlmAcceptor

MUTUAL = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual"
SEALED = "application/HTTP-SPNEGO-session-encrypted"
_BOUNDARY = b"--Encrypted Boundary"
_CHANNEL_BOUND = 0x800
_ENVIRONMENT = threading.Lock()
Cbt = Literal["None", "Strict"]


@dataclass
class Account:
    """A user of the host; `certificate` is the subject's common name that maps to it."""

    name: str
    password: str = field(repr=False)
    administrator: bool = True
    certificate: str | None = None
    failed: int = 0
    """Wrong passwords so far: what an account lock-out counts."""


class Refused(Exception):
    """401; `offers` are the WWW-Authenticate lines, `closes` when the connection is done for."""

    def __init__(self, offers: list[str], *, closes: bool = False) -> None:
        super().__init__(offers)
        self.offers = offers
        self.closes = closes


class Undecipherable(Exception):
    """400: a sealed body that this connection's key does not open."""


@dataclass
class Directory:
    """The accounts, and what the service allows."""

    machine: str
    accounts: list[Account]
    domain: str | None = None
    basic: bool = False
    negotiate: bool = True
    allow_unencrypted: bool = False
    cbt: Cbt = "Strict"
    keytab: Path | None = None
    """Kerberos is offered when there is one."""
    lockout: int = 10
    """Wrong passwords until an account takes none at all."""

    def account(self, name: str) -> Account | None:
        r"""By `name`, `MACHINE\name`, `DOMAIN\name`, `domain.dns\name` or `name@REALM`."""
        domain, _, short = name.rpartition("\\")
        short = short.partition("@")[0]
        if domain.lower() not in self.domains():
            return None
        return next((one for one in self.accounts if one.name.lower() == short.lower()), None)

    @property
    def names(self) -> Names:
        return Names(self.machine, self.domain)

    def domains(self) -> set[str]:
        """What may stand before an account's name, in small letters."""
        names = {".", self.machine, self.domain, self.names.dns_domain}
        return {"", *(name.lower() for name in names if name)}

    def check(self, name: str, password: str) -> Account | None:
        account = self.account(name)
        if account is None or account.failed >= self.lockout:
            return None
        if not secrets.compare_digest(account.password.encode(), password.encode()):
            account.failed += 1
            return None
        account.failed = 0
        return account

    @contextmanager
    def credentials(self) -> Iterator[None]:
        """What pyspnego's acceptor reads from the process's environment."""
        with _ENVIRONMENT, tempfile.NamedTemporaryFile("w", suffix=".ntlm") as store:
            lines = (
                f"{domain}:{one.name}:{one.password}"
                for one in self.accounts
                if one.failed < self.lockout
                for domain in self.domains()
            )
            store.write("\n".join(lines) + "\n")
            store.flush()
            wanted = {"NTLM_USER_FILE": store.name}
            if self.keytab:
                wanted["KRB5_KTNAME"] = f"FILE:{self.keytab}"
            before = {name: os.environ.get(name) for name in wanted}
            os.environ.update(wanted)
            try:
                yield
            finally:
                for name, value in before.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})


@dataclass
class Gate:
    """One TCP connection's log-in: it belongs to the connection, and ends with it."""

    directory: Directory
    certificate: bytes | None = None
    """The server's own, DER, over https: what channel binding binds to."""
    subject: str | None = None
    """The common name in the client's certificate."""
    account: Account | None = None
    context: spnego.ContextProxy | None = None
    claimed: str = ""

    @property
    def secure(self) -> bool:
        return self.certificate is not None

    def admit(self, authorization: str | None) -> tuple[Account, str | None]:
        """The sender, and a last token to send back; raises Refused."""
        if authorization is None:
            if self.account is None:
                raise Refused(self.offers())
            return self.account, None
        scheme, _, word = authorization.partition(" ")
        match scheme.lower():
            case "basic" if self._takes_basic():
                return self._kept(self._basic(word)), None
            case _ if authorization == MUTUAL and self.subject is not None:
                return self._kept(self._mapped()), None
            case "negotiate" | "kerberos" if self._takes(scheme):
                return self._stepped(scheme, word)
        raise Refused(self.offers())

    def offers(self) -> list[str]:
        offers = ["Negotiate"] if self.directory.negotiate else []
        offers += ["Kerberos"] if self.directory.keytab else []
        return offers + (['Basic realm="WSMAN"'] if self._takes_basic() else [])

    def sealing(self) -> bool:
        return self.context is not None and self.account is not None

    def open(self, body: bytes) -> bytes:
        """The message in a multipart/encrypted body."""
        parts = body.split(_BOUNDARY)
        if self.context is None or len(parts) < 3 or b"OriginalContent" not in parts[1]:
            raise Undecipherable
        payload = (_BOUNDARY.join(parts[2:-1])).lstrip(b"\r\n").partition(b"octet-stream\r\n")[2]
        try:
            (length,) = struct.unpack("<i", payload[:4])
            message = self.context.unwrap_winrm(payload[4 : 4 + length], payload[4 + length :])
            expected = int(parts[1].partition(b"Length=")[2])
        except (SpnegoError, struct.error, ValueError) as exc:
            raise Undecipherable from exc
        if len(message) != expected:
            raise Undecipherable
        return message

    def seal(self, message: bytes) -> bytes:
        assert self.context is not None
        sealed = self.context.wrap_winrm(message)
        head = f"type=application/soap+xml;charset=UTF-8;Length={len(message)}"
        return b"".join(
            (
                _BOUNDARY + b"\r\n\tContent-Type: " + SEALED.encode() + b"\r\n",
                b"\tOriginalContent: " + head.encode() + b"\r\n",
                _BOUNDARY + b"\r\n\tContent-Type: application/octet-stream\r\n",
                struct.pack("<i", len(sealed.header)) + sealed.header + sealed.data,
                _BOUNDARY + b"--\r\n",
            )
        )

    def _takes(self, scheme: str) -> bool:
        return bool(self.directory.keytab) if scheme.lower() == "kerberos" else self.directory.negotiate

    def _takes_basic(self) -> bool:
        return self.directory.basic and (self.secure or self.directory.allow_unencrypted)

    def _kept(self, account: Account | None) -> Account:
        if account is None:
            raise Refused(self.offers())
        self.account = account
        return account

    def _basic(self, word: str) -> Account | None:
        try:
            name, _, password = base64.b64decode(word, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self.directory.check(name, password)

    def _mapped(self) -> Account | None:
        named = (one for one in self.directory.accounts if one.certificate is not None)
        return next((one for one in named if one.certificate == self.subject), None)

    def _stepped(self, scheme: str, word: str) -> tuple[Account, str | None]:
        try:
            token = base64.b64decode(word, validate=True)
        except binascii.Error as exc:
            raise Refused(self.offers()) from exc
        if self.context is None or self.context.complete:
            self.account, self.claimed = None, ""
            self.context = self._acceptor(scheme, token)
        self.claimed = _user_name(token) or self.claimed
        try:
            with self.directory.credentials():
                answer = self.context.step(token)
        except (SpnegoError, AttributeError) as exc:  # AttributeError: pyspnego's, for a refused binding
            self._failed()
            raise Refused(self.offers()) from exc
        told = f"{scheme} {base64.b64encode(answer).decode()}" if answer else None
        if not self.context.complete:
            raise Refused([told or scheme])
        if not self._is_bound():
            self.context = None
            raise Refused(self.offers())
        return self._named(self.context.client_principal or ""), told

    def _is_bound(self) -> bool:
        """MIT's Kerberos takes a client that binds to no channel at all, and says so."""
        strict = self.certificate is not None and self.directory.cbt == "Strict"
        if not strict or self.context is None or self.context.negotiated_protocol != "kerberos":
            return True
        inner: Any = self.context
        while not hasattr(inner, "actual_flags"):
            inner = inner._context  # pyspnego's wrappers around gssapi's
        return bool(int(inner.actual_flags) & _CHANNEL_BOUND)

    def _named(self, principal: str) -> Account:
        account = self._kept(self.directory.account(principal))
        account.failed = 0
        return account

    def _failed(self) -> None:
        """Count a wrong password, and start anew."""
        account = self.directory.account(self.claimed) if self.claimed else None
        if account is not None:
            account.failed += 1
        self.context = None

    def _acceptor(self, scheme: str, token: bytes) -> spnego.ContextProxy:
        names, bindings = self.directory.names, self._bindings()
        options = {"hostname": "localhost", "service": "HTTP", "channel_bindings": bindings}
        with self.directory.credentials():
            if token.startswith(b"NTLMSSP\0"):
                return NtlmAcceptor(names, **options)
            if scheme.lower() == "kerberos":
                return spnego.server(protocol="kerberos", **options)
            return NegotiateAcceptor(names, options=spnego.NegotiateOptions.use_negotiate, **options)

    def _bindings(self) -> GssChannelBindings | None:
        """To the TLS channel, where the client's must be the same."""
        if self.certificate is None or self.directory.cbt != "Strict":
            return None
        bound = b"tls-server-end-point:" + sha256(self.certificate).digest()
        return GssChannelBindings(application_data=bound)


def common_name(peer: object) -> str | None:
    """The subject's CN of what SSLSocket.getpeercert() gives."""
    subject = peer.get("subject", ()) if isinstance(peer, dict) else ()
    return next((value for group in subject for key, value in group if key == "commonName"), None)


def tls(certificate: Path, key: Path, clients: Path | None) -> ssl.SSLContext:
    """The https listener's; `clients` are the CAs whose client certificates it asks for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(clients)
    return context


def _user_name(token: bytes) -> str:
    r"""`DOMAIN\name` in an NTLM Authenticate message, wrapped in SPNEGO or not; else ""."""
    at = token.find(b"NTLMSSP\0\x03\0\0\0")
    if at < 0:
        return ""
    message = token[at:]
    domain, name = (_field(message, offset) for offset in (28, 36))
    return f"{domain}\\{name}" if domain else name


def _field(message: bytes, at: int) -> str:
    length, _, offset = struct.unpack("<HHI", message[at : at + 8])
    return message[offset : offset + length].decode("utf-16-le", errors="replace")
