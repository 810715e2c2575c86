"""A Windows host as the product's scripts leave it: what each of them does, in Python.

It stands in for the PowerShell of transport/powershell.py. What the scripts really do is tested on
the emulated host; here it is about plans, markers, deliveries and errors.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any

from vmproxy.hosts.hyperv.kind import HYPERV
from vmproxy.model.names import SHUTDOWN, TIME_SYNC
from vmproxy.site.model import Hyperv
from vmproxy.transport.powershell import PowerShellFailed, WindowsError

GIB = 1 << 30
OURS = "O:BAG:SYD:PAI(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)"
INHERITED = "O:BAG:SYD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;0x1200a9;;;BU)"
Call = dict[str, Any]


def failed(
    message: str, *, kind: str = "System.Exception", identity: str = "Failed", code: str = ""
) -> Exception:
    return PowerShellFailed("win-01", WindowsError(kind, identity, "NotSpecified", message, "", code))


def new_vm(name: str, **changes: Any) -> dict[str, Any]:
    """As New-VM leaves it."""
    vm = {
        "name": name,
        "state": "Off",
        "generation": 2,
        "cpus": 1,
        "memory": GIB,
        "dynamicMemory": False,
        "start": "StartIfRunning",
        "startDelay": 0,
        "stop": "Save",
        "checkpoints": "Production",
        "automaticCheckpoints": True,
        "notes": "",
        "path": r"C:\ProgramData\vmproxy" + "\\" + name,
        "firmware": {
            "secureBoot": "On",
            "template": "1734c6e8-3154-4dda-ba5f-a874cc483422",
            "firstBoot": "Network",
        },
        "com1": "",
        "disks": [],
        "dvds": [],
        "adapters": [
            {
                "mac": "000000000000",
                "dynamicMac": True,
                "switch": "External",
                "spoofing": "Off",
                "iovWeight": 0,
                "vlanMode": "Untagged",
                "vlan": 0,
            }
        ],
        "services": [
            {"id": rf"Microsoft:0E8F2A3C\{TIME_SYNC}", "enabled": True},
            {"id": rf"Microsoft:0E8F2A3C\{SHUTDOWN}", "enabled": True},
        ],
    }
    return {**vm, **changes}


@dataclass
class FakeWindows:
    """`breaks` are raised by the script of that name; `calls` records every script with its data."""

    vms: list[dict[str, Any]] = field(default_factory=list)
    switches: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": "External", "id": "11", "type": "External", "managementOS": True}]
    )
    routes: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[dict[str, Any]] = field(
        default_factory=lambda: [{"address": "192.168.10.2", "length": 24, "interface": 7}]
    )
    files: dict[str, int] = field(default_factory=dict)
    sddl: str = INHERITED
    exposed: list[dict[str, str]] = field(default_factory=list)
    free: int = 40 * GIB
    held: bool = False
    pending: str | None = None
    own: dict[str, Any] | None = None
    """What observe.ps1 reports of the VM's own switch."""
    calls: list[tuple[str, Call]] = field(default_factory=list)
    breaks: dict[str, Exception] = field(default_factory=dict)
    given: bytes = b""
    """What the last script that asked for a line got."""
    received: bytearray = field(default_factory=bytearray)
    answers: list[dict[str, Any]] = field(default_factory=list)
    examined: dict[str, dict[str, object]] = field(default_factory=dict)
    watch: dict[str, Any] = field(
        default_factory=lambda: {
            "state": "Running",
            "heartbeat": "NoContact",
            "neighbour": None,
            "console": [],
        }
    )

    @contextmanager
    def connect(self, _about: Hyperv, _name: str) -> Iterator[FakeWindows]:
        yield self

    def scripts(self) -> list[str]:
        return [name for name, _ in self.calls]

    def call(
        self,
        script: str,
        data: Any = None,
        *,
        timeout: float = 120.0,
        each: Callable[[Any], None] | None = None,
    ) -> Any:
        data = json.loads(json.dumps(data))
        self.calls.append((script, data))
        if script in self.breaks:
            raise self.breaks[script]
        answer = getattr(self, "_" + script.removesuffix(".ps1"))(data)
        for one in answer if isinstance(answer, list) else []:
            if each is not None:
                each(one)
        return json.loads(json.dumps(answer))

    def feed(self, script: str, data: Any, pieces: Callable[[Any], bytes | None], *, timeout: float) -> Any:
        self.calls.append((script, data))
        if script in self.breaks:
            raise self.breaks[script]
        if script != "receive.ps1":
            self.given = pieces({"send": "it"}) or b""
            for answer in getattr(self, "_" + script.removesuffix(".ps1"))(data) or []:
                pieces(answer)
            return None
        while True:
            piece = pieces({"have": len(self.received)})
            assert piece is not None
            assert piece.endswith(b"\n")
            if piece == b"\n":
                self.files[data["part"]] = len(self.received)
                return None
            self.received += base64.b64decode(piece)

    def find(self, name: str) -> dict[str, Any]:
        (vm,) = [vm for vm in self.vms if vm["name"] == name]
        return vm

    def _lib(self, _data: Call) -> None:
        return None

    def _lock(self, _data: Call) -> Any:
        taken, self.held = self.held, True
        return {"held": not taken}

    def _unlock(self, _data: Call) -> None:
        self.held = False

    def _observe(self, data: Call) -> Any:
        inside = list(self.files)
        return {
            "host": {
                "freeMemory": 8 * GIB,
                "freeDisk": self.free,
                "macMinimum": "00155D0AC800",
                "macMaximum": "00155D0AC8FF",
            },
            "vms": [vm for vm in self.vms if vm["name"] == data["vm"]],
            "marked": [vm for vm in self.vms if "[vmproxy]" in vm["notes"]],
            "pending": self.pending,
            "nearSwitches": [item["name"] for item in self.switches if item["name"] != data["switch"]],
            "switches": [item for item in self.switches if item["name"] == data["switch"]],
            "own": self.own,
            "folder": {"sddl": self.sddl, "files": inside, "exposed": self.exposed}
            if inside or self.vms
            else None,
        }

    def _switch(self, _data: Call) -> None:
        return None

    def _unswitch(self, _data: Call) -> None:
        self.own = None

    def _routes(self, _data: Call) -> Any:
        return {
            "routes": self.routes,
            "addresses": self.addresses,
            "nameRules": {},
            "namePolicy": None,
            "dnsServer": False,
        }

    def _tidy(self, data: Call) -> Any:
        base = data["base"] or ""
        wanted = {base, base.replace(".vhdx", ".sha256"), data["part"]}
        used = {PureWindowsPath(disk["path"]).name for vm in self.vms for disk in vm["disks"]}
        for path in [path for path in self.files if path.startswith(data["images"]) and path not in wanted]:
            if f"disk-{PureWindowsPath(path).stem}.vhdx" not in used:
                del self.files[path]
        return {
            "base": data["base"] in self.files,
            "part": self.files.get(data["part"], 0),
            "free": self.free,
        }

    def _fetch(self, data: Call) -> Any:
        self.files[data["part"]] = 3 << 20
        return [{"have": 1 << 20}, {"have": 3 << 20}]

    def _unpack(self, data: Call) -> None:
        del self.files[data["part"]]
        self.files |= {data["base"]: 3 << 20, data["record"]: 64}

    def _create(self, data: Call) -> None:
        assert data["base"] in self.files
        assert data["record"] in self.files
        seed = base64.b64decode(self.given)
        self.vms = [vm for vm in self.vms if vm["name"] != data["vm"]]
        vm = new_vm(data["vm"], memory=data["memory"], notes=data["marker"])
        vm["disks"] = [{"path": data["disk"], "exists": True}]
        vm["dvds"] = [{"path": data["seed"], "exists": True}]
        vm["adapters"][0]["switch"] = data["switch"]
        self.vms.append(vm)
        self.files |= {data["disk"]: 3 << 20, data["seed"]: len(seed)}
        self.pending = None

    def _configure(self, data: Call) -> None:
        vm = self.find(data["vm"])
        wanted = data["settings"]
        off = vm["state"] == "Off"
        assert off or HYPERV.hot.issuperset(wanted)
        for name, value in wanted.items():
            if name in ("otherAdapters", "otherDisks", "otherDvdDrives", "firstBoot"):
                self._keep_own(vm, name, data["own"])
            else:
                self._set(vm, name, value)

    def _keep_own(self, vm: dict[str, Any], name: str, own: dict[str, str]) -> None:
        match name:
            case "otherAdapters":
                vm["adapters"] = vm["adapters"][:1]
            case "otherDisks":
                vm["disks"] = [drive for drive in vm["disks"] if drive["path"] == own["disk"]]
            case "otherDvdDrives":
                vm["dvds"] = [drive for drive in vm["dvds"] if drive["path"] == own["seed"]]
            case "firstBoot":
                vm["firmware"]["firstBoot"] = own["disk"]

    def _set(self, vm: dict[str, Any], name: str, value: Any) -> None:
        adapter, services = vm["adapters"][0], ("timeSync", "guestShutdown")
        match name:
            case "folderAccess":
                self.sddl = OURS
                self.exposed = []
            case "timeSync" | "guestShutdown":
                vm["services"][services.index(name)]["enabled"] = value
            case "secureBoot":
                vm["firmware"] = {**(vm["firmware"] or {}), "secureBoot": "On", "template": value.upper()}
            case "sriov":
                adapter["iovWeight"] = 100 if value else 0
            case "switch":
                adapter["switch"] = value
            case "macSpoofing":
                adapter["spoofing"] = "On" if value else "Off"
            case "vlan":
                adapter |= {"vlanMode": "Access" if value else "Untagged", "vlan": value}
            case "mac":
                adapter |= {"mac": value.replace(":", "").upper(), "dynamicMac": False}
            case _:
                assert name in vm, name
                vm[name] = value

    def _start(self, data: Call) -> None:
        self.find(data["vm"])["state"] = "Running"

    def _stop(self, data: Call) -> None:
        self.find(data["vm"])["state"] = "Off"

    def _delete(self, data: Call) -> None:
        self.vms = [vm for vm in self.vms if vm["name"] != data["vm"]]
        self.files = {path: size for path, size in self.files.items() if not path.startswith(data["folder"])}

    def _mark(self, data: Call) -> None:
        self._set_marker(data["vm"], data["marker"])

    def _route(self, data: Call) -> None:
        for gone in data["remove"]:
            via = gone["via"] or "0.0.0.0"
            self.routes = [one for one in self.routes if (one["prefix"], one["via"]) != (gone["prefix"], via)]
        if data["add"]:
            self.add_route(data["add"]["prefix"], data["add"]["via"])

    def _doctor(self, _data: Call) -> Any:
        return self.examined

    def _probe(self, data: Call) -> list[dict[str, Any]]:
        return self.answers[: len(data["connections"])]

    def _watch(self, data: Call) -> Any:
        return {**self.watch, "console": self.watch["console"][-data["lines"] :] if data["lines"] else []}

    def add_route(
        self, prefix: str, via: str, *, stores: tuple[str, ...] = ("ActiveStore", "PersistentStore")
    ) -> None:
        self.routes += [{"store": store, "prefix": prefix, "via": via, "interface": 7} for store in stores]

    def _set_marker(self, name: str, block: str) -> None:
        for vm in self.vms:
            if vm["name"] == name:
                other = re.sub(r"(?s)\s*\[vmproxy\].*?\[/vmproxy\]\s*", "", vm["notes"]).rstrip()
                vm["notes"] = f"{other}\r\n{block}" if other else block
