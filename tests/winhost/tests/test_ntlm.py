"""The names of the host in NTLM's challenge, and a client that logs in to the realm that it reads there."""

from __future__ import annotations

import base64

import pytest
import requests
import spnego
from spnego import NTLMHash
from spnego._ntlm_raw.crypto import ntowfv1
from spnego._ntlm_raw.messages import AvId, Challenge, NegotiateFlags

from tests.winhost.host import Machine, WinHost

WORKGROUP = {
    AvId.nb_domain_name: "WIN-07",
    AvId.nb_computer_name: "WIN-07",
    AvId.dns_domain_name: "WIN-07",
    AvId.dns_computer_name: "WIN-07",
}
DOMAIN = {
    AvId.nb_domain_name: "CORP",
    AvId.nb_computer_name: "WIN-07",
    AvId.dns_domain_name: "corp.example",
    AvId.dns_computer_name: "win-07.corp.example",
    AvId.dns_tree_name: "corp.example",
}


class Client:
    """One connection over http that logs in message by message; its body is empty."""

    def __init__(self, host: WinHost, *, protocol: str) -> None:
        self._host, self._protocol = host, protocol
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def challenge(self) -> Challenge:
        """NTLM's second message, as the answer to a first one that names nobody."""
        self._context = self._as("nobody")
        self._first = self._context.step()
        self._token = self._sent(self._first)[1]
        return Challenge.unpack(self._token[self._token.index(b"NTLMSSP\0") :])

    def answer(self, user: str) -> int:
        """The status for the third message, by that user in the dialogue that was begun."""
        context = self._as(user)
        assert context.step() == self._first
        return self._sent(context.step(self._token))[0]

    def _as(self, user: str) -> spnego.ContextProxy:
        """By the hash of a password, which no other protocol than NTLM takes."""
        credential = NTLMHash(user, nt_hash=ntowfv1(self._host.password).hex())
        options = spnego.NegotiateOptions.use_negotiate
        if self._protocol == "ntlm":
            options = spnego.NegotiateOptions.use_ntlm
        return spnego.client(credential, hostname="localhost", protocol=self._protocol, options=options)

    def _sent(self, token: bytes | None) -> tuple[int, bytes]:
        word = base64.b64encode(token or b"").decode()
        answer = self._session.post(
            self._host.http_endpoint + "/wsman", headers={"Authorization": f"Negotiate {word}"}, timeout=5
        )
        told = answer.headers.get("WWW-Authenticate", "").partition(" ")[2]
        return answer.status_code, base64.b64decode(told)


@pytest.mark.parametrize("protocol", ["ntlm", "negotiate"])
@pytest.mark.parametrize(
    ("domain", "target", "pairs"), [(None, "WIN-07", WORKGROUP), ("CORP", "CORP", DOMAIN)]
)
def test_a_client_that_takes_the_challenges_target_as_domain_is_let_in(
    domain: str | None, target: str, pairs: dict[AvId, str], protocol: str
) -> None:
    machine = Machine(name="WIN-07", domain=domain, cmdlets=False)
    with WinHost(machine) as host, Client(host, protocol=protocol) as client:
        challenge = client.challenge()
        assert challenge.target_name == target
        named = {key: value for key, value in (challenge.target_info or {}).items() if isinstance(value, str)}
        assert list(named.items()) == list(pairs.items())
        assert bool(challenge.flags & NegotiateFlags.target_type_domain) is (domain is not None)
        assert bool(challenge.flags & NegotiateFlags.target_type_server) is (domain is None)
        assert client.answer(f"{challenge.target_name}\\Administrator") == 200


@pytest.mark.parametrize("user", ["Administrator", ".\\Administrator", "win-07\\administrator"])
@pytest.mark.parametrize("domain", [None, "CORP"])
def test_an_account_is_found_by_each_way_to_name_it(domain: str | None, user: str) -> None:
    assert _status(user, domain) == 200


def test_an_account_of_the_domain_is_found_by_the_domains_dns_name() -> None:
    assert _status("corp.example\\Administrator", "CORP") == 200
    assert _status("corp.example\\Administrator", None) == 401


@pytest.mark.parametrize("user", ["OTHER\\Administrator", "WIN-07\\nobody"])
def test_another_name_is_refused(user: str) -> None:
    assert _status(user, None) == 401


def _status(user: str, domain: str | None) -> int:
    machine = Machine(name="WIN-07", domain=domain, cmdlets=False)
    with WinHost(machine) as host, Client(host, protocol="ntlm") as client:
        client.challenge()
        return client.answer(user)
