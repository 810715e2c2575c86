#!/usr/bin/python3 -I
"""Keep routes to pods: to each endpoint of the cluster's Services by way of its Node, or over flannel's VXLAN
to each Node's pods, while they come and go.

Lists and watches EndpointSlices, or for flannel Nodes, with kube-proxy's token. /etc/vmproxy/podroutes.json,
which vmproxy writes, says how: of what the API says, only addresses, VNIs and Nodes' names are used. What the
API does not say for a while stays as it is. /run/vmproxy/podroutes.json tells the state.
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

LIBRARY = "/usr/local/lib/vmproxy"
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
LINK, NEIGHBOURS, ROUTES = 0x1, 0x4, 0x40
NEW_LINK, DELETED_ROUTE, NEW_NEIGHBOUR, DELETED_NEIGHBOUR = 16, 25, 28, 29
PERMANENT = 0x80

TYPE_CHECKING = False  # not imported: typing is slow to load on an emulated CPU
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Protocol, TypedDict

    class Config(TypedDict, total=False):
        """`mode` is "none", "endpoints" or "flannel". `aside`: networks that are reached otherwise,
        `refused`: those to which no route may lead. For "endpoints" are `nodes`, the next hop by a Node's
        name, empty where it has none on the VM's network, and `own`, addresses of Nodes themselves; for
        "flannel" are `local`, the VM's address, `port`, and `node`, which is no peer."""

        mode: str
        server: str
        ca: str
        tlsServerName: str
        nodes: dict[str, str]
        own: list[str]
        aside: list[str]
        refused: list[str]
        local: str
        port: int
        node: str

    class Left(TypedDict):
        """Endpoints without a route: on which Node, one of them, and how many; 0: all of its pods. `why` is a
        key of WHY."""

        why: str
        node: str
        address: str
        count: int

    Place = tuple[str, str, bool]
    Routes = dict[str, str]

    class Wanted(Protocol):
        """What is watched: at most `page` objects of `path` in an answer, of which `read` takes what matters.
        `routes` are those that follow from it, and `prepare` makes what has to be there for them: whether
        the kernel took it."""

        path: str
        page: int

        def read(self, item: dict[str, Any]) -> tuple[Any, ...]: ...

        def routes(self, found: Iterable[Any]) -> tuple[Routes, list[Left]]: ...

        def prepare(self) -> bool: ...


sys.path.insert(0, LIBRARY)  # flannel.py is there


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


def ask(
    connection: http.client.HTTPConnection, config: Config, path: str, **query: object
) -> http.client.HTTPResponse:
    """The answer, whose body is still to be read."""
    prefix = urllib.parse.urlsplit(config["server"]).path.rstrip("/")
    headers = {"Authorization": "Bearer " + token(), "Accept": "application/json"}
    whole = "%s/%s?%s" % (prefix, path, urllib.parse.urlencode(query))
    connection.request("GET", whole, headers=headers)
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
    return "%s/%s" % (item["metadata"].get("namespace"), item["metadata"]["name"])


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


class Watched:
    """Every object that is `wanted` as the API last told it. Writing to `wake` wakes who sets the routes."""

    def __init__(self, config: Config, wanted: Wanted, wake: int) -> None:
        self.config = config
        self.path = wanted.path
        self.page = wanted.page
        self.read = wanted.read
        self.wake = wake
        self.lock = threading.Lock()
        self.found: dict[str, tuple[Any, ...]] | None = None
        self.version = ""
        self.why = "it was not asked yet"
        self.since = time.time()

    def known(self) -> list[Any] | None:
        """None: they are not known yet."""
        with self.lock:
            if self.found is None:
                return None
            return [item for some in self.found.values() for item in some]

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
        found: dict[str, tuple[Any, ...]] = {}
        query: dict[str, object] = {"limit": self.page}
        while True:
            page = json.loads(ask(connection, self.config, self.path, **query).read())
            found.update((name_of(item), self.read(item)) for item in page.get("items") or ())
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
        answer = ask(connection, self.config, self.path, resourceVersion=self.version, **query)
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
            self.take(name_of(item), () if kind == "DELETED" else self.read(item))
        self.version = str(item["metadata"]["resourceVersion"])

    def take(self, name: str, found: tuple[Any, ...]) -> None:
        """Nothing follows where nothing of it has changed that matters."""
        with self.lock:
            assert self.found is not None  # it was listed before it is watched
            before = self.found.pop(name, ())
            if found:
                self.found[name] = found
        if found != before:
            os.write(self.wake, b"x")

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

    path = SLICES
    page = PAGE

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

    def read(self, item: dict[str, Any]) -> tuple[Place, ...]:
        return places(item)

    def prepare(self) -> bool:
        """The Nodes are on the VM's own link."""
        return True

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
    return {route["dst"]: hop(route) for route in json.loads(told or "[]")}


def hop(route: dict[str, Any]) -> str:
    """As it stands in a line for ip."""
    onlink = " dev %s onlink" % route["dev"] if "onlink" in route.get("flags", ()) else ""
    return str(route.get("gateway", "")) + onlink


def batch(lines: list[str]) -> bool:
    """Whether the kernel took them all; ip says on stderr which it did not, and why."""
    text = "".join(line + "\n" for line in lines).encode()
    return subprocess.run(["ip", "-force", "-batch", "-"], input=text, check=False).returncode == 0


def listen(groups: int) -> socket.socket:
    """What happens in the kernel. Forwarding entries are a kind of neighbours."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, groups))
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
    """Neighbours that the kernel finds itself are not permanent; what it says of one that goes, neither."""
    kind = struct.unpack_from("=H", message, 4)[0]
    if kind == NEW_NEIGHBOUR and len(message) >= 26:
        return bool(struct.unpack_from("=H", message, 24)[0] & PERMANENT)
    return kind in (NEW_LINK, DELETED_NEIGHBOUR) or (
        kind == DELETED_ROUTE and message[21:22] == bytes([int(PROTOCOL)])
    )


def wait(netlink: socket.socket, woken: int, seconds: float) -> bool:
    """Until there is something to do: whether the kernel has to be asked what it has."""
    end = time.monotonic() + seconds
    while True:
        left = max(end - time.monotonic(), 0.0)
        ready, _, _ = select.select([netlink.fileno(), woken], [], [], left)
        if not ready:
            return True
        time.sleep(PAUSE)  # what comes together is done together
        look = netlink.fileno() in ready and lost(netlink)
        if woken in ready:
            os.read(woken, 1 << 16)
        if look or woken in ready:
            return look


class Keeper:
    """Sets the routes. `have`: those that the kernel has, as far as is known."""

    def __init__(self, mode: str, text: bytes, wanted: Wanted, watched: Watched) -> None:
        self.mode = mode
        self.hash = hashlib.sha256(text).hexdigest()
        self.wanted = wanted
        self.watched = watched
        self.have: Routes = {}
        self.named: set[tuple[str, str]] = set()
        self.noted = b""

    def keep(self, netlink: socket.socket, woken: int) -> None:
        """For ever: when the API says something, when a link or a route changes, and now and then."""
        look = True
        while True:
            failed = self.settle(look=look)
            look = bool(failed) | wait(netlink, woken, AGAIN if failed else LOOKS)

    def settle(self, *, look: bool) -> int:
        """How many routes are missing. `look`: the kernel may have others than it was given."""
        if look:
            self.have = seen()
        found = self.watched.known()
        if found is None:
            self.note(listed=False, failed=0, left=[])
            return 0
        wanted, left = self.wanted.routes(found)
        ready = self.wanted.prepare()
        if self.mode == "flannel":  # a device that goes takes its routes with it
            self.have = seen()
        lines = changes(self.have, wanted)
        if lines:
            self.have = wanted if batch(lines) else seen()
            say("%d routes, %d changes" % (len(self.have), len(lines)))
        failed = sum(self.have.get(to) != via for to, via in wanted.items()) or int(not ready)
        self.name(left)
        self.note(listed=True, failed=failed, left=left)
        return failed

    def name(self, left: list[Left]) -> None:
        """Each reason once in the journal, while it lasts."""
        for item in left:
            if (item["why"], item["node"]) not in self.named:
                which = item["address"] if item["count"] else "the pods"
                say("no route to %s on Node %s: %s" % (which, printable(item["node"]), WHY[item["why"]]))
        self.named = {(item["why"], item["node"]) for item in left}

    def note(self, *, listed: bool, failed: int, left: list[Left]) -> None:
        note({
            "config": self.hash,
            "mode": self.mode,
            "listed": listed,
            "routes": len(self.have),
            "failed": failed,
            "api": self.watched.why,
            "since": int(self.watched.since),
            "left": left[:NAMED],
            "more": max(len(left) - NAMED, 0),
        })  # fmt: skip


WHY = {
    "unknown": "vmproxy apply has not told its address yet",
    "elsewhere": "it is not on the VM's network",
    "refused": "no route may lead there",
    "foreign": "its annotations name no VXLAN of flannel's",
    "apart": "its VXLAN has another VNI than most Nodes'",
    "taken": "another Node has the same podCIDR or VtepMAC",
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
    import flannel

    batch(changes(seen(), {}))
    if not flannel.remove() or seen():
        sys.exit("cannot remove all routes to pods")
    state = {"routes": 0, "failed": 0, "api": "", "since": int(time.time()), "left": [], "more": 0}
    note({"config": hashlib.sha256(text).hexdigest(), "mode": "none", "listed": True, **state})


def main() -> None:
    import flannel

    with open(CONFIG, "rb") as file:
        text = file.read()
    config: Config = json.loads(text)
    if config["mode"] == "none":
        clear(text)
        return
    if config["mode"] != "flannel":
        flannel.remove()
    woken, wake = os.pipe()
    wanted: Wanted = flannel.Peers(config) if config["mode"] == "flannel" else Ways(config)
    watched = Watched(config, wanted, wake)
    keeper = Keeper(config["mode"], text, wanted, watched)
    netlink = listen(LINK | ROUTES | (NEIGHBOURS if config["mode"] == "flannel" else 0))
    threading.Thread(target=ended, args=(watched,), daemon=True).start()
    keeper.keep(netlink, woken)


def ended(watched: Watched) -> None:
    """A fault of ours ends the whole: systemd starts it again."""
    try:
        watched.follow()
    except BaseException as error:
        say("cannot go on: %r" % error)
        os._exit(1)


if __name__ == "__main__":
    main()
