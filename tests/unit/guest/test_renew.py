"""renew.py: the guest renews kube-proxy's token with another one, against a real HTTPS server."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guest.apiserver import ApiServer, answering
from tests.unit.guest.machine import NOBODY_LISTENS, Machine
from vmproxy.lab.pki import Pki
from vmproxy.util import assets

FILES = ["credential.json", "renewal-token", "token"]


def jwt(*, issued: float, expires: float) -> str:
    part = base64.urlsafe_b64encode(json.dumps({"iat": issued, "exp": expires}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{part}.c2lnbmF0dXJl"


OLDER = jwt(issued=time.time() - 80_000, expires=time.time() + 6_400)
"""More than half of its life is over."""
NEWER = jwt(issued=time.time(), expires=time.time() + 86_400)
RENEWED = {"token": NEWER, "expirationTimestamp": "2026-03-01T00:00:00Z"}


@pytest.fixture
def api(pki: Pki) -> Iterator[ApiServer]:
    with answering(pki) as server:
        server.status, server.body = 201, json.dumps({"kind": "TokenRequest", "status": RENEWED}).encode()
        yield server


@pytest.fixture
def token(machine: Machine, api: ApiServer, pki: Pki) -> Path:
    """kube-proxy's, which is not yet over; the credential names the server."""
    name_server(machine, pki, f"https://127.0.0.1:{api.port}/")
    machine.records("systemctl")
    machine.write("/etc/vmproxy/renewal-token", "the other\n")
    return machine.write("/etc/vmproxy/token", OLDER)


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


def names(token: Path) -> list[str]:
    return sorted(path.name for path in token.parent.iterdir())


def refusal(machine: Machine, token: Path) -> str:
    """Why it fails; the token has to stay as it was, and no draft of another be left."""
    done = machine.run("renew.py")
    assert done.returncode == 1
    assert token.read_text() == OLDER
    assert names(token) == FILES
    assert machine.calls() == []
    (line,) = done.stderr.decode().splitlines()
    return line


def test_the_renewed_token_takes_the_olders_place_and_only_root_reads_it(
    machine: Machine, token: Path
) -> None:
    token.chmod(0o644)
    done = machine.run("renew.py")
    assert (done.returncode, done.stdout) == (0, b"renewed until 2026-03-01T00:00:00Z\n"), done.stderr
    assert token.read_text() == NEWER
    assert token.stat().st_mode & 0o7777 == 0o600


def test_kube_proxy_never_reads_half_a_token(machine: Machine, token: Path) -> None:
    with token.open() as reader:
        assert machine.run("renew.py").returncode == 0
        assert reader.read() == OLDER
    assert names(token) == FILES


def test_the_other_token_asks_for_kube_proxys_successor(
    machine: Machine, token: Path, api: ApiServer
) -> None:
    done = machine.run("renew.py")
    ((line, headers, body),) = api.asked
    assert line == "POST /api/v1/namespaces/vmproxy/serviceaccounts/a-win-01/token HTTP/1.1"
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer the other", "application/json")
    assert body == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 86400},
    }
    assert b"the other" not in done.stdout + done.stderr


def test_the_certificate_may_have_another_name_than_the_url(
    machine: Machine, token: Path, api: ApiServer, pki: Pki
) -> None:
    server = f"https://localhost:{api.port}"
    name_server(machine, pki, server)
    assert "localhost" in refusal(machine, token)
    name_server(machine, pki, server, tlsServerName="127.0.0.1")
    assert machine.run("renew.py").returncode == 0
    assert token.read_text() == NEWER


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


WEEK = 7 * 86400
RESTART = "systemctl try-restart --no-block vmproxy-kube-proxy.service"


@pytest.mark.parametrize(
    "left",
    [jwt(issued=time.time() - WEEK - 86400, expires=time.time() - WEEK), "", "x", "a.b.c", "\u00ff\n"],
    ids=["after a week off", "empty", "damaged", "no claims", "no ASCII"],
)
def test_a_vm_whose_token_is_over_comes_back_by_itself_and_kube_proxy_reads_the_new_one_at_once(
    machine: Machine, token: Path, api: ApiServer, left: str
) -> None:
    """kube-proxy keeps a token for a minute, and waits longer and longer after each refusal."""
    token.write_text(left)
    begun = time.monotonic()
    assert machine.run("renew.py").returncode == 0
    assert time.monotonic() - begun < 30
    assert token.read_text() == NEWER
    assert [headers["Authorization"] for _, headers, _ in api.asked] == ["Bearer the other"]
    assert machine.calls() == [RESTART]


def test_the_timer_looks_soon_after_the_start_and_every_minute() -> None:
    """With the time that kube-proxy takes to start, it is less than two minutes to the first answer."""
    timer = assets.text("guest/vmproxy-token.timer")
    seconds = dict(re.findall(r"^(\w+)=(\d+)s$", timer, re.MULTILINE))
    assert int(seconds["OnActiveSec"]) <= 20
    assert int(seconds["OnUnitInactiveSec"]) <= 60


def test_a_clock_that_is_ahead_restarts_kube_proxy_at_no_renewal(
    machine: Machine, token: Path, api: ApiServer
) -> None:
    over = jwt(issued=time.time() - 2 * 86_400, expires=time.time() - 86_400)
    api.body = json.dumps({"status": {**RENEWED, "token": over}}).encode()
    token.write_text(over)
    assert machine.run("renew.py").returncode == 0
    assert machine.calls() == []


def test_a_token_that_is_gone_is_made_anew(machine: Machine, token: Path) -> None:
    token.unlink()
    assert machine.run("renew.py").returncode == 0
    assert token.read_text() == NEWER
    assert token.stat().st_mode & 0o7777 == 0o600
    assert machine.calls() == [RESTART]


def test_kube_proxy_is_not_restarted_while_its_token_is_good(machine: Machine, token: Path) -> None:
    assert machine.run("renew.py").returncode == 0
    assert machine.calls() == []


def test_a_restart_that_fails_keeps_the_new_token(machine: Machine, token: Path) -> None:
    token.write_text("x")
    machine.program("systemctl", "exit 1")
    assert machine.run("renew.py").returncode == 0
    assert token.read_text() == NEWER


@pytest.mark.parametrize("name", ["/etc/vmproxy/renewal-token", "/etc/vmproxy/credential.json"])
def test_what_it_needs_and_is_gone_is_named(machine: Machine, token: Path, name: str) -> None:
    machine.path(name).unlink()
    done = machine.run("renew.py")
    assert done.returncode != 0
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("cannot renew the token: ")
    assert name in line
    assert line.endswith("run vmproxy apply")
