#!/usr/bin/python3 -I
"""Set up the guest's guard table and routes: at boot, and when vmproxy has changed them.

setup.py guard        load /etc/vmproxy/guard.nft in one transaction
setup.py routes       make the routes of protocol 186 those of /etc/vmproxy/routes.json
setup.py all          both
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

GUARD = "/etc/vmproxy/guard.nft"
ROUTES = "/etc/vmproxy/routes.json"
NOTE = "/run/vmproxy/guard.json"
PROTOCOL = "186"  # not taken in /etc/iproute2/rt_protos: marks our routes


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()


def loaded(told: str) -> str:
    """The hash of the rules as `nft -j list table` tells them."""
    rules = [item for item in json.loads(told)["nftables"] if "metainfo" not in item]
    return hashlib.sha256(json.dumps(without_handles(rules), sort_keys=True).encode()).hexdigest()


def without_handles(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_handles(item) for key, item in value.items() if key != "handle"}
    return [without_handles(item) for item in value] if isinstance(value, list) else value


def guard() -> None:
    with open(GUARD, "rb") as file:
        source = hashlib.sha256(file.read()).hexdigest()
    subprocess.run(["nft", "-f", GUARD], check=True)
    os.makedirs(os.path.dirname(NOTE), exist_ok=True)
    with open(NOTE + ".part", "w") as file:
        told = output("nft", "-j", "list", "table", "inet", "vmproxy")
        json.dump({"source": source, "loaded": loaded(told)}, file)
    os.replace(NOTE + ".part", NOTE)


def guard_seen(told: str) -> str:
    """The hash of guard.nft as it was loaded, when the table is still so; else "changed"."""
    try:
        with open(NOTE) as file:
            note: dict[str, str] = json.load(file)
    except (OSError, ValueError):
        return "changed"
    return note["source"] if note.get("loaded") == loaded(told) else "changed"


def routes() -> None:
    with open(ROUTES) as file:
        wanted = {(item["prefix"], item["via"]) for item in json.load(file)}
    shown = json.loads(output("ip", "-j", "-4", "route", "show", "proto", PROTOCOL) or "[]")
    seen = {(whole(route["dst"]), route.get("gateway", "")) for route in shown}
    for prefix, via in seen - wanted:
        change("del", prefix, via)
    for prefix, via in wanted - seen:
        change("replace", prefix, via)


def whole(prefix: str) -> str:
    """ip leaves /32 out, and writes 0.0.0.0/0 as a word."""
    if prefix == "default":
        return "0.0.0.0/0"
    return prefix if "/" in prefix else prefix + "/32"


def change(verb: str, prefix: str, via: str) -> None:
    """`via` is empty for a route without a next hop, which somebody else has set."""
    hop = ["via", via] if via else []
    subprocess.run(["ip", "route", verb, prefix, *hop, "proto", PROTOCOL], check=True)


if __name__ == "__main__":
    what = sys.argv[1]
    if what in ("guard", "all"):
        guard()
    if what in ("routes", "all"):
        routes()
