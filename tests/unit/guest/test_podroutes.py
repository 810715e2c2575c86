"""podroutes.py: routes to endpoints follow what a real HTTPS server says, in a guest in a folder."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.guest.machine import PYTHON, Machine
from tests.unit.guest.watched import WatchedApi, watched
from vmproxy.lab.pki import Pki
from vmproxy.util import wait

NODES = {"node-01": "192.168.10.20", "node-02": "192.168.10.21", "far": ""}
OURS = "172.16.192.7"
FAKE_IP = """#!{python} -IS
import json, sys
table = {table!r}
def routes():
    try:
        return json.load(open(table))
    except OSError:
        return {{}}
if "link" in sys.argv:  # there is no device
    sys.exit(1)
if sys.argv[1:3] == ["-j", "-4"]:
    ours = {{to: way[0] for to, way in routes().items() if way[1] == sys.argv[-1]}}
    print(json.dumps([{{"dst": to, "gateway": via}} for to, via in ours.items()]))
    sys.exit()
failed = False
for line in sys.stdin:
    _, verb, to, _, via, _, protocol = line.split()
    there = routes()
    if verb == "add" and to in there or verb == "del" and to not in there or via in {refused!r}:
        print("RTNETLINK answers:", line.strip(), file=sys.stderr)
        failed = True
        continue
    there.pop(to, None)
    if verb != "del":
        there[to] = [via, protocol]
    json.dump(there, open(table, "w"))
sys.exit(1 if failed else 0)
"""


def endpoint_slice(name: str, *endpoints: tuple[str, str] | tuple[str, str, bool]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "demo", "name": name},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "nodeName": node, "conditions": {"ready": not ready or ready[0]}}
            for address, node, *ready in endpoints
        ],
    }


class Guest:
    """`refused`: next hops that the kernel does not take."""

    def __init__(self, machine: Machine, api: WatchedApi, pki: Pki) -> None:
        self.machine = machine
        self.api = api
        self.table = machine.path("/table.json")
        self.state = machine.path("/run/vmproxy/podroutes.json")
        self.log = machine.path("/journal")
        self.config = {
            "mode": "endpoints",
            "server": f"https://127.0.0.1:{api.port}/prefix/",
            "ca": str(pki.certificate_file("ca")),
            "nodes": NODES,
            "own": ["192.168.10.20", "172.16.0.9"],
            "aside": ["192.168.10.0/24", "10.9.0.0/24"],
            "refused": ["10.96.0.0/16", "127.0.0.0/8"],
        }
        self.kernel()
        machine.write("/etc/vmproxy/token", "first\n")
        machine.write("/usr/local/lib/vmproxy/flannel.py", machine.text("flannel.py"))

    def kernel(self, *refused: str) -> None:
        text = FAKE_IP.format(python=PYTHON, table=str(self.table), refused=list(refused))
        self.machine.file_in_bin("ip", text)

    def write(self, **config: object) -> None:
        self.machine.write("/etc/vmproxy/podroutes.json", json.dumps({**self.config, **config}))

    @contextmanager
    def running(self, **config: object) -> Iterator[None]:
        """Quicker than in earnest."""
        self.write(**config)
        text = self.machine.text("podroutes.py")
        for name, seconds in {"LOOKS": 1.0, "AGAIN": 0.2, "FIRST_WAIT": 0.05, "LONGEST_WAIT": 0.2}.items():
            old = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
            text = text.replace(old, f"{name} = {seconds}")
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [PYTHON, "-I", "-S", "-c", text], stdout=log, stderr=log, env=self.machine.environment
            )
        try:
            yield
            assert process.poll() is None, self.journal()
        finally:
            process.terminate()
            process.wait()

    def routes(self) -> dict[str, str]:
        """Ours."""
        try:
            found = json.loads(self.table.read_text())
        except (OSError, ValueError):
            return {}
        return {to: via for to, (via, protocol) in found.items() if protocol == "251"}

    def set(self, to: str, via: str, protocol: str) -> None:
        found = json.loads(self.table.read_text()) if self.table.exists() else {}
        self.table.write_text(json.dumps({**found, to: [via, protocol]}))

    def seen(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def journal(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until(self, what: Callable[[], bool]) -> None:
        def probe() -> bool | str:
            return what() or f"{self.routes()}, {self.seen()}, {self.journal()}"

        wait.until("the guest", probe, timeout=60, every=0.02)

    def has(self, **routes: str) -> None:
        """Exactly these, by address with "_" for "."."""
        wanted = {to.strip("a").replace("_", "."): NODES[via.replace("_", "-")] for to, via in routes.items()}
        self.until(lambda: self.routes() == wanted)


@pytest.fixture
def api(pki: Pki) -> Iterator[WatchedApi]:
    with watched(pki) as server:
        yield server


@pytest.fixture
def guest(machine: Machine, api: WatchedApi, pki: Pki) -> Guest:
    return Guest(machine, api, pki)


def test_each_endpoint_gets_a_route_by_way_of_its_node(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("a", (OURS, "node-02"), ("172.16.1.1", "node-01")))
    with guest.running():
        guest.has(a172_16_192_7="node_02", a172_16_1_1="node_01")
        guest.until(lambda: guest.seen().get("routes") == 2)
        assert {**guest.seen(), "since": 0, "config": ""} == {
            "config": "",
            "mode": "endpoints",
            "listed": True,
            "routes": 2,
            "failed": 0,
            "api": "",
            "since": 0,
            "left": [],
            "more": 0,
        }
    path, query, token = api.asked[0]
    assert (path, token) == ("/prefix/apis/discovery.k8s.io/v1/endpointslices", "Bearer first")
    assert query == {"limit": "500"}


def test_what_comes_moves_and_goes_is_followed_without_another_list(guest: Guest, api: WatchedApi) -> None:
    with guest.running():
        guest.until(lambda: api.watches == 1)
        api.put(endpoint_slice("a", (OURS, "node-01")))
        guest.has(a172_16_192_7="node_01")
        api.put(endpoint_slice("a", (OURS, "node-02")))
        guest.has(a172_16_192_7="node_02")
        api.put(endpoint_slice("b", (OURS, "node-02"), ("172.16.1.1", "node-01")))
        guest.has(a172_16_192_7="node_02", a172_16_1_1="node_01")
        api.delete("a")
        api.put(endpoint_slice("b", (OURS, "node-02")))
        guest.has(a172_16_192_7="node_02")
        api.delete("b")
        guest.has()
    assert len(api.lists()) == 1


def test_an_address_that_two_slices_name_goes_where_it_is_ready(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("old", (OURS, "node-02", False)))
    api.put(endpoint_slice("new", (OURS, "node-01", True)))
    with guest.running():
        guest.has(a172_16_192_7="node_01")


def test_a_long_list_is_read_page_by_page_and_again_when_its_pages_are_gone(
    guest: Guest, api: WatchedApi
) -> None:
    api.page, api.expired = 2, 1
    for number in range(5):
        api.put(endpoint_slice(f"s-{number}", (f"172.16.1.{number}", "node-01")))
    with guest.running():
        guest.until(lambda: len(guest.routes()) == 5)
    assert [query.get("continue") for query in api.lists()] == [None, "2", None, "2", "4"]


def test_after_a_bookmark_the_watch_goes_on_from_there(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running():
        guest.until(lambda: api.watches == 1)
        api.bookmark()
        api.forget()
        told = str(api.version)
        guest.until(lambda: api.watches == 1)
        api.cut_watches()
        guest.until(lambda: [query for _, query, _ in api.asked][-1].get("resourceVersion") == told)
        guest.has(a172_16_192_7="node_01")
    assert len(api.lists()) == 1


def test_a_version_that_is_gone_means_a_new_list_and_what_went_meanwhile_goes(
    guest: Guest, api: WatchedApi
) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running():
        guest.has(a172_16_192_7="node_01")
        guest.until(lambda: api.watches == 1)
        api.status = 503
        api.cut_watches()
        guest.until(lambda: "503" in guest.seen().get("api", "-"))
        api.objects.clear()
        api.put(endpoint_slice("b", ("172.16.1.1", "node-02")))
        api.forget()
        api.status = 200
        guest.has(a172_16_1_1="node_02")
    assert len(api.lists()) == 2


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_the_routes_stay_while_the_api_server_refuses_and_the_reason_is_told(
    guest: Guest, api: WatchedApi, status: int
) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running():
        guest.has(a172_16_192_7="node_01")
        guest.until(lambda: api.watches == 1)
        api.status = status
        api.cut_watches()
        guest.until(lambda: guest.seen().get("api", "-").startswith(str(status)))
        guest.has(a172_16_192_7="node_01")
        api.status = 200
        guest.until(lambda: guest.seen().get("api", "-") == "")
    assert guest.journal().count(f"cannot follow the API server: {status}") == 1


def test_the_token_is_read_again_for_each_connection(guest: Guest, api: WatchedApi) -> None:
    with guest.running():
        guest.until(lambda: api.watches == 1)
        guest.machine.write("/etc/vmproxy/token", "second")
        api.cut_watches()
        guest.until(lambda: api.asked[-1][2] == "Bearer second")
    assert "first" not in guest.journal() + json.dumps(guest.seen())


def test_it_takes_over_what_it_finds_and_removes_only_when_it_knows_the_endpoints(
    guest: Guest, api: WatchedApi
) -> None:
    guest.set(OURS, NODES["node-01"], "251")
    guest.set("172.16.1.1", NODES["node-01"], "251")
    api.put(endpoint_slice("a", (OURS, "node-02")))
    api.status = 503
    with guest.running():
        guest.until(lambda: "503" in guest.seen().get("api", ""))
        assert len(guest.routes()) == 2
        assert guest.seen()["listed"] is False
        api.status = 200
        guest.has(a172_16_192_7="node_02")


def test_a_route_that_is_lost_comes_back(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running():
        guest.has(a172_16_192_7="node_01")
        guest.table.write_text("{}")
        guest.has(a172_16_192_7="node_01")


def test_a_route_of_somebody_else_stays_and_is_told(guest: Guest, api: WatchedApi) -> None:
    guest.set(OURS, "192.168.10.99", "static")
    api.put(endpoint_slice("a", (OURS, "node-01"), ("172.16.1.1", "node-02")))
    with guest.running():
        guest.has(a172_16_1_1="node_02")
        guest.until(lambda: guest.seen().get("failed") == 1)
    assert json.loads(guest.table.read_text())[OURS] == ["192.168.10.99", "static"]


def test_what_the_kernel_refuses_is_counted_and_tried_again(guest: Guest, api: WatchedApi) -> None:
    guest.kernel(NODES["node-02"])
    api.put(endpoint_slice("a", (OURS, "node-02"), ("172.16.1.1", "node-01")))
    with guest.running():
        guest.has(a172_16_1_1="node_01")
        guest.until(lambda: guest.seen().get("failed") == 1)
        guest.kernel()
        guest.has(a172_16_1_1="node_01", a172_16_192_7="node_02")
        guest.until(lambda: guest.seen()["failed"] == 0)


def test_what_gets_no_route_is_told_once_by_node(guest: Guest, api: WatchedApi) -> None:
    api.put(
        endpoint_slice(
            "a",
            ("172.16.2.2", "new"),
            ("172.16.2.1", "new"),
            ("172.16.3.1", "far"),
            ("10.96.0.9", "node-01"),
            ("127.0.0.1", "node-01"),
        )
    )
    with guest.running():
        guest.until(lambda: len(guest.seen().get("left", [])) == 3)
        api.put(endpoint_slice("b", (OURS, "node-01")))
        guest.has(a172_16_192_7="node_01")
    assert guest.seen()["left"] == [
        {"why": "elsewhere", "node": "far", "address": "172.16.3.1", "count": 1},
        {"why": "refused", "node": "node-01", "address": "10.96.0.9", "count": 2},
        {"why": "unknown", "node": "new", "address": "172.16.2.1", "count": 2},
    ]
    assert guest.journal().count("no route to 172.16.2.1 on Node new: vmproxy apply has not told") == 1


def test_nodes_themselves_and_what_is_reached_otherwise_need_no_route(guest: Guest, api: WatchedApi) -> None:
    aside = ["192.168.10.77", "172.16.0.9", "10.9.0.4"]
    api.put(endpoint_slice("a", *((address, "far") for address in aside), (OURS, "node-01")))
    with guest.running():
        guest.has(a172_16_192_7="node_01")
        guest.until(lambda: guest.seen().get("routes") == 1)
        assert guest.seen()["left"] == []


def test_endpoints_of_no_node_and_of_another_family_have_no_way(guest: Guest, api: WatchedApi) -> None:
    nobodys = endpoint_slice("a", (OURS, "node-01"), ("172.16.1.1", "node-01"))
    del nobodys["endpoints"][0]["nodeName"]
    api.put(nobodys)
    api.put({**endpoint_slice("b", ("fd00::1", "node-01")), "addressType": "IPv6"})
    api.put({**endpoint_slice("c"), "endpoints": None})
    with guest.running():
        guest.has(a172_16_1_1="node_01")


HOSTILE = [
    "172.16.1.1/0",
    "0.0.0.0/0",
    "1.2.3.4 via 192.168.10.66\nroute add 0.0.0.0/1",
    "172.16.01.1",
    "",
    7,
]


@pytest.mark.parametrize("address", HOSTILE, ids=str)
def test_what_is_no_address_never_reaches_the_kernel(guest: Guest, api: WatchedApi, address: Any) -> None:
    with guest.running():
        guest.until(lambda: api.watches == 1)
        api.put(endpoint_slice("bad", (address, "node-01"), (OURS, "node-01")))
        guest.has(a172_16_192_7="node_01")


def test_a_nodes_name_is_data_in_the_journal(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("a", (OURS, "x\n\x1b]0;y\x07" + "z" * 500)))
    with guest.running():
        guest.until(lambda: "no route to" in guest.journal())
    (line,) = (line for line in guest.journal().splitlines() if "no route to" in line)
    assert "\x1b" not in line
    assert len(line) < 250


@pytest.mark.parametrize("line", ["{", "[]", '{"type": "ADDED"}', '"x"', '{"type": "ERROR", "object": {}}'])
def test_a_damaged_answer_ends_the_watch_and_not_the_routes(guest: Guest, api: WatchedApi, line: str) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running():
        guest.until(lambda: api.watches == 1)
        guest.has(a172_16_192_7="node_01")
        api.raw(line)
        guest.until(lambda: "cannot follow the API server" in guest.journal())
        api.events.clear()
        api.put(endpoint_slice("b", ("172.16.1.1", "node-02")))
        guest.has(a172_16_192_7="node_01", a172_16_1_1="node_02")


def test_a_server_of_another_ca_is_not_shown_the_token(guest: Guest, api: WatchedApi, other_pki: Pki) -> None:
    with guest.running(ca=str(other_pki.certificate_file("ca"))):
        guest.until(lambda: "certificate verify failed" in guest.seen().get("api", ""))
    assert api.asked == []


def test_the_certificate_may_have_another_name_than_the_url(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running(server=f"https://localhost:{api.port}", tlsServerName="127.0.0.1"):
        guest.has(a172_16_192_7="node_01")
    assert api.asked[0][0].startswith("/apis/")


def test_with_nothing_to_keep_what_was_kept_goes_and_it_ends(guest: Guest) -> None:
    guest.set(OURS, NODES["node-01"], "251")
    guest.set("10.1.0.0/16", NODES["node-01"], "250")
    guest.machine.write("/etc/vmproxy/podroutes.json", json.dumps({"mode": "none"}))
    done = guest.machine.run("podroutes.py")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(guest.table.read_text())) == ["10.1.0.0/16"]
    assert (guest.seen()["mode"], guest.seen()["routes"]) == ("none", 0)


def test_its_state_is_not_written_again_while_nothing_changes(guest: Guest, api: WatchedApi) -> None:
    api.put(endpoint_slice("a", (OURS, "node-01")))
    with guest.running():
        guest.until(lambda: guest.seen().get("routes") == 1 and api.watches == 1)
        before = os.stat(guest.state).st_ino
        guest.table.write_text("{}")
        guest.has(a172_16_192_7="node_01")
        guest.until(lambda: guest.seen()["routes"] == 1)
        assert os.stat(guest.state).st_ino == before


def netlink(kind: int, protocol: int) -> bytes:
    body = bytes([2, 32, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0])
    return (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10) + body


@pytest.mark.parametrize(
    ("message", "wakes"),
    [
        (netlink(25, 251), True),
        (netlink(25, 250), False),
        (netlink(24, 251), False),
        (netlink(16, 0), True),
        (netlink(24, 251) + netlink(25, 251), True),
        (b"", False),
        (b"\0" * 40, False),
    ],
    ids=["ours went", "another's went", "ours came", "a link", "two at once", "nothing", "zeros"],
)
def test_a_link_that_changes_and_a_route_of_ours_that_goes_are_heard(
    machine: Machine, message: bytes, wakes: bool
) -> None:
    program = machine.module("podroutes.py")
    assert any(map(program.costs, program.messages(message))) is wakes


def test_the_kernel_is_asked_for_what_differs_alone(machine: Machine) -> None:
    changes = machine.module("podroutes.py").changes
    assert changes(
        {"1.1.1.1": "a", "2.2.2.2": "a", "3.3.3.3": ""}, {"1.1.1.1": "a", "2.2.2.2": "b", "4.4.4.4": "b"}
    ) == [
        "route del 3.3.3.3 proto 251",
        "route replace 2.2.2.2 via b proto 251",
        "route add 4.4.4.4 via b proto 251",
    ]
