"""The client against a real HTTPS server on loopback."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.cluster.served import Answer, Answers, Api, serving
from vmproxy.cluster import client as clients
from vmproxy.cluster.api import Cluster
from vmproxy.cluster.client import Client
from vmproxy.cluster.credentials import Fixed
from vmproxy.cluster.login import Session
from vmproxy.errors import NotReady, Unreachable, UsageError
from vmproxy.lab.pki import Pki
from vmproxy.site import model

OK = Answer(body={"ok": True})


def session(pki: Pki, server: str, **more: Any) -> Session:
    ca = pki.certificate_file("ca").read_text()
    return Session(server=server, ca=ca, origin="a test", **{"credentials": Fixed(token="t"), **more})


@contextmanager
def connected(pki: Pki, answers: Answers, **more: Any) -> Iterator[tuple[Client, Api]]:
    with serving(pki, answers) as api:
        client = Client(session(pki, api.url, **more))
        yield client, api
        client.close()


def in_turn(*answers: Answer) -> Answers:
    left = list(answers)
    return lambda _method, _path: left.pop(0) if len(left) > 1 else left[0]


BUSY = Answer(429, {"message": "too many"}, {"Retry-After": "0"})


@pytest.mark.parametrize("method", ["create", "merge", "get"])
def test_429_is_tried_again_for_every_verb(pki: Pki, method: str) -> None:
    with connected(pki, in_turn(BUSY, BUSY, OK)) as (client, api):
        body: tuple[Any, ...] = () if method == "get" else ({},)
        assert getattr(client, method)("/api/v1/things", *body) == {"ok": True}
        assert len(api.asked) == 3


def test_429_without_end_is_an_error_after_a_few_requests(pki: Pki) -> None:
    with connected(pki, in_turn(BUSY)) as (client, api):
        with pytest.raises(NotReady, match="too many"):
            client.create("/api/v1/things", {})
        assert len(api.asked) == 4


@pytest.mark.parametrize("wait", ["21600", "Fri, 31 Dec 2100 23:59:59 GMT", "soon"])
def test_a_wait_that_the_server_asks_for_is_capped(
    pki: Pki, wait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_LONGEST_WAIT", 0.1)
    started = time.monotonic()
    with connected(pki, in_turn(Answer(429, {}, {"Retry-After": wait}), OK)) as (client, _):
        client.create("/api/v1/things", {})
    assert time.monotonic() - started < 5


def test_503_is_not_tried_again_where_it_may_have_been_done(pki: Pki) -> None:
    with connected(pki, in_turn(Answer(503, {}, {"Retry-After": "0"}), OK)) as (client, api):
        with pytest.raises(NotReady):
            client.create("/api/v1/things", {})
        assert len(api.asked) == 1


def listing(total: int, *, gone_at: Sequence[int] = ()) -> Answers:
    """Pages of that many objects; the list expires at each of these, once."""
    expire = list(gone_at)

    def answer(_method: str, path: str) -> Answer:
        query = parse_qs(urlsplit(path).query)
        start, limit = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
        if expire and start >= expire[0]:
            expire.pop(0)
            return Answer(410, {"message": "The provided continue parameter is too old", "reason": "Expired"})
        end = min(start + limit, total)
        items = [{"metadata": {"name": f"n-{number}"}} for number in range(start, end)]
        return Answer(body={"metadata": {"continue": str(end) if end < total else ""}, "items": items})

    return answer


def test_a_list_is_fetched_in_pages(pki: Pki) -> None:
    with connected(pki, listing(1201)) as (client, api):
        assert len(list(client.items("/api/v1/things"))) == 1201
        assert len(api.asked) == 3


@pytest.mark.parametrize("gone_at", [[500], [1000], [500, 500], [500, 1000, 500]])
def test_a_list_that_expires_begins_again_and_gives_nothing_twice(pki: Pki, gone_at: list[int]) -> None:
    with connected(pki, listing(1201, gone_at=gone_at)) as (client, _):
        names = [item["metadata"]["name"] for item in client.items("/api/v1/things")]
    assert sorted(names) == sorted(f"n-{number}" for number in range(1201))


def test_a_list_that_expires_again_and_again_is_an_error(pki: Pki) -> None:
    with connected(pki, listing(1201, gone_at=[500] * 100)) as (client, api):
        with pytest.raises(NotReady, match="too old"):
            list(client.items("/api/v1/things"))
        assert len(api.asked) == 8


def test_a_list_without_items_or_metadata_is_empty(pki: Pki) -> None:
    with connected(pki, in_turn(Answer(body={"items": None}))) as (client, _):
        assert list(client.items("/api/v1/things")) == []


ACCOUNTS = "/api/v1/namespaces/vmproxy/serviceaccounts"


def big_cluster(method: str, path: str) -> Answer:
    """5,000 Nodes, 10,000 Services and as many EndpointSlices, with what is read of them only."""
    sizes = {"/api/v1/nodes": 5000, "/api/v1/services": 10_000}
    sizes |= {"/apis/discovery.k8s.io/v1/endpointslices": 10_000, ACCOUNTS: 0}
    plain = urlsplit(path).path
    if plain == "/version":
        return Answer(body={"gitVersion": "v1.36.3"})
    spec = {"clusterIP": "10.96.0.1", "ports": [{"port": 443, "protocol": "TCP"}]}
    if plain == "/api/v1/namespaces/default/services/kubernetes":
        return Answer(body={"spec": spec})
    if plain not in sizes:
        return Answer(404, {})
    page = listing(sizes[plain])(method, path)
    for item in page.body["items"]:
        item["metadata"]["namespace"] = "n"
        item |= {"spec": spec, "endpoints": [], "addressType": "IPv4"}
    return page


def test_a_look_at_a_large_cluster_takes_a_bounded_number_of_requests(pki: Pki) -> None:
    wanted = model.Cluster.model_validate({"serviceCIDRs": ["10.96.0.0/16"]})
    with connected(pki, big_cluster) as (client, api):
        cluster = Cluster(client, wanted=wanted, server="", ca="")
        assert len(cluster.observe().nodes) == 5000
        assert len(cluster.services()) == 10_000
        assert len(api.asked) <= 10 + 20 + 20 + 4  # pages, and one request for each of the rest


def test_impersonated_groups_repeat_their_header(pki: Pki) -> None:
    who = (("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"))
    with connected(pki, in_turn(OK), impersonate=who) as (client, api):
        client.get("/version")
    (headers,) = api.headers
    assert headers.get_all("Impersonate-Group") == ["a", "b"]
    assert headers["Authorization"] == "Bearer t"


@pytest.mark.parametrize(("status", "taken"), [(200, True), (403, True), (401, False), (503, True)])
def test_a_token_is_tried_alone_without_the_operators_own_credentials(
    pki: Pki, status: int, taken: bool
) -> None:
    pem = pki.certificate_file("admin").read_text() + pki.key_file("admin").read_text()
    own = {"credentials": Fixed(pem=pem, token="t"), "impersonate": (("Impersonate-User", "me"),)}
    with connected(pki, in_turn(Answer(status, {})), **own) as (client, api):
        assert client.takes("another") is taken
    assert {path for _, path in api.asked} == {"/version"}
    for headers in api.headers:
        assert headers.get_all("Authorization") == ["Bearer another"]
        assert "Impersonate-User" not in headers


def test_the_certificates_name_may_be_another_than_the_urls(pki: Pki) -> None:
    with connected(pki, in_turn(OK), tls_server_name="kubernetes.default") as (client, _):
        assert client.get("/version") == {"ok": True}
    other = connected(pki, in_turn(OK), tls_server_name="other.example")
    with other as (client, _), pytest.raises(Unreachable, match="not trusted"):
        client.get("/version")


def test_a_client_certificate_is_presented_and_leaves_no_file(
    pki: Pki, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pem = pki.certificate_file("admin").read_text() + pki.key_file("admin").read_text()
    with connected(pki, in_turn(OK), credentials=Fixed(pem)) as (client, _):
        client.get("/version")
    assert list(tmp_path.iterdir()) == []
    wrong = pki.certificate_file("admin").read_text() + pki.key_file("apiserver").read_text()
    other = connected(pki, in_turn(OK), credentials=Fixed(wrong))
    with other as (client, _), pytest.raises(UsageError, match="client certificate and key"):
        client.get("/version")


def test_a_ca_without_key_identifiers_is_trusted_and_all_else_is_checked(pki: Pki) -> None:
    context = clients._tls(pki.certificate_file("ca").read_text(), None, "a test")
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        port: int = bound.getsockname()[1]
        return port


def test_a_refused_connection_is_said_to_be_refused(pki: Pki) -> None:
    client = Client(session(pki, f"https://127.0.0.1:{free_port()}"))
    with pytest.raises(Unreachable, match="refused"):
        client.get("/version")


def test_a_proxy_that_fails_is_named_without_its_login(pki: Pki) -> None:
    refusing = f"http://me:secret@127.0.0.1:{free_port()}"
    for proxy, why in ((refusing, "refused"), ("http://proxy.invalid:3128", "cannot be resolved")):
        client = Client(session(pki, "https://10.1.2.3:6443", proxy=proxy))
        with pytest.raises(Unreachable, match=why) as caught:
            client.get("/version")
        assert "HTTP proxy " + proxy.rpartition("@")[2].removeprefix("http://") in caught.value.message
        assert "secret" not in caught.value.message


@contextmanager
def tunnel() -> Iterator[tuple[int, list[bytes]]]:
    """An HTTP proxy for one connection: its port, and the requests that it got."""
    heads: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with listening, suppress(OSError):
            inside, _ = listening.accept()
            head = inside.recv(65536)
            heads.append(head)
            host, _, port = head.split()[1].decode().rpartition(":")
            with inside, socket.create_connection((host, int(port))) as outside:
                inside.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(outside, inside))
                back.start()
                pump(inside, outside)
                back.join()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1], heads
    thread.join(10)


def test_the_proxy_is_asked_for_a_tunnel_with_its_login_and_sees_no_token(pki: Pki) -> None:
    with tunnel() as (port, heads):
        proxy = f"http://me:p%40ss@127.0.0.1:{port}"
        with connected(pki, in_turn(OK), proxy=proxy, tls_server_name="kubernetes.default") as (client, api):
            assert client.get("/version") == {"ok": True}
    (head,) = heads
    assert head.startswith(f"CONNECT 127.0.0.1:{api.port} ".encode())
    assert b"Basic " + base64.b64encode(b"me:p@ss") in head
    assert b"Bearer" not in head
