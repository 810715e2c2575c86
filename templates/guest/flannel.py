"""The peers of flannel's VXLAN, to which this VM sends without being a Node: podroutes.py imports it.

What is needed to reach a peer is in its Node's annotations. Answers come back over the VM's own network: the
device only sends, and the guard table lets nothing in.
"""

from __future__ import annotations

import bisect
import ipaddress
import json
import re
import subprocess

DEVICE = "vmproxy.1"
LINK = "eth0"
MTU = "/sys/class/net/eth0/mtu"
HEADERS = 50
LARGEST_VNI = 1 << 24
WIDEST = 8
PAGE = 50  # a Node's object has up to 30 KB
ANNOTATION = "flannel.alpha.coreos.com/"
NODES = "api/v1/nodes"
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

TYPE_CHECKING = False  # not imported: typing is slow to load on an emulated CPU
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple

    class Peer(NamedTuple):
        """A Node with its `ranges` of pods. `vni` 0: it has no VXLAN of flannel's, whose device has the
        address `mac` there, and takes what comes to `address`."""

        node: str
        ranges: tuple[str, ...]
        vni: int
        mac: str
        address: str

    Span = tuple[int, int]  # the first and the last address

else:
    from collections import namedtuple

    Peer = namedtuple("Peer", "node ranges vni mac address")


def peer(item: dict[str, Any]) -> Peer:
    """What is no address, and the like, is as if it were not there."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    notes = metadata.get("annotations") or {}
    listed = spec.get("podCIDRs") or [spec.get("podCIDR")]
    ranges = tuple(found for cidr in listed for found in written(cidr))
    data = backend(notes) if notes.get(ANNOTATION + "backend-type") == "vxlan" else {}
    vni, mac = number(data.get("VNI")), str(data.get("VtepMAC")).lower()
    address = str(notes.get(ANNOTATION + "public-ip"))
    good = MAC.fullmatch(mac) and is_address(address)
    return Peer(str(metadata["name"]), ranges, vni if good else 0, mac, address)


def number(vni: object) -> int:
    """0: it is none."""
    return int(vni) if type(vni) is int and 0 < vni < LARGEST_VNI else 0


def backend(notes: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(str(notes.get(ANNOTATION + "backend-data")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def written(cidr: object) -> list[str]:
    """As ip writes it; none, if it is no range for pods."""
    try:
        network = ipaddress.IPv4Network(str(cidr))
    except ValueError:
        return []
    return [str(network)] if WIDEST <= network.prefixlen < 32 else []


def is_address(text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_reserved or address.is_loopback or address.is_unspecified)


class Peers:
    """Which way leads to each Node's pods, as the configuration says."""

    path = NODES
    page = PAGE

    def __init__(self, config: Any) -> None:
        self.node = config["node"]
        self.local = config["local"]
        self.port = config["port"]
        self.aside = [ipaddress.IPv4Network(network) for network in config["aside"]]
        self.refused = [span(network) for network in config["refused"]]
        self.forget()

    def forget(self) -> None:
        """`near` are the device's neighbours, and `far` is where each of them takes its packets. `spans` have
        a route; to `addresses`, those of the Nodes, none may lead."""
        self.vni = 0
        self.near: dict[str, str] = {}
        self.far: dict[str, str] = {}
        self.spans: list[Span] = []
        self.addresses: list[int] = []

    def read(self, item: dict[str, Any]) -> tuple[Peer, ...]:
        return (peer(item),)

    def routes(self, found: Iterable[Peer]) -> tuple[dict[str, str], list[Any]]:
        """The next hop to each range, and the Nodes whose pods get none. Of Nodes that contradict each other
        the first one counts."""
        self.forget()
        every = sorted(item for item in found if item.node != self.node)
        numbers = [item.vni for item in every if item.vni]
        self.vni = max(sorted(set(numbers)), key=numbers.count) if numbers else 0
        self.addresses = sorted(int(ipaddress.IPv4Address(item.address)) for item in every if item.vni)
        wanted: dict[str, str] = {}
        left: list[Any] = []
        for item in every:
            ranges = {cidr: span(cidr) for cidr in item.ranges if not self.is_aside(cidr)}
            why = self.why_not(item, list(ranges.values()))
            if why:
                left.append({"why": why, "node": item.node, "address": hop(min(ranges)), "count": 0})
                continue
            for cidr, both in ranges.items():
                bisect.insort(self.spans, both)
                self.far[item.mac] = item.address
                self.near[hop(cidr)] = item.mac
                wanted[cidr] = "%s dev %s onlink" % (hop(cidr), DEVICE)
        return wanted, left

    def is_aside(self, cidr: str) -> bool:
        return any(ipaddress.IPv4Network(cidr).subnet_of(network) for network in self.aside)

    def why_not(self, item: Peer, ranges: list[Span]) -> str | None:
        if not ranges:
            return None
        if not item.vni or item.vni != self.vni:
            return "apart" if item.vni else "foreign"
        if any(first <= end and start <= last for first, last in ranges for start, end in self.refused):
            return "refused"
        if item.address == self.local or any(holds(both, self.addresses) for both in ranges):
            return "refused"
        taken = item.mac in self.far or any(overlaps(both, self.spans) for both in ranges)
        return "taken" if taken else None

    def prepare(self) -> bool:
        """The device, and who is behind it. Whether the kernel took all."""
        if not self.near:
            return remove()
        if not self.is_as_wanted() and not (remove() and self.make()):
            return False
        near, far = neighbours(), forwarded()
        lines = ["neigh del %s dev %s" % (to, DEVICE) for to in near.keys() - self.near.keys()]
        lines += [
            "neigh replace %s lladdr %s dev %s nud permanent" % (to, mac, DEVICE)
            for to, mac in self.near.items() - near.items()
        ]
        gone = [(mac, far[mac]) for mac in far.keys() - self.far.keys()]
        entries = ["fdb del %s dev %s dst %s" % (mac, DEVICE, to) for mac, to in gone]
        new = self.far.items() - far.items()
        entries += ["fdb replace %s dev %s dst %s" % (mac, DEVICE, to) for mac, to in new]
        return batch("ip", lines) & batch("bridge", entries)

    def is_as_wanted(self) -> bool:
        found = told("ip", "-d", "-j", "link", "show", "dev", DEVICE)
        link = found[0] if found else {}
        data = link.get("linkinfo", {}).get("info_data", {})
        wanted = (self.vni, self.port, self.local, LINK, mtu())
        there = (data.get("id"), data.get("port"), data.get("local"), data.get("link"), link.get("mtu"))
        return "UP" in link.get("flags", ()) and there == wanted

    def make(self) -> bool:
        vxlan = "type vxlan id %d dev %s local %s" % (self.vni, LINK, self.local)
        lines = [
            "link add %s mtu %d %s dstport %d nolearning" % (DEVICE, mtu(), vxlan, self.port),
            "link set %s up" % DEVICE,
        ]
        return batch("ip", lines)


def mtu() -> int:
    """What is left of the adapter's for a packet in VXLAN."""
    with open(MTU) as file:
        return int(file.read()) - HEADERS


def span(cidr: str) -> Span:
    network = ipaddress.IPv4Network(cidr)
    return int(network.network_address), int(network.broadcast_address)


def holds(both: Span, addresses: list[int]) -> bool:
    """One of `addresses`, which are sorted."""
    return bisect.bisect_left(addresses, both[0]) < bisect.bisect(addresses, both[1])


def overlaps(both: Span, spans: list[Span]) -> bool:
    """One of `spans`, which are sorted, and apart from each other."""
    before = bisect.bisect(spans, (both[1], both[1] << 32))
    return before > 0 and spans[before - 1][1] >= both[0]


def hop(cidr: str) -> str:
    """The address of flannel's device on the Node that has this range."""
    return cidr.split("/", maxsplit=1)[0]


def remove() -> bool:
    """The device, with its routes. Whether none is there."""
    return not told("ip", "-j", "link", "show", "dev", DEVICE) or batch("ip", ["link del %s" % DEVICE])


def neighbours() -> dict[str, str]:
    found = told("ip", "-j", "-4", "neigh", "show", "dev", DEVICE, "nud", "permanent")
    return {item["dst"]: item.get("lladdr", "") for item in found}


def forwarded() -> dict[str, str]:
    found = told("bridge", "-j", "fdb", "show", "dev", DEVICE)
    return {item["mac"]: item["dst"] for item in found if "dst" in item}


def told(*command: str) -> list[Any]:
    """Nothing, where the device is not there."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return list(json.loads(done.stdout or "[]")) if done.returncode == 0 else []


def batch(program: str, lines: list[str]) -> bool:
    """Whether the kernel took them all; the program says on stderr which it did not, and why."""
    text = "".join(line + "\n" for line in lines).encode()
    command = [program, "-force", "-batch", "-"]
    return not lines or subprocess.run(command, input=text, check=False).returncode == 0
