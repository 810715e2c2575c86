#!/usr/bin/python3 -I
"""Keep a route to each endpoint of the cluster's Services by way of its Node, while endpoints come and go.

Lists and watches EndpointSlices with kube-proxy's token. Which Node has which address comes from
/etc/vmproxy/podroutes.json, which vmproxy writes: of what the API says, only addresses and Nodes' names are
used. What the API does not say for a while stays as it is. /run/vmproxy/podroutes.json tells the state.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import json
import os
import random
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

CONFIG = "/etc/vmproxy/podroutes.json"
TOKEN = "/etc/vmproxy/token"
STATE = "/run/vmproxy/podroutes.json"
PROTOCOL = "251"  # marks our routes; setup.py has another number for its own
SLICES = "apis/discovery.k8s.io/v1/endpointslices"
PAGE = 500
TIMEOUT = 20.0
WATCH = 300.0
LONGEST = 16 << 20
LOOKS = 30.0
AGAIN = 3.0
PAUSE = 0.1
FIRST_WAIT = 0.5
LONGEST_WAIT = 15.0
CALM = 30.0
NAMED = 20
LINK, ROUTES = 0x1, 0x40
NEW_LINK, DELETED_ROUTE = 16, 25

TYPE_CHECKING = False  # not imported: typing is slow to load on an emulated CPU
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TypedDict

    class Config(TypedDict, total=False):
        """`mode` is "none" or "endpoints"; the others belong to the second. `nodes`: the next hop by a Node's
        name, empty where it has none on the VM's network. `aside`: networks that are reached otherwise,
        `own`: addresses of Nodes themselves. `refused`: networks to which no route may lead."""

        mode: str
        server: str
        ca: str
        tlsServerName: str
        nodes: dict[str, str]
        own: list[str]
        aside: list[str]
        refused: list[str]

    class Left(TypedDict):
        """Endpoints without a route: on which Node, one of them, and how many. `why`: "unknown" Node,
        "elsewhere" (it is not on the VM's network), or "refused"."""

        why: str
        node: str
        address: str
        count: int

    Place = tuple[str, str, bool]
    Routes = dict[str, str]


class Gone(Exception):
    """The API server does not know the version any more from which we ask."""


class Refused(Exception):
    """The API server answers, with an error."""


def say(text: str) -> None:
    print(text, flush=True)


# What the API says.


def token() -> str:
    with open(TOKEN) as file:
        return file.read().strip()


def connect(config: Config) -> http.client.HTTPConnection:
    """A connection of which the other end's death is noticed, also while nothing is said."""
    url = urllib.parse.urlsplit(config["server"])
    host, port = url.hostname or "", url.port or 443
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found = os.path.exists(config["ca"])
    context.load_verify_locations(config["ca"]) if found else context.load_default_certs()
    plain = socket.create_connection((host, port), timeout=TIMEOUT)
    for option, value in (
        (socket.TCP_KEEPIDLE, 10),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 25_000),
    ):
        plain.setsockopt(socket.IPPROTO_TCP, option, value)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection = http.client.HTTPConnection(host, port)
    connection.sock = context.wrap_socket(plain, server_hostname=config.get("tlsServerName") or host)
    return connection


def ask(connection: http.client.HTTPConnection, config: Config, **query: object) -> http.client.HTTPResponse:
    """The answer, whose body is still to be read."""
    prefix = urllib.parse.urlsplit(config["server"]).path.rstrip("/")
    headers = {"Authorization": "Bearer " + token(), "Accept": "application/json"}
    path = "%s/%s?%s" % (prefix, SLICES, urllib.parse.urlencode(query))
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    if answer.status == 410:
        raise Gone
    if answer.status != 200:
        raise Refused("%d %s" % (answer.status, printable(answer.reason)))
    return answer


def printable(text: object) -> str:
    """Of what others wrote, at most a line."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(text))[:100]


def name_of(item: dict[str, Any]) -> str:
    return "%s/%s" % (item["metadata"]["namespace"], item["metadata"]["name"])


def places(item: dict[str, Any]) -> tuple[Place, ...]:
    """Of one EndpointSlice: address, Node, whether it is ready. Without a Node there is no way to it, and
    what is no address is left out."""
    if item.get("addressType") != "IPv4":
        return ()
    return tuple(
        (str(address), str(endpoint["nodeName"]), is_ready(endpoint))
        for endpoint in item.get("endpoints") or ()
        if endpoint.get("nodeName")
        for address in endpoint.get("addresses") or ()
        if is_address(address)
    )


def is_address(text: object) -> bool:
    try:
        ipaddress.IPv4Address(str(text))
    except ValueError:
        return False
    return True


def is_ready(endpoint: dict[str, Any]) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False


class Slices:
    """Every EndpointSlice as the API last told it. `changed` wakes who sets the routes."""

    def __init__(self, config: Config, wake: int) -> None:
        self.config = config
        self.wake = wake
        self.lock = threading.Lock()
        self.found: dict[str, tuple[Place, ...]] | None = None
        self.version = ""
        self.why = "it was not asked yet"
        self.since = time.time()

    def places(self) -> list[Place] | None:
        """None: they are not known yet."""
        with self.lock:
            if self.found is None:
                return None
            return [place for some in self.found.values() for place in some]

    def follow(self) -> None:
        """For ever. What is known stays while the API server does not answer."""
        wait = 0.0
        while True:
            begun = time.monotonic()
            try:
                self.session()
            except Gone:
                self.version = ""
            except (OSError, Refused, http.client.HTTPException) as error:
                self.told(str(error) or repr(error))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                self.version = ""
                self.told("its answer is damaged: %s" % error)
            calm = time.monotonic() - begun > CALM
            wait = 0.0 if calm else min(max(FIRST_WAIT, wait * 2), LONGEST_WAIT)
            time.sleep(wait * random.uniform(0.8, 1.2))  # many VMs come back at the same time

    def session(self) -> None:
        """One connection: a list where that is needed, then a watch until its end."""
        with contextlib.closing(connect(self.config)) as connection:
            if not self.version:
                self.list(connection)
            self.watch(connection)

    def list(self, connection: http.client.HTTPConnection) -> None:
        """Page by page. What was known counts until all is listed."""
        found: dict[str, tuple[Place, ...]] = {}
        query: dict[str, object] = {"limit": PAGE}
        while True:
            page = json.loads(ask(connection, self.config, **query).read())
            found.update((name_of(item), places(item)) for item in page.get("items") or ())
            query["continue"] = page["metadata"].get("continue")
            if not query["continue"]:
                break
        with self.lock:
            self.found = found
        self.version = str(page["metadata"]["resourceVersion"])
        self.told("")

    def watch(self, connection: http.client.HTTPConnection) -> None:
        seconds = WATCH * random.uniform(1, 1.5)
        query = {"watch": 1, "allowWatchBookmarks": "true", "timeoutSeconds": int(seconds)}
        answer = ask(connection, self.config, resourceVersion=self.version, **query)
        connection.sock.settimeout(seconds + TIMEOUT)
        self.told("")
        for line in iter(lambda: answer.readline(LONGEST), b""):
            self.event(json.loads(line))

    def event(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise Gone
            raise Refused("%s %s" % (item.get("code"), printable(item.get("message"))))
        if kind != "BOOKMARK":
            name, found = name_of(item), places(item)
            with self.lock:
                assert self.found is not None  # it was listed before it is watched
                if kind == "DELETED":
                    self.found.pop(name, None)
                else:
                    self.found[name] = found
            os.write(self.wake, b"x")
        self.version = str(item["metadata"]["resourceVersion"])

    def told(self, why: str) -> None:
        """Whether it answers: `why` it does not, or nothing."""
        if why != self.why:
            say("cannot follow the API server: %s" % why if why else "the API server answers")
            self.since = time.time()
        self.why = why
        os.write(self.wake, b"x")


# Which routes follow from it.


class Ways:
    """Which way leads to an endpoint, as the configuration says."""

    def __init__(self, config: Config) -> None:
        self.nodes = config["nodes"]
        self.own = set(config["own"])
        self.aside = [masked(network) for network in config["aside"]]
        self.refused = [masked(network) for network in config["refused"]]

    def routes(self, found: Iterable[Place]) -> tuple[Routes, list[Left]]:
        """The next hop to each address, and what gets no route."""
        wanted: Routes = {}
        left: dict[tuple[str, str], Left] = {}
        for address, node in on_nodes(found):
            number = int(ipaddress.IPv4Address(address))
            if address in self.own or holds(self.aside, number):
                continue
            why = self.why_not(number, node)
            if why is None:
                wanted[address] = self.nodes[node]
            else:
                new: Left = {"why": why, "node": node, "address": address, "count": 0}
                seen = left.setdefault((why, node), new)
                seen["address"] = min(seen["address"], address)
                seen["count"] += 1
        return wanted, sorted(left.values(), key=lambda item: (item["why"], item["node"]))

    def why_not(self, number: int, node: str) -> str | None:
        if holds(self.refused, number):
            return "refused"
        via = self.nodes.get(node)
        return "unknown" if via is None else None if via else "elsewhere"


def on_nodes(found: Iterable[Place]) -> Iterator[tuple[str, str]]:
    """Each address once: on the Node where it is ready, while it moves."""
    best: dict[str, tuple[bool, str]] = {}
    for address, node, ready in found:
        best[address] = max(best.get(address, (False, "")), (ready, node))
    return ((address, node) for address, (_, node) in best.items())


def masked(network: str) -> tuple[int, int]:
    parsed = ipaddress.IPv4Network(network)
    return int(parsed.network_address), int(parsed.netmask)


def holds(networks: list[tuple[int, int]], number: int) -> bool:
    return any(number & mask == network for network, mask in networks)


def changes(have: Routes, wanted: Routes) -> list[str]:
    """Lines for ip. What somebody else has set stays: a new one is added, and never replaces."""
    lines = [command("del", to, have[to]) for to in have.keys() - wanted.keys()]
    for to, via in wanted.items():
        if have.get(to) != via:
            verb = "replace" if to in have else "add"
            lines.append(command(verb, to, via))
    return lines


def command(verb: str, to: str, via: str) -> str:
    """Somebody may have given our number to a route without a next hop."""
    return "route %s %s%s proto %s" % (verb, to, " via " + via if via else "", PROTOCOL)


# The kernel.


def seen() -> Routes:
    """The next hop by destination, of the routes with our protocol number."""
    command = ["ip", "-j", "-4", "route", "show", "proto", PROTOCOL]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return {route["dst"]: route.get("gateway", "") for route in json.loads(told or "[]")}


def batch(lines: list[str]) -> bool:
    """Whether the kernel took them all; ip says on stderr which it did not, and why."""
    text = "".join(line + "\n" for line in lines).encode()
    return subprocess.run(["ip", "-force", "-batch", "-"], input=text, check=False).returncode == 0


def listen() -> socket.socket:
    """What happens to links and routes."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, LINK | ROUTES))
    netlink.settimeout(0)
    return netlink


def lost(netlink: socket.socket) -> bool:
    """Whether what has happened since may have cost us a route."""
    found = False
    while True:
        try:
            data = netlink.recv(1 << 16)
        except BlockingIOError:
            return found
        except OSError:  # more has happened than the kernel keeps
            found = True
        else:
            found = found or any(map(costs, messages(data)))


def messages(data: bytes) -> Iterator[bytes]:
    while len(data) >= 16:
        length = max(struct.unpack_from("=L", data)[0], 16)
        yield data[:length]
        data = data[(length + 3) & ~3 :]


def costs(message: bytes) -> bool:
    kind = struct.unpack_from("=H", message, 4)[0]
    return kind == NEW_LINK or (kind == DELETED_ROUTE and message[21:22] == bytes([int(PROTOCOL)]))


class Keeper:
    """Sets the routes. `have`: those that the kernel has, as far as is known."""

    def __init__(self, config: Config, text: bytes, slices: Slices) -> None:
        self.ways = Ways(config)
        self.hash = hashlib.sha256(text).hexdigest()
        self.slices = slices
        self.have: Routes = {}
        self.named: set[tuple[str, str]] = set()
        self.noted = b""

    def keep(self, netlink: socket.socket, woken: int) -> None:
        """For ever: when the API says something, when a link or a route changes, and now and then."""
        look = True
        while True:
            failed = self.settle(look=look)
            ready, _, _ = select.select([netlink.fileno(), woken], [], [], AGAIN if failed else LOOKS)
            time.sleep(PAUSE)  # what comes together is done together
            if woken in ready:
                os.read(woken, 1 << 16)
            look = not ready or bool(failed) or (netlink.fileno() in ready and lost(netlink))

    def settle(self, *, look: bool) -> int:
        """How many routes are missing. `look`: the kernel may have others than it was given."""
        if look:
            self.have = seen()
        found = self.slices.places()
        if found is None:
            self.note(listed=False, failed=0, left=[])
            return 0
        wanted, left = self.ways.routes(found)
        lines = changes(self.have, wanted)
        if lines:
            self.have = wanted if batch(lines) else seen()
            say("%d routes, %d changes" % (len(self.have), len(lines)))
        failed = sum(self.have.get(to) != via for to, via in wanted.items())
        self.name(left)
        self.note(listed=True, failed=failed, left=left)
        return failed

    def name(self, left: list[Left]) -> None:
        """Each reason once in the journal, while it lasts."""
        for item in left:
            if (item["why"], item["node"]) not in self.named:
                where = "%s on Node %s" % (item["address"], printable(item["node"]))
                say("no route to %s: %s" % (where, WHY[item["why"]]))
        self.named = {(item["why"], item["node"]) for item in left}

    def note(self, *, listed: bool, failed: int, left: list[Left]) -> None:
        note({
            "config": self.hash,
            "mode": "endpoints",
            "listed": listed,
            "routes": len(self.have),
            "failed": failed,
            "api": self.slices.why,
            "since": int(self.slices.since),
            "left": left[:NAMED],
            "more": max(len(left) - NAMED, 0),
        })  # fmt: skip


WHY = {
    "unknown": "vmproxy apply has not told its address yet",
    "elsewhere": "it is not on the VM's network",
    "refused": "no route may lead there",
}


def note(state: dict[str, Any]) -> None:
    """Only what is new is written: the folder is in memory, and read by nobody but the agent."""
    text = json.dumps(state)
    try:
        with open(STATE) as file:
            if file.read() == text:
                return
    except (OSError, ValueError):
        pass
    os.makedirs(os.path.dirname(STATE), exist_ok=True)
    with open(STATE + ".part", "w") as file:
        file.write(text)
    os.replace(STATE + ".part", STATE)


def clear(text: bytes) -> None:
    """Nothing is to be kept: what was set before goes."""
    batch(changes(seen(), {}))
    if seen():
        sys.exit("cannot remove all routes to endpoints")
    state = {"routes": 0, "failed": 0, "api": "", "since": int(time.time()), "left": [], "more": 0}
    note({"config": hashlib.sha256(text).hexdigest(), "mode": "none", "listed": True, **state})


def main() -> None:
    with open(CONFIG, "rb") as file:
        text = file.read()
    config: Config = json.loads(text)
    if config["mode"] == "none":
        clear(text)
        return
    woken, wake = os.pipe()
    slices = Slices(config, wake)
    keeper = Keeper(config, text, slices)
    netlink = listen()
    threading.Thread(target=ended, args=(slices,), daemon=True).start()
    keeper.keep(netlink, woken)


def ended(slices: Slices) -> None:
    """A fault of ours ends the whole: systemd starts it again."""
    try:
        slices.follow()
    except BaseException as error:
        say("cannot go on: %r" % error)
        os._exit(1)


if __name__ == "__main__":
    main()
