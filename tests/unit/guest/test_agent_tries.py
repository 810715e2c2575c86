"""What the agent tries from inside: rules, connections, whether kube-proxy has converged."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.unit.guest.apiserver import ApiServer, answering
from tests.unit.guest.machine import NOBODY_LISTENS, Machine
from tests.unit.served import Served, serving
from vmproxy.lab.pki import Pki

SAVED = """*nat
:KUBE-SERVICES - [0:0]
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes" -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/dns" -m udp --dport 53 -j KUBE-SVC-B
COMMIT
"""  # noqa: E501


@pytest.fixture
def proxy(machine: Machine) -> Iterator[Served]:
    """kube-proxy's pages; none at first."""
    with serving({}) as served:
        machine.metrics = machine.health = urlsplit(served.url).port or 0
        yield served


@pytest.fixture
def api(pki: Pki) -> Iterator[ApiServer]:
    with answering(pki) as server:
        yield server


ABSENT = "echo 'Error: Could not process rule: No such file or directory' >&2"
INTERRUPTED = "echo 'Error: Could not process rule: Interrupted system call' >&2"


def knows(machine: Machine, *elements: str) -> None:
    """nft finds these elements ("service-ips { … }") in kube-proxy's table and no others."""
    cases = "".join(f'"get element ip kube-proxy {element}") exit 0;;' for element in elements)
    machine.program("nft", f'case "$*" in {cases} esac; {ABSENT}; exit 1')


def rule(machine: Machine, address: str, port: int, protocol: str = "tcp") -> bool:
    asked = {"operation": "rule", "address": address, "port": port, "protocol": protocol}
    return bool(machine.agent(asked)[0]["there"])


@pytest.mark.parametrize("table", ["service-ips", "no-endpoint-services"])
def test_a_rule_of_nftables_is_an_element_of_either_map(machine: Machine, proxy: Served, table: str) -> None:
    proxy.files["/proxyMode"] = b"nftables"
    knows(machine, f"{table} {{ 10.96.0.1 . tcp . 443 }}")
    assert rule(machine, "10.96.0.1", 443)
    assert not rule(machine, "10.96.0.1", 443, "udp")
    assert not rule(machine, "10.96.0.2", 443)


@pytest.mark.parametrize("there", [True, False])
def test_a_look_that_kube_proxy_interrupts_is_made_again(
    machine: Machine, proxy: Served, there: bool
) -> None:
    """As nft says it when a change is written while it reads."""
    proxy.files["/proxyMode"] = b"nftables"
    count, then = machine.write("/count", ""), "exit 0" if there else f"{ABSENT}; exit 1"
    times = f"echo x >> {count}; n=0; while read -r _; do n=$((n+1)); done < {count}"
    machine.program("nft", f"{times}; [ $n -gt 2 ] && {{ {then}; }}; {INTERRUPTED}; exit 1")
    assert rule(machine, "10.96.0.1", 443) is there
    assert len(count.read_text().splitlines()) == (
        3 if there else 4
    )  # without it, the second map is asked too


def test_a_look_that_is_interrupted_again_and_again_ends(machine: Machine, proxy: Served) -> None:
    proxy.files["/proxyMode"] = b"nftables"
    machine.program("nft", f"{INTERRUPTED}; exit 1")
    assert not rule(machine, "10.96.0.1", 443)


def test_what_iptables_has_left_is_no_rule_of_nftables(machine: Machine, proxy: Served) -> None:
    proxy.files["/proxyMode"] = b"nftables"
    knows(machine)
    machine.program("iptables-save", f"printf %s '{SAVED}'")
    assert not rule(machine, "10.96.0.1", 443)


@pytest.mark.parametrize(
    ("address", "port", "protocol", "there"),
    [
        ("10.96.0.1", 443, "tcp", True),
        ("10.96.0.10", 53, "udp", True),
        ("10.96.0.1", 443, "udp", False),
        ("10.96.0.1", 53, "udp", False),
        ("10.96.0.1", 44, "tcp", False),
        ("10.96.0.1", 4430, "tcp", False),
        ("10.96.0.100", 443, "tcp", False),
    ],
)
def test_a_rule_of_iptables_has_all_of_it_in_one_line(
    machine: Machine, proxy: Served, address: str, port: int, protocol: str, *, there: bool
) -> None:
    proxy.files["/proxyMode"] = b"iptables"
    machine.program("iptables-save", f"printf %s '{SAVED}'")
    assert rule(machine, address, port, protocol) is there


def test_a_rule_is_found_while_kube_proxy_does_not_say_its_mode(machine: Machine) -> None:
    """A page that is late is no reason to look for nftables' rules among those of iptables."""
    knows(machine, "service-ips { 10.96.0.1 . tcp . 443 }")
    assert rule(machine, "10.96.0.1", 443)
    machine.program("iptables-save", f"printf %s '{SAVED}'")
    assert rule(machine, "10.96.0.10", 53, "udp")
    assert not rule(machine, "10.96.0.2", 443)


def test_without_kube_proxy_and_iptables_there_is_no_rule(machine: Machine) -> None:
    assert not rule(machine, "10.96.0.1", 443)


def test_an_endpoint_that_is_not_reached_comes_with_the_next_hop_to_it(machine: Machine) -> None:
    machine.program("ip", """[ "$*" = "-j -4 route get 127.0.0.1" ] && echo '[{"gateway":"10.0.0.9"}]'""")
    endpoint = {"address": "127.0.0.1", "port": NOBODY_LISTENS, "protocol": "tcp"}
    (answer,) = machine.agent({"operation": "reach", "endpoints": [endpoint]})
    assert answer == {
        "endpoints": [{"why": "Connection refused", "silent": False, "refused": True, "via": "10.0.0.9"}]
    }


def test_silence_is_told_from_an_answer(machine: Machine) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("127.0.0.1", 0))
        endpoint = {"address": "127.0.0.1", "port": silent.getsockname()[1], "protocol": "udp"}
        assert machine.module("agent.py").lost(endpoint, socket.SOCK_DGRAM) == "no answer within 3 s"


def test_endpoints_are_answered_in_the_order_in_which_they_were_asked_for(machine: Machine) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        ports = [NOBODY_LISTENS, listening.getsockname()[1]] * 20
        endpoints = [{"address": "127.0.0.1", "port": port, "protocol": "tcp"} for port in ports]
        (answer,) = machine.agent({"operation": "reach", "endpoints": endpoints})
    assert [item["refused"] for item in answer["endpoints"]] == [True, False] * 20


def page(*, synced: float = 0, queued: float = 0, failures: int = 0) -> bytes:
    name = "kubeproxy_sync_proxy_rules"
    return (
        f'{name}_last_timestamp_seconds{{ip_family="IPv4"}} {synced}\n'
        f'{name}_last_queued_timestamp_seconds{{ip_family="IPv4"}} {queued}\n'
        f'{name}_nftables_sync_failures_total{{ip_family="IPv4"}} {failures}\n'
    ).encode()


def question(api: ApiServer, pki: Pki, **other: Any) -> dict[str, Any]:
    return {
        "operation": "converged",
        "canary": ["127.0.0.1", api.port],
        "ca": str(pki.certificate_file("ca")),
        "failures": 0,
        "seconds": 0,
        **other,
    }


def converge(machine: Machine, proxy: Served, api: ApiServer) -> None:
    proxy.files |= {"/livez": b"ok", "/proxyMode": b"nftables", "/metrics": page(synced=2, queued=1)}
    knows(machine, f"service-ips {{ 127.0.0.1 . tcp . {api.port} }}")


def test_what_is_missing_is_named_in_the_order_in_which_it_comes_true(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(machine.bin))
    agent = machine.module("agent.py")

    def why(**other: Any) -> str:
        return str(agent.converged(question(api, pki, **other))["why"])

    assert why() == "it is not live"
    proxy.files |= {"/livez": b"ok", "/proxyMode": b"nftables"}
    assert why() == "it has not written its rules yet"
    proxy.files["/metrics"] = page(synced=1, queued=2, failures=1)
    assert why() == "changes are queued that are not written yet"
    proxy.files["/metrics"] = page(synced=2, queued=1, failures=1)
    assert why() == "it fails to write its rules"
    assert why(failures=1) == "it has no rule for default/kubernetes"
    knows(machine, f"service-ips {{ 127.0.0.1 . tcp . {api.port} }}", "service-ips { 127.0.0.1 . tcp . 1 }")
    refused = "the API server does not answer at its ClusterIP: [Errno 111] Connection refused"
    assert why(failures=1, canary=["127.0.0.1", NOBODY_LISTENS]) == refused
    assert why(failures=1) == ""


def test_a_canary_that_is_not_the_api_server_is_only_connected_to(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(machine.bin))
    agent = machine.module("agent.py")
    converge(machine, proxy, api)
    with closing(socket.create_server(("127.0.0.1", 0))) as plain:
        port = plain.getsockname()[1]
        canary = {"canary": ["127.0.0.1", port], "ca": ""}
        assert agent.converged(question(api, pki, **canary))["why"] == "it has no rule for 127.0.0.1"
        knows(machine, f"service-ips {{ 127.0.0.1 . tcp . {port} }}")
        assert agent.converged(question(api, pki, **canary))["why"] == ""
    refused = "the ClusterIP 127.0.0.1 does not answer: Connection refused"
    assert agent.converged(question(api, pki, **canary))["why"] == refused


def test_failures_count_from_the_first_look(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki
) -> None:
    converge(machine, proxy, api)
    proxy.files["/metrics"] = page(synced=2, queued=1, failures=3)
    (answer,) = machine.agent(question(api, pki, failures=None))
    assert answer == {"why": "", "failures": 3}
    (answer,) = machine.agent(question(api, pki, failures=2))
    assert answer == {"why": "it fails to write its rules", "failures": 2}


def test_it_is_watched_until_it_has_converged(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki
) -> None:
    converge(machine, proxy, api)
    live = proxy.files.pop("/livez")
    later = threading.Timer(0.5, proxy.files.setdefault, ("/livez", live))
    later.start()
    (answer,) = machine.agent(question(api, pki, seconds=60))
    later.join()
    assert answer["why"] == ""
    assert [path for path, _ in proxy.asked].count("/livez") > 1


def test_the_watch_ends_with_its_seconds_and_says_what_is_missing(
    machine: Machine, api: ApiServer, pki: Pki
) -> None:
    begun = time.monotonic()
    (answer,) = machine.agent(question(api, pki, seconds=0.4))
    assert time.monotonic() - begun > 0.4
    assert answer == {"why": "it is not live", "failures": 0}


@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_any_status_of_the_api_server_is_an_answer(
    machine: Machine, api: ApiServer, pki: Pki, status: int
) -> None:
    api.status = status
    agent = machine.module("agent.py")
    assert agent.api_status("127.0.0.1", api.port, str(pki.certificate_file("ca"))) == (status, "")
    assert [asked[0] for asked in api.asked] == ["GET /livez HTTP/1.0"]


def test_a_server_of_another_ca_is_no_answer(machine: Machine, api: ApiServer, other_pki: Pki) -> None:
    agent = machine.module("agent.py")
    answer, why = agent.api_status("127.0.0.1", api.port, str(other_pki.certificate_file("ca")))
    assert answer == 0
    assert "certificate verify failed" in why
    assert api.asked == []


def test_without_the_cas_file_those_of_the_system_count(machine: Machine, api: ApiServer) -> None:
    _, why = machine.module("agent.py").api_status(
        "127.0.0.1", api.port, str(machine.path("/etc/vmproxy/ca.crt"))
    )
    assert "certificate verify failed" in why


def test_an_http_proxy_of_the_guest_is_not_asked_for_a_cluster_ip(
    machine: Machine, api: ApiServer, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{NOBODY_LISTENS}")
    agent = machine.module("agent.py")
    assert agent.api_status("127.0.0.1", api.port, str(pki.certificate_file("ca")))[0] != 0


def look(api: ApiServer, pki: Pki, token: Path) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "files": [],
        "units": [],
        "sysctls": [],
        "folders": [],
        "interface": "eth0",
        "setup": "",
    }
    ca = str(pki.certificate_file("ca"))
    tokens = {"token": str(token), "renewal": str(token.with_name("renewal-token"))}
    way = {**tokens, "canary": ["127.0.0.1", api.port], "ca": ca, "api": None}
    return {"operation": "observe", **nothing, **way}


@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_look_tries_the_token_on_the_way_through_kube_proxy(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki, status: int
) -> None:
    converge(machine, proxy, api)
    api.status = status
    token = machine.write("/etc/vmproxy/token", "the-token")
    (seen,) = machine.agent(look(api, pki, token))
    assert seen["canary"] == {"rule": True, "status": status, "why": ""}
    ((line, headers, _body),) = api.asked
    assert line == "GET /api/v1/services?limit=1 HTTP/1.0"
    assert headers["Authorization"] == "Bearer the-token"
    assert "the-token" not in json.dumps(seen)


@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_look_tries_the_token_that_renews_without_kube_proxy(
    machine: Machine, api: ApiServer, pki: Pki, status: int
) -> None:
    api.status = status
    machine.write("/etc/vmproxy/renewal-token", "the-other")
    (seen,) = machine.agent(renewing(machine, api, pki))
    assert (seen["renewal"], seen["canary"]["rule"]) == (status, False)
    ((line, headers, _body),) = api.asked
    assert line == "GET /k8s/version HTTP/1.0"
    assert headers["Authorization"] == "Bearer the-other"
    assert "the-other" not in json.dumps(seen)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_a_token_that_renews_nothing_is_tried(
    machine: Machine, api: ApiServer, pki: Pki, content: str | None
) -> None:
    if content is not None:
        machine.write("/etc/vmproxy/renewal-token", content)
    (seen,) = machine.agent(renewing(machine, api, pki))
    assert (seen["renewal"], api.asked) == (0, [])


def test_an_api_server_of_another_ca_or_name_is_not_shown_the_token_that_renews(
    machine: Machine, api: ApiServer, pki: Pki, other_pki: Pki
) -> None:
    machine.write("/etc/vmproxy/renewal-token", "the-other")
    for wrong in ({"ca": str(other_pki.certificate_file("ca"))}, {"name": "elsewhere"}, {"port": 1}):
        (seen,) = machine.agent(renewing(machine, api, pki, **wrong))
        assert (seen["renewal"], api.asked) == (0, [])


def renewing(machine: Machine, api: ApiServer, pki: Pki, **other: Any) -> dict[str, Any]:
    ca = str(pki.certificate_file("ca"))
    server = {"host": "127.0.0.1", "port": api.port, "path": "/k8s", "name": "127.0.0.1", "ca": ca}
    return look(api, pki, machine.path("/etc/vmproxy/token")) | {"api": {**server, **other}}


def test_without_a_rule_nothing_is_tried(machine: Machine, proxy: Served, api: ApiServer, pki: Pki) -> None:
    proxy.files |= {"/livez": b"ok", "/proxyMode": b"nftables"}
    knows(machine)
    (seen,) = machine.agent(look(api, pki, machine.path("/etc/vmproxy/token")))
    assert seen["canary"] == {"rule": False, "status": 0, "why": ""}
    assert api.asked == []


@pytest.mark.parametrize("token", [b"\xff\xfe", b"", b"a b\r\nX: y"])
def test_a_damaged_token_is_tried_as_far_as_it_is_one(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki, token: bytes
) -> None:
    converge(machine, proxy, api)
    api.status = 401
    (seen,) = machine.agent(look(api, pki, machine.write("/etc/vmproxy/token", token)))
    assert seen["canary"] == {"rule": True, "status": 401, "why": ""}
    ((_line, headers, _body),) = api.asked
    assert headers.get("Authorization") in (None, "Bearer a")
    assert "X" not in headers


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff"])
def test_a_damaged_ca_keeps_nothing_from_being_seen(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki, content: bytes
) -> None:
    converge(machine, proxy, api)
    ca = machine.write("/etc/vmproxy/cluster-ca.crt", content)
    (seen,) = machine.agent(look(api, pki, machine.path("/etc/vmproxy/token")) | {"ca": str(ca)})
    assert (seen["canary"]["rule"], seen["canary"]["status"]) == (True, 0)
    assert seen["canary"]["why"]
    assert seen["proxy"]["live"]


def test_a_canary_that_does_not_answer_says_why(
    machine: Machine, proxy: Served, api: ApiServer, pki: Pki
) -> None:
    converge(machine, proxy, api)
    knows(machine, f"service-ips {{ 127.0.0.1 . tcp . {NOBODY_LISTENS} }}")
    asked = look(api, pki, machine.path("/etc/vmproxy/token")) | {"canary": ["127.0.0.1", NOBODY_LISTENS]}
    (seen,) = machine.agent(asked)
    assert seen["canary"] == {
        "rule": True,
        "status": 0,
        "why": "[Errno 111] Connection refused",
    }


RULE = {"operation": "rule", "address": "10.96.0.1", "port": 443, "protocol": "tcp"}


def test_one_agent_answers_one_request_after_the_other(machine: Machine) -> None:
    reach = {"operation": "reach", "endpoints": []}
    assert machine.agent(RULE, reach, RULE) == [{"there": False}, {"endpoints": []}, {"there": False}]


def test_each_answer_is_there_before_the_next_request(machine: Machine) -> None:
    """Nothing waits in a buffer: the other side asks again only when it has been answered."""
    words = [sys.executable, "-I", "-S", "-c", machine.text("agent.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": ""}) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        for _ in range(2):
            agent.stdin.write(json.dumps(RULE).encode() + b"\n")
            agent.stdin.flush()
            assert json.loads(agent.stdout.readline()) == {"there": False}
        agent.stdin.close()
        assert agent.wait(10) == 0


def test_a_request_that_fails_ends_the_agent_with_the_reason_and_no_answer_after_it(machine: Machine) -> None:
    machine.program("systemctl", "echo no such unit >&2; exit 1")
    lists: dict[str, Any] = {name: [] for name in ("access", "files", "remove", "setup", "reload", "enable")}
    fails = {"operation": "apply", "sysctls": {}, "restart": ["x.service"], **lists}
    stdin = b"".join(json.dumps(request).encode() + b"\n" for request in (RULE, fails, RULE))
    done = machine.run("agent.py", stdin=stdin)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"there": False}]
    assert done.stderr.decode() == "systemctl restart x.service: no such unit\n"
    assert done.returncode == 1
