"""Values of .NET's types on their way to PowerShell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ref:
    """An object of ours that came back as an argument."""

    type: str
    id: str


@dataclass(frozen=True)
class Item:
    """An object that goes out; `type` is its .NET type, or "…CimInstance#namespace/class"."""

    type: str
    id: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Typed:
    """A value with a .NET type; `type` is the short name of the wrapper."""

    type: str
    value: Any


def Enum(kind: str, name: str) -> Typed:
    """A member of an enum of the Hyper-V module, or of a full .NET name."""
    return Typed(f"enum:{kind}", name)


def CimEnum(number: int, text: str) -> Typed:
    """CIM's raw number, with a ScriptProperty of the friendly text."""
    return Typed("cimenum", [number, text])


def Guid(text: str) -> Typed:
    return Typed("guid", text)


def Byte(number: int) -> Typed:
    return Typed("byte", number)


def UInt16(number: int) -> Typed:
    return Typed("uint16", number)


def UInt32(number: int) -> Typed:
    return Typed("uint32", number)


def UInt64(number: int) -> Typed:
    return Typed("uint64", number)


def Int64(number: int) -> Typed:
    return Typed("int64", number)


def TimeSpan(seconds: float) -> Typed:
    return Typed("timespan", seconds)


def DateTime(iso: str) -> Typed:
    return Typed("datetime", iso)


def Version(text: str) -> Typed:
    return Typed("version", text)


def encoded(value: Any) -> Any:
    """As JSON that the bridge reads: plain values as they are, the others as `{"$": kind, …}`."""
    if isinstance(value, Item):
        properties = {name: encoded(one) for name, one in value.properties.items()}
        return {"$": "item", "type": value.type, "id": value.id, "properties": properties}
    if isinstance(value, Typed):
        return {"$": value.type, "value": value.value}
    if isinstance(value, list | tuple):
        return {"$": "list", "value": [encoded(one) for one in value]}
    if isinstance(value, Mapping):
        return {"$": "table", "value": {str(name): encoded(one) for name, one in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} has no type of PowerShell's")
