"""Kerberos against a real KDC: the product's client, the ticket that kinit got, the host's key."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.winhost import kdc
from tests.winhost.auth import Account
from tests.winhost.host import Machine, WinHost
from tests.winhost.presence import require
from tests.winhost.tests.conftest import SOON
from tests.winhost.tests.relay import forwarding, reencrypting
from vmproxy.errors import Forbidden, Unreachable, UsageError
from vmproxy.transport.winrm import Login, WinRM

USER, PASSWORD = "svc-vmproxy", "Secret-of-the-domain-1"
PRINCIPAL = f"{USER}@{kdc.REALM}"


@pytest.fixture(scope="module")
def realm() -> Iterator[kdc.Realm]:
    lacking = [one for one in ("kerberos", "gssapi", "krb5") if find_spec(one) is None]
    if lacking:
        require(f"the Python modules for Kerberos are not installed: {', '.join(lacking)}")
    if kdc.missing():
        require(f"{kdc.missing()} is not installed")
    with kdc.realm() as running:
        running.add(PRINCIPAL, PASSWORD)
        running.add(f"plain@{kdc.REALM}", PASSWORD)
        running.keytab(f"HTTP/localhost@{kdc.REALM}")
        yield running


@pytest.fixture
def joined(realm: kdc.Realm, monkeypatch: pytest.MonkeyPatch) -> Iterator[WinHost]:
    """A host in the domain; nobody has a ticket yet."""
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)
    realm.log_out()
    accounts = [Account(USER, "not used"), Account("plain", "not used", administrator=False)]
    with WinHost(Machine(domain="CORP", cmdlets=False), accounts) as host:
        host.directory.keytab = realm.folder / "host.keytab"
        yield host


def over(endpoint: str, host: WinHost, user: str | None = None) -> WinRM:
    ca = str(host.ca) if endpoint.startswith("https") else None
    return WinRM(endpoint, Login("kerberos", user), ca=ca, limits=SOON)


def echo(wire: WinRM) -> bytes:
    out = b""
    with wire:
        process = wire.start("echo", ["hello"])
        while (output := process.receive(5)).exit_code is None:
            out += output.stdout
        return out + output.stdout


def test_kerberos_over_https_with_the_ticket_that_is_there(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(PRINCIPAL, PASSWORD)
    assert echo(over(joined.endpoint, joined)) == b"hello\r\n"
    assert next(iter(joined.directory.accounts)).failed == 0


def test_kerberos_for_a_named_principal(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(PRINCIPAL, PASSWORD)
    assert echo(over(joined.endpoint, joined, PRINCIPAL)) == b"hello\r\n"


def test_where_another_account_has_the_name_http_the_host_s_own_name_serves(
    realm: kdc.Realm, joined: WinHost
) -> None:
    joined.directory.keytab = realm.keytab(f"WSMAN/localhost@{kdc.REALM}", "computer.keytab")
    realm.log_in(PRINCIPAL, PASSWORD)
    with pytest.raises((Forbidden, Unreachable)) as raised:
        echo(over(joined.endpoint, joined))
    assert "kerberosService: WSMAN" in str(raised.value.hint)
    login = Login("kerberos", service="WSMAN")
    assert echo(WinRM(joined.endpoint, login, ca=str(joined.ca), limits=SOON)) == b"hello\r\n"


def test_kerberos_over_http_seals_every_message(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(PRINCIPAL, PASSWORD)
    seen = bytearray()
    with forwarding(joined.http.port, seen=seen) as port:
        assert echo(over(f"http://localhost:{port}", joined)) == b"hello\r\n"
    assert b"HTTP-SPNEGO-session-encrypted" in seen
    assert b"<rsp:" not in seen


def test_a_dropped_connection_over_http_is_made_anew(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(PRINCIPAL, PASSWORD)
    joined.switchboard.add("drop", operation="Receive", when="after", times=2)
    assert echo(over(joined.http_endpoint, joined)) == b"hello\r\n"


def test_without_a_ticket_the_next_step_is_told(joined: WinHost) -> None:
    for endpoint in (joined.endpoint, joined.http_endpoint):
        with pytest.raises(Unreachable) as caught:
            over(endpoint, joined).__enter__()
        assert "kinit" in (caught.value.hint or "")
    assert joined.messages == []


def test_a_host_whose_name_the_domain_does_not_know_is_told(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(PRINCIPAL, PASSWORD)
    with pytest.raises(Unreachable) as caught:
        over(joined.endpoint.replace("localhost", "127.0.0.1"), joined).__enter__()
    assert "kinit" in (caught.value.hint or "")


def test_a_relay_is_refused_by_channel_binding(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(PRINCIPAL, PASSWORD)
    own = joined.authority.server("localhost")
    with reencrypting(joined.https.port, own, joined.ca) as port, pytest.raises(Unreachable):
        over(f"https://localhost:{port}", joined).__enter__()
    assert joined.messages == []


def test_a_domain_user_who_is_no_administrator_is_denied(realm: kdc.Realm, joined: WinHost) -> None:
    realm.log_in(f"plain@{kdc.REALM}", PASSWORD)
    with pytest.raises(Forbidden, match="Access is denied"):
        over(joined.endpoint, joined).__enter__()


def test_without_the_python_module_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from winrm import transport  # noqa: PLC0415

    monkeypatch.setattr(transport, "HAVE_KERBEROS", False)
    with pytest.raises(UsageError) as caught:
        WinRM("https://host.example", Login("kerberos")).__enter__()
    assert "vmproxy[kerberos]" in (caught.value.hint or "")
