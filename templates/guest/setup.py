#!/usr/bin/python3 -I
"""Set up the guest's guard table, addresses, routes, forwarding: at boot, and when vmproxy has changed them.

setup.py guard        load /etc/vmproxy/guard.nft in one transaction
setup.py addresses    make the interface's addresses with our label those of /etc/vmproxy/addresses.json
setup.py routes       make the routes of our protocol those of /etc/vmproxy/routes.json, and the default route
setup.py forward      let the kernel forward
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

GUARD = "/etc/vmproxy/guard.nft"
ROUTES = "/etc/vmproxy/routes.json"
ADDRESSES = "/etc/vmproxy/addresses.json"
INTERFACE = "eth0"
LABEL = INTERFACE + ":vmproxy"  # marks our addresses
NOTE = "/run/vmproxy/guard.json"
FORWARD = ("net.ipv4.ip_forward", "net.ipv4.conf.eth0.forwarding")
DEFAULT = "0.0.0.0/0"
KERNEL = "/proc/sys"
PROTOCOL = "250"  # marks our routes; nothing in iproute2's, FRR's or BIRD's lists has this number
FORMER = "186"  # what earlier versions marked them with: it is BGP's


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()


def loaded(told: str) -> str:
    """The hash of the rules as `nft -j list table` tells them."""
    rules = [item for item in json.loads(told)["nftables"] if "metainfo" not in item]
    return hashlib.sha256(json.dumps(constant(rules), sort_keys=True).encode()).hexdigest()


def constant(value: object) -> object:
    """Without handles, and without what named counters have counted."""
    if isinstance(value, dict):
        if isinstance(value.get("counter"), dict):
            value = {"counter": {k: v for k, v in value["counter"].items() if k not in ("packets", "bytes")}}
        return {key: constant(item) for key, item in value.items() if key != "handle"}
    return [constant(item) for item in value] if isinstance(value, list) else value


def guard() -> None:
    with open(GUARD, "rb") as file:
        source = hashlib.sha256(file.read()).hexdigest()
    subprocess.run(["nft", "-f", GUARD], check=True)
    os.makedirs(os.path.dirname(NOTE), exist_ok=True)
    part = "%s.%d" % (NOTE, os.getpid())  # the keeper may load it at the same moment
    with open(part, "w") as file:
        told = output("nft", "-j", "list", "table", "inet", "vmproxy")
        json.dump({"source": source, "loaded": loaded(told)}, file)
    os.replace(part, NOTE)


def guard_seen(told: str) -> str:
    """The hash of guard.nft as it was loaded, when the table is still so; else "changed"."""
    try:
        with open(NOTE) as file:
            note: dict[str, str] = json.load(file)
    except (OSError, ValueError):
        return "changed"
    return note["source"] if note.get("loaded") == loaded(told) else "changed"


def addresses() -> None:
    """Beside the interface's own. Who has set a wanted one keeps it."""
    with open(ADDRESSES) as file:
        wanted: list[str] = json.load(file)
    seen = held(output("ip", "-j", "-4", "address", "show", "dev", INTERFACE))
    todo = [("del", address) for address, label in seen if label == LABEL and address not in wanted]
    there = [address for address, _ in seen]
    todo += [("add", address) for address in wanted if address not in there]
    refused = [address for verb, address in todo if not moved(verb, address)]
    if refused:
        raise OSError("not set: %s" % ", ".join(refused))


def held(told: str) -> list[tuple[str, str]]:
    """Addresses with their prefix lengths and labels, as `ip -j address show` tells them."""
    found = [item for link in json.loads(told or "[]") for item in link.get("addr_info", [])]
    return [
        ("%s/%d" % (item["local"], item["prefixlen"]), item.get("label", ""))
        for item in found
        if "local" in item
    ]


def moved(verb: str, address: str) -> bool:
    """False: ip has said why on stderr."""
    label = ["label", LABEL] if verb == "add" else []
    command = ["ip", "address", verb, address, "dev", INTERFACE, *label]
    return subprocess.run(command, check=False).returncode == 0


def routes() -> None:
    """Each one, also when the kernel has refused another."""
    with open(ROUTES) as file:
        listed = {(item["prefix"], item["via"]) for item in json.load(file)}
    wanted = {route for route in listed if route[0] != DEFAULT}
    seen = {route for route in shown(PROTOCOL) if route[0] != DEFAULT}
    todo = [("del", prefix, via, PROTOCOL) for prefix, via in seen - wanted]
    todo += [("del", prefix, via, FORMER) for prefix, via in wanted & shown(FORMER)]
    todo += [("replace", prefix, via, PROTOCOL) for prefix, via in wanted - seen]
    todo += [("replace", DEFAULT, via, "static") for _, via in listed - wanted if via != default()]
    refused = [step for step in todo if not changed(*step)]
    if refused:
        raise OSError("not set: %s" % ", ".join("%s via %s" % step[1:3] for step in refused))


def default() -> str:
    """The gateway of the system's own default route, set at boot: of several the first one counts."""
    found = json.loads(output("ip", "-j", "-4", "route", "show", "default") or "[]")
    gateway: str = found[0].get("gateway", "") if found else ""
    return gateway


def shown(protocol: str) -> set[tuple[str, str]]:
    found = json.loads(output("ip", "-j", "-4", "route", "show", "proto", protocol) or "[]")
    return {(whole(route["dst"]), route.get("gateway", "")) for route in found}


def whole(prefix: str) -> str:
    """ip leaves /32 out, and writes 0.0.0.0/0 as a word."""
    if prefix == "default":
        return "0.0.0.0/0"
    return prefix if "/" in prefix else prefix + "/32"


def changed(verb: str, prefix: str, via: str, protocol: str) -> bool:
    """False: ip has said why on stderr. `via` is empty for a route without a next hop, which somebody else
    has set."""
    hop = ["via", via] if via else []
    return subprocess.run(["ip", "route", verb, prefix, *hop, "proto", protocol], check=False).returncode == 0


def forward() -> None:
    """The first one turns it on everywhere, the second where somebody has turned it off since."""
    for name in FORWARD:
        path = "%s/%s" % (KERNEL, name.replace(".", "/"))
        if os.path.exists(path):
            with open(path, "w") as file:
                file.write("1")


if __name__ == "__main__":
    parts, failed = {"guard": guard, "addresses": addresses, "routes": routes, "forward": forward}, []
    for what in sys.argv[1:]:
        try:
            parts[what]()
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            if what == "guard":  # nothing is forwarded without it
                raise
            failed.append("%s: %s" % (what, error))
    sys.exit("\n".join(failed) or 0)
