"""The cmdlets of each Windows version and the types of Hyper-V's objects, from the tables in data/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

MODULES = (
    "BitsTransfer",
    "CimCmdlets",
    "DISM",
    "DnsClient",
    "HostComputeService",
    "HostNetworkingService",
    "Hyper-V",
    "NetAdapter",
    "NetNat",
    "NetSecurity",
    "NetTCPIP",
    "ScheduledTasks",
    "ServerManager",
)
"""Those whose cmdlets the emulator makes; the language's own come with the stand-in."""
_YOUNG = {"HostNetworkingService": "2019"}
"""Modules, and the first version that came with them."""
_LATER = {("2016", "Set-VM", "AutomaticCheckpointsEnabled")}
"""In the documents of a version that does not have them: the first module with it came after Server 2016."""


@dataclass(frozen=True)
class Parameter:
    """`sets` are the parameter sets it belongs to and whether it is mandatory there; "" is every set."""

    name: str
    type: str
    sets: Mapping[str, bool]
    aliases: tuple[str, ...] = ()
    position: int | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cmdlet:
    """`sets` in the order of the documents: the first is the default; empty for one without names."""

    name: str
    module: str
    parameters: Mapping[str, Parameter]
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Types:
    """Hyper-V's enums (member and number) and classes (property and type)."""

    enums: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def data() -> Path:
    return Path(__file__).parent / "data"


@cache
def types() -> Types:
    read = json.loads((data() / "hyperv_types.json").read_text())
    return Types(read["enums"], read["classes"])


@cache
def cmdlets(version: str) -> Mapping[str, Cmdlet]:
    """Every cmdlet that a Windows version has, by name."""
    read = json.loads((data() / "cmdlets.json").read_text())
    found = (
        _cmdlet(version, module, name, docsets)
        for module in MODULES
        for name, docsets in read[module].items()
    )
    return {cmdlet.name: cmdlet for cmdlet in found if cmdlet is not None}


def _cmdlet(version: str, module: str, name: str, docsets: Mapping[str, Any]) -> Cmdlet | None:
    entry = _entry(version, module, docsets)
    if entry is None or version < _YOUNG.get(module, version):
        return None
    parameters = {
        key: _parameter(key, value)
        for key, value in entry["parameters"].items()
        if (version, name, key) not in _LATER
    }
    return Cmdlet(name, module, parameters, tuple(entry.get("sets", ())))


def _entry(version: str, module: str, docsets: Mapping[str, Any]) -> Any:
    """The version's own page, what it is the same as, or another source that tells of it."""
    for docset in (f"winserver{version}-ps", "ps-5.1", *_ELSEWHERE.get(module, ())):
        if docset in docsets:
            entry = docsets[docset]
            return docsets[entry["same_as"]] if "same_as" in entry else entry
    return None


_ELSEWHERE = {
    "Hyper-V": ("module-stub",),  # cmdlets without a page, seen in the module itself
    "HostNetworkingService": ("winserver2025-ps",),  # documented there only, shipped before
    "ServerManager": ("winserver2022-ps",),
}


_UNSAID = {
    "RecordType": ("A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV"),
}
"""Values of enums that the documents do not list: those that are emulated."""


def _parameter(name: str, entry: Mapping[str, Any]) -> Parameter:
    sets = entry.get("sets") or {"": bool(entry["required"])}
    if name == "ResourceUri":
        # The documents call it mandatory beside -Query and -InputObject too, where it never was.
        sets = {one: needed and one.startswith("ResourceUri") for one, needed in sets.items()}
    return Parameter(
        name,
        entry["type"],
        sets,
        tuple(entry.get("aliases", ())),
        entry.get("position"),
        tuple(entry.get("values", ())) or _UNSAID.get(entry["type"], ()),
    )
