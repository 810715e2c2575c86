"""A kernel in a file: `ip` and `bridge` with one VXLAN device, its neighbours, entries and routes."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.guest.machine import PYTHON, Machine

_TOOL = """#!{python} -IS
import json, os, sys
path, tool, words = {path!r}, {tool!r}, sys.argv[1:]

def load():
    with open(path) as file:
        return json.load(file)

def show(state):
    device = state["device"]
    if "link" in words or "fdb" in words or "neigh" in words:
        if device is None:
            sys.exit("Device does not exist.")
    if "link" in words:
        return [device]
    if "fdb" in words:
        return [{{"mac": mac, "dst": dst}} for mac, dst in state["far"].items()]
    if "neigh" in words:
        return [{{"dst": dst, "lladdr": mac}} for dst, mac in state["near"].items()]
    return [
        {{"dst": to, "gateway": via, "dev": "vmproxy.1", "flags": ["onlink"]}}
        for to, (via, protocol) in state["routes"].items() if protocol == words[-1]
    ]

def do(state, line):
    kind, verb, *rest = line
    named = dict(zip(rest[1::2], rest[2::2]))
    if kind == "link" and verb == "add":
        data = {{"id": int(named["id"]), "link": "eth0", "local": named["local"]}}
        data["port"] = int(named["dstport"])
        device = {{"mtu": int(named["mtu"]), "flags": [], "linkinfo": {{"info_data": data}}}}
        state["device"], state["made"] = device, state["made"] + 1
        return state["near"] == state["far"] == {{}}
    if state["device"] is None:
        return False
    if kind == "link" and verb == "set":
        state["device"]["flags"] = ["UP"]
    elif kind == "link":
        state.update(device=None, near={{}}, far={{}}, routes={{}})
    else:
        table = state[{{"neigh": "near", "fdb": "far", "route": "routes"}}[kind]]
        value = [named["via"], named["proto"]] if kind == "route" else named.get("lladdr") or named.get("dst")
        if (verb == "del") != (rest[0] in table) and verb != "replace":
            return False
        table.pop(rest[0], None) if verb == "del" else table.update({{rest[0]: value}})
    return True

state = load()
if "-batch" not in words:
    print(json.dumps(show(state)))
else:
    lines = [line.replace("onlink ", "").split() for line in sys.stdin]
    failed = [line for line in lines if not do(state, line)]
    with open(path + "." + tool, "w") as file:
        json.dump(state, file)
    os.replace(path + "." + tool, path)
    if failed:
        sys.exit("RTNETLINK answers: " + str(failed))
"""


class Kernel:
    """Of that machine. `state` is what it has: `made` counts devices."""

    def __init__(self, machine: Machine) -> None:
        self._path = machine.path("/kernel.json")
        self.write({"device": None, "near": {}, "far": {}, "routes": {}, "made": 0})
        for tool in ("ip", "bridge"):
            text = _TOOL.format(python=PYTHON, path=str(self._path), tool=tool)
            machine.file_in_bin(tool, text)
        machine.write("/sys/class/net/eth0/mtu", "1500\n")

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path.read_text())
        return found

    def write(self, state: dict[str, Any]) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(state))
        part.replace(self._path)
