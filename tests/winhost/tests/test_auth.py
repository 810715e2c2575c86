"""Every way to log in to WinRM, good and bad, by the product's client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests
from winrm.exceptions import InvalidCredentialsError
from winrm.protocol import Protocol

from tests.winhost.auth import SEALED, Account
from tests.winhost.certificates import Authority
from tests.winhost.host import Machine, WinHost
from tests.winhost.presence import require
from tests.winhost.tests.conftest import SOON, client
from tests.winhost.tests.relay import forwarding, reencrypting
from vmproxy.errors import Forbidden, Unreachable, UsageError
from vmproxy.transport.accounts import Accounts
from vmproxy.transport.winrm import Login, WinRM

POLICIES = r"HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System"
ADMINISTRATOR = {"username": "Administrator"}


def echo(wire: WinRM) -> bytes:
    """Run one program; the shell is deleted again."""
    with wire:
        process = wire.start("echo", ["hello"])
        out = b""
        while (output := process.receive(5)).exit_code is None:
            out += output.stdout
        return out + output.stdout


def over_http(host: WinHost, **login: object) -> WinRM:
    wanted = {"auth": "ntlm", "password": host.password, **ADMINISTRATOR, **login}
    return WinRM(host.http_endpoint, Login(**wanted), limits=SOON)  # type: ignore[arg-type]


def refused(wire: WinRM) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        wire.__enter__()
    return caught.value


def test_ntlm_over_https(host: WinHost) -> None:
    assert echo(client(host)) == b"hello\r\n"


def test_ntlm_over_http_seals_every_message(host: WinHost) -> None:
    seen = bytearray()
    with forwarding(host.http.port, seen=seen) as port:
        wire = WinRM(f"http://127.0.0.1:{port}", Login("ntlm", "Administrator", host.password), limits=SOON)
        assert echo(wire) == b"hello\r\n"
    assert b"HTTP-SPNEGO-session-encrypted" in seen
    assert b"<rsp:" not in seen
    assert b"aGVsbG8" not in seen  # hello, as Receive's base64


@pytest.mark.parametrize("name", ["administrator", "WIN-01\\Administrator", "CORP\\Administrator"])
def test_the_user_name_may_have_a_domain_and_any_case(name: str) -> None:
    with WinHost(Machine(domain="CORP", cmdlets=False)) as host:
        assert echo(client(host, username=name)) == b"hello\r\n"


def test_a_wrong_password_is_tried_once(host: WinHost) -> None:
    error = refused(client(host, password="wrong"))
    assert "the login was refused" in error.message
    assert "tried once" in (error.hint or "")
    assert host.administrator.failed == 1


def test_a_wrong_password_over_http_is_tried_once(host: WinHost) -> None:
    assert "the login was refused" in refused(over_http(host, password="wrong")).message
    assert host.administrator.failed == 1


@pytest.mark.parametrize("password", ["pässwörd-1", "пароль-1", "€uro-🔑"])
def test_basic_sends_utf_8(host: WinHost, password: str) -> None:
    host.administrator.password = password
    host.directory.basic = True
    assert echo(client(host, auth="basic", password=password)) == b"hello\r\n"


@pytest.fixture
def second() -> Iterator[WinHost]:
    with WinHost(Machine(name="WIN-02", domain="CORP", cmdlets=False)) as running:
        yield running


def log_in(host: WinHost, accounts: Accounts, name: str, password: str) -> Unreachable | None:
    login = Login("ntlm", name, password)
    try:
        with WinRM(host.endpoint, login, ca=str(host.ca), limits=SOON, accounts=accounts):
            return None
    except Unreachable as exc:
        return exc


def test_a_password_that_one_host_refused_is_not_tried_on_the_others(host: WinHost, second: WinHost) -> None:
    accounts = Accounts()
    first = log_in(host, accounts, "Administrator", "expired")
    assert first is not None
    assert "the login was refused" in first.message
    error = log_in(second, accounts, "administrator", "expired")
    assert error is not None
    assert "refused administrator, so it was not tried" in error.message
    assert (host.administrator.failed, second.administrator.failed) == (1, 0)
    assert log_in(second, accounts, "Administrator", second.password) is None
    assert log_in(second, Accounts(), "Administrator", "expired") is not None
    assert second.administrator.failed == 1


def test_hosts_that_start_at_the_same_time_try_a_wrong_password_once(host: WinHost) -> None:
    accounts = Accounts()
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(log_in, host, accounts, "Administrator", "expired") for _ in range(8)]
    assert all(one.result() for one in tries)
    assert host.administrator.failed == 1


def test_a_host_that_cannot_be_reached_leaves_the_others_their_try(host: WinHost, second: WinHost) -> None:
    accounts = Accounts()
    second.administrator.password = host.password
    host.https.close()
    assert log_in(host, accounts, "Administrator", host.password) is not None
    assert log_in(second, accounts, "Administrator", host.password) is None


def test_a_local_account_is_tried_on_each_host(host: WinHost, second: WinHost) -> None:
    accounts = Accounts()
    for one in (host, second):
        assert log_in(one, accounts, r".\Administrator", "expired") is not None
    assert (host.administrator.failed, second.administrator.failed) == (1, 1)


def test_an_unknown_user_is_refused(host: WinHost) -> None:
    assert "the login was refused" in refused(client(host, username="nobody")).message
    assert "the login was refused" in refused(client(host, username="OTHER\\Administrator")).message


def test_a_locked_account_takes_no_password_at_all(host: WinHost) -> None:
    host.directory.lockout = 1
    refused(client(host, password="wrong"))
    assert "the login was refused" in refused(client(host)).message


def test_a_password_that_stops_to_be_right_during_the_work_is_tried_once_more(host: WinHost) -> None:
    with client(host) as wire:
        host.administrator.password = "changed"
        host.https.hang_up()
        with pytest.raises(Unreachable, match="the login was refused"):
            wire.start("echo", ["x"])
    assert host.administrator.failed == 1  # leaving the block does not try again


def test_a_certificate_of_another_ca_is_not_trusted(host: WinHost, tmp_path: Path) -> None:
    other = Authority(tmp_path).certificate
    wire = WinRM(host.endpoint, Login("ntlm", "Administrator", host.password), ca=str(other), limits=SOON)
    error = refused(wire)
    assert "certificate is not trusted" in error.message
    assert "`ca:`" in (error.hint or "")
    assert host.administrator.failed == 0
    assert host.messages == []


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    with WinHost(Machine(cmdlets=False)) as host:
        login = Login("ntlm", "Administrator", host.password)
        with forwarding(host.https.port, address="127.0.0.2") as port:
            error = refused(WinRM(f"https://127.0.0.2:{port}", login, ca=str(host.ca), limits=SOON))
    assert "its certificate is for another name" in error.message
    assert host.messages == []


def test_the_systems_cas_are_used_when_none_is_given(host: WinHost) -> None:
    wire = WinRM(host.endpoint, Login("ntlm", "Administrator", host.password), limits=SOON)
    assert "certificate is not trusted" in refused(wire).message


def test_a_relay_with_a_trusted_certificate_is_refused_by_channel_binding(host: WinHost) -> None:
    own = host.authority.server("localhost")
    with reencrypting(host.https.port, own, host.ca) as port:
        wire = WinRM(
            f"https://localhost:{port}",
            Login("ntlm", "Administrator", host.password),
            ca=str(host.ca),
            limits=SOON,
        )
        error = refused(wire)
    assert "the login was refused" in error.message
    assert "re-encrypts TLS" in (error.hint or "")
    assert host.messages == []


def test_a_client_without_channel_binding_is_refused(host: WinHost) -> None:
    wire = Protocol(
        host.endpoint + "/wsman",
        transport="ntlm",
        username="Administrator",
        password=host.password,
        ca_trust_path=str(host.ca),
        send_cbt=False,
        proxy=None,
    )
    with pytest.raises(InvalidCredentialsError):
        wire.open_shell()
    wire.transport.close_session()
    host.directory.cbt = "None"
    assert wire.open_shell()
    wire.transport.close_session()


def test_who_is_no_administrator_is_told_what_it_needs(host: WinHost) -> None:
    host.accounts.append(Account("plain", "secret-1", administrator=False))
    with pytest.raises(Forbidden) as caught:
        client(host, username="plain", password="secret-1").__enter__()
    assert "Access is denied" in caught.value.message
    assert "LocalAccountTokenFilterPolicy" in (caught.value.hint or "")


@pytest.mark.winhost
def test_a_local_administrator_with_a_filtered_token_is_denied() -> None:
    require()
    accounts = [Account("Administrator", "secret-1"), Account("second", "secret-2")]
    with WinHost(accounts=accounts) as host:
        second = partial(client, host, username="second", password="secret-2")
        assert echo(second()) == b"hello\r\n"
        assert host.emulation is not None
        host.emulation.stores.registry.set(POLICIES, LocalAccountTokenFilterPolicy=None)
        assert echo(client(host)) == b"hello\r\n"
        with pytest.raises(Forbidden):
            second().__enter__()


def test_basic_over_https_where_the_host_allows_it(host: WinHost) -> None:
    assert "the login was refused" in refused(client(host, auth="basic")).message
    host.directory.basic = True
    assert echo(client(host, auth="basic")) == b"hello\r\n"
    assert "the login was refused" in refused(client(host, auth="basic", password="wrong")).message


@pytest.mark.parametrize("auth", ["basic", "certificate"])
def test_what_would_send_a_secret_in_clear_is_refused_before_anything_is_sent(
    auth: str, host: WinHost
) -> None:
    host.directory.basic = host.directory.allow_unencrypted = True
    with pytest.raises(UsageError, match="over http does not protect the login"):
        over_http(host, auth=auth)
    assert host.http.accepted == 0


def test_a_message_in_clear_over_http_is_refused_by_the_host(host: WinHost) -> None:
    wire = Protocol(
        host.http_endpoint + "/wsman",
        transport="ntlm",
        username="Administrator",
        password=host.password,
        message_encryption="never",
        ca_trust_path="",
        proxy=None,
    )
    with pytest.raises(InvalidCredentialsError):
        wire.open_shell()
    host.directory.allow_unencrypted = True
    assert wire.open_shell()
    wire.transport.close_session()


def test_a_client_certificate_that_is_mapped_logs_in(host: WinHost) -> None:
    pair = host.client("svc-vmproxy", host.administrator)
    wire = client(host, auth="certificate", certificate=str(pair.certificate), key=str(pair.key))
    assert echo(wire) == b"hello\r\n"


def test_a_client_certificate_that_is_not_mapped_is_refused(host: WinHost) -> None:
    pair = host.authority.client("stranger")
    wire = client(host, auth="certificate", certificate=str(pair.certificate), key=str(pair.key))
    assert "the login was refused" in refused(wire).message


def test_a_client_certificate_of_an_unknown_ca_is_refused(host: WinHost, tmp_path: Path) -> None:
    host.client("svc-vmproxy", host.administrator)
    pair = Authority(tmp_path).client("svc-vmproxy")
    refused(client(host, auth="certificate", certificate=str(pair.certificate), key=str(pair.key)))
    assert host.messages == []


def test_a_sealed_message_of_another_connection_is_400(host: WinHost) -> None:
    kind = f'multipart/encrypted;protocol="{SEALED}";boundary="Encrypted Boundary"'
    wire = Protocol(
        host.http_endpoint + "/wsman",
        transport="ntlm",
        username="Administrator",
        password=host.password,
        ca_trust_path="",
        proxy=None,
    )
    wire.open_shell()
    session = wire.transport.session
    assert session is not None
    answer = session.post(
        host.http_endpoint + "/wsman",
        headers={"Content-Type": kind},
        data=b"--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n"
        b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=5\r\n--Encrypted Boundary\r\n"
        b"\tContent-Type: application/octet-stream\r\n\x10\0\0\0" + b"x" * 21 + b"--Encrypted Boundary--\r\n",
    )
    assert answer.status_code == 400
    wire.transport.close_session()


def test_who_does_not_log_in_learns_only_how_to(host: WinHost) -> None:
    answer = requests.post(host.endpoint + "/wsman", data="<x/>", verify=str(host.ca), timeout=5)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Negotiate"
    assert answer.content == b""
