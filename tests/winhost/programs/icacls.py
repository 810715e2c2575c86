"""icacls.exe: access rules of files and folders, in the store that Get-Acl and Set-Acl use."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.winhost.programs.paths import Refused, local, windows
from tests.winhost.system.stores import Store

_RIGHTS = {
    "F": "FullControl",
    "M": "Modify, Synchronize",
    "RX": "ReadAndExecute, Synchronize",
    "R": "Read, Synchronize",
    "W": "Write, Synchronize",
}
_SIDS = {
    "S-1-5-18": r"NT AUTHORITY\SYSTEM",
    "S-1-5-32-544": r"BUILTIN\Administrators",
    "S-1-5-32-545": r"BUILTIN\Users",
    "S-1-3-0": "CREATOR OWNER",
}
_NAMES = {
    "SYSTEM": r"NT AUTHORITY\SYSTEM",
    "ADMINISTRATORS": r"BUILTIN\Administrators",
    "USERS": r"BUILTIN\Users",
}
_FLAGS = {"OI": "ObjectInherit", "CI": "ContainerInherit"}
_SPREAD = {"IO": "InheritOnly", "NP": "NoPropagateInherit"}


def run(arguments: Sequence[str]) -> str:
    if not arguments:
        raise Refused("not emulated: icacls without a path", 87)
    target = local(arguments[0])
    if not target.exists():
        raise Refused(f"{arguments[0]}: The system cannot find the file specified.", 2)
    if len(arguments) == 1:
        raise Refused("not emulated: icacls that shows rules; ask Get-Acl", 87)
    key = windows(target)
    with Store(Path(os.environ["WINPS_ACLS"])).change() as content:
        entry = content.setdefault(_same(content, key), _fresh())
        _apply(entry, list(arguments[1:]))
    return f"processed file: {arguments[0]}\nSuccessfully processed 1 files; Failed processing 0 files\n"


def _apply(entry: dict[str, Any], waiting: list[str]) -> None:
    while waiting:
        option = waiting.pop(0).lower()
        if option in ("/q", "/c"):
            continue
        if option in ("/inheritance:r", "/inheritance:e"):
            entry["protected"] = option.endswith("r")
        elif option in ("/grant", "/grant:r"):
            _grants(entry, _values(waiting), replaces=option.endswith(":r"))
        elif option in ("/remove", "/remove:g"):
            gone = {_identity(one) for one in _values(waiting)}
            entry["rules"] = [one for one in entry["rules"] if one["identity"] not in gone]
        else:
            raise Refused(f'Invalid parameter "{option}"', 87)


def _grants(entry: dict[str, Any], granted: Sequence[str], *, replaces: bool) -> None:
    for one in granted:
        who, _, what = one.rpartition(":")
        identity = _identity(who)
        if replaces:
            entry["rules"] = [rule for rule in entry["rules"] if rule["identity"] != identity]
        entry["rules"].append(_rule(identity, what, one))


def _rule(identity: str, what: str, said: str) -> dict[str, Any]:
    marks = re.findall(r"\((\w+)\)", what)
    letters = re.sub(r"\(\w+\)", "", what) or (marks.pop() if marks else "")
    unknown = [one for one in marks if one not in _FLAGS and one not in _SPREAD]
    if letters not in _RIGHTS or unknown:
        raise Refused(f'Invalid parameter "{said}"', 87)
    return {
        "identity": identity,
        "rights": _RIGHTS[letters],
        "type": "Allow",
        "inheritance": ", ".join(_FLAGS[one] for one in marks if one in _FLAGS) or "None",
        "propagation": ", ".join(_SPREAD[one] for one in marks if one in _SPREAD) or "None",
    }


def _values(waiting: list[str]) -> list[str]:
    found = []
    while waiting and not waiting[0].startswith("/"):
        found.append(waiting.pop(0))
    if not found:
        raise Refused("Invalid parameter", 87)
    return found


def _identity(name: str) -> str:
    if name.startswith("*"):
        known = _SIDS.get(name[1:])
    else:
        known = name if "\\" in name else _NAMES.get(name.upper())
    if known is None:
        raise Refused(f"{name}: No mapping between account names and security IDs was done.", 1332)
    return known


def _fresh() -> dict[str, Any]:
    owner = r"BUILTIN\Administrators"
    return {"owner": owner, "group": owner, "protected": False, "rules": []}


def _same(content: dict[str, Any], key: str) -> str:
    return next((one for one in content if one.lower() == key.lower()), key)
