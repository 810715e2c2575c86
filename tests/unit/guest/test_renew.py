"""renew.py: the guest renews its own token, against a real HTTPS server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guest.apiserver import ApiServer, answering
from tests.unit.guest.machine import NOBODY_LISTENS, Machine
from vmproxy.lab.pki import Pki

RENEWED = {"token": "newer", "expirationTimestamp": "2026-03-01T00:00:00Z"}


@pytest.fixture
def api(pki: Pki) -> Iterator[ApiServer]:
    with answering(pki) as server:
        server.status, server.body = 201, json.dumps({"kind": "TokenRequest", "status": RENEWED}).encode()
        yield server


@pytest.fixture
def token(machine: Machine, api: ApiServer, pki: Pki) -> Path:
    """The guest's token; its credential names the server."""
    name_server(machine, pki, f"https://127.0.0.1:{api.port}/")
    return machine.write("/etc/vmproxy/token", "older\n")


def name_server(machine: Machine, pki: Pki, server: str, **more: str) -> None:
    credential = {
        **more,
        "server": server,
        "ca": str(pki.certificate_file("ca")),
        "namespace": "vmproxy",
        "account": "a-win-01",
        "ttl": 86400,
    }
    machine.write("/etc/vmproxy/credential.json", json.dumps(credential))


def refusal(machine: Machine, token: Path) -> str:
    """Why it fails; the token has to stay as it was, and no draft of another be left."""
    done = machine.run("renew.py")
    assert done.returncode == 1
    assert token.read_text() == "older\n"
    assert sorted(path.name for path in token.parent.iterdir()) == ["credential.json", "token"]
    (line,) = done.stderr.decode().splitlines()
    return line


def test_the_renewed_token_takes_the_olders_place_and_only_root_reads_it(
    machine: Machine, token: Path
) -> None:
    token.chmod(0o644)
    done = machine.run("renew.py")
    assert (done.returncode, done.stdout) == (0, b"renewed until 2026-03-01T00:00:00Z\n"), done.stderr
    assert token.read_text() == "newer"
    assert token.stat().st_mode & 0o7777 == 0o600


def test_kube_proxy_never_reads_half_a_token(machine: Machine, token: Path) -> None:
    with token.open() as reader:
        assert machine.run("renew.py").returncode == 0
        assert reader.read() == "older\n"
    assert sorted(path.name for path in token.parent.iterdir()) == ["credential.json", "token"]


def test_the_token_asks_for_its_own_successor(machine: Machine, token: Path, api: ApiServer) -> None:
    machine.run("renew.py")
    ((line, headers, body),) = api.asked
    assert line == "POST /api/v1/namespaces/vmproxy/serviceaccounts/a-win-01/token HTTP/1.1"
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer older", "application/json")
    assert body == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 86400},
    }


def test_the_certificate_may_have_another_name_than_the_url(
    machine: Machine, token: Path, api: ApiServer, pki: Pki
) -> None:
    server = f"https://localhost:{api.port}"
    name_server(machine, pki, server)
    assert "localhost" in refusal(machine, token)
    name_server(machine, pki, server, tlsServerName="127.0.0.1")
    assert machine.run("renew.py").returncode == 0
    assert token.read_text() == "newer"


@pytest.mark.parametrize(("status", "said"), [(401, "Unauthorized"), (403, "Forbidden")])
def test_a_refusal_leaves_the_older_token_and_says_what_to_do(
    machine: Machine, token: Path, api: ApiServer, status: int, said: str
) -> None:
    api.status = status
    assert refusal(machine, token) == (
        f"the API server refuses a new token: HTTP Error {status}: {said}; run vmproxy apply"
    )


def test_a_server_that_is_not_there_leaves_the_older_token(machine: Machine, token: Path, pki: Pki) -> None:
    name_server(machine, pki, f"https://127.0.0.1:{NOBODY_LISTENS}")
    assert refusal(machine, token) == (
        "the API server does not answer: <urlopen error [Errno 111] Connection refused>"
    )


def test_a_server_of_another_ca_is_not_shown_the_token(
    machine: Machine, token: Path, api: ApiServer, other_pki: Pki
) -> None:
    name_server(machine, other_pki, f"https://127.0.0.1:{api.port}")
    assert "certificate verify failed" in refusal(machine, token)
    assert api.asked == []


def test_an_answer_that_is_cut_off_leaves_the_older_token(
    machine: Machine, token: Path, api: ApiServer
) -> None:
    api.promised = 100
    assert refusal(machine, token).startswith("the API server does not answer: IncompleteRead")


@pytest.mark.parametrize("body", [b"<html>a log-in page</html>", b"{}", b'{"status": {}}'])
def test_an_answer_without_a_token_leaves_the_older_one(
    machine: Machine, token: Path, api: ApiServer, body: bytes
) -> None:
    api.body = body
    assert refusal(machine, token) == "the API server's answer holds no token; run vmproxy apply"


def jwt(*, issued: float, expires: float) -> str:
    part = base64.urlsafe_b64encode(json.dumps({"iat": issued, "exp": expires}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{part}.c2lnbmF0dXJl"


@pytest.mark.parametrize(("age", "asked"), [(0, 0), (0.49, 0), (0.51, 1), (0.99, 1), (2, 1)])
@pytest.mark.parametrize("life", [600, 86400])
def test_a_token_is_renewed_when_half_of_its_granted_life_is_over(
    machine: Machine, token: Path, api: ApiServer, life: int, age: float, asked: int
) -> None:
    """Whatever life was asked for, and by the wall clock."""
    issued = time.time() - age * life
    token.write_text(jwt(issued=issued, expires=issued + life))
    assert machine.run("renew.py").returncode == 0
    assert len(api.asked) == asked


@pytest.mark.parametrize("name", ["/etc/vmproxy/token", "/etc/vmproxy/credential.json"])
def test_what_it_needs_and_is_gone_is_named(machine: Machine, token: Path, name: str) -> None:
    machine.path(name).unlink()
    done = machine.run("renew.py")
    assert done.returncode != 0
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("cannot renew the token: ")
    assert name in line
    assert line.endswith("run vmproxy apply")
