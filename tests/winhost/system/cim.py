"""Get-CimInstance and Get-CimAssociatedInstance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.winhost.engine import Call, CmdletError, Item, Ref, emulates, not_emulated
from tests.winhost.net.cim import item, refuse
from tests.winhost.state import Host
from tests.winhost.system import wql
from tests.winhost.system.classes import CLASSES, ELSEWHERE, GROUPS, group_name
from tests.winhost.system.state import System
from tests.winhost.values import Typed

NAMESPACE = "root/cimv2"
_OTHERS = {"root/standardcimv2", "root/virtualization/v2", "root/default", "root/wmi", "root"}
_UNUSED = ("CimSession", "ResourceUri", "Shallow", "OperationTimeoutSec")


@emulates("Get-CimInstance")
def get_cim_instance(host: Host, call: Call) -> Iterator[Item]:
    refuse(call, *_UNUSED)
    _local(host, call)
    if call.has("InputObject"):
        yield _again(host, call.get("InputObject"))
        return
    query = _query(call)
    name, rows = _rows(host, call, query.name)
    for row in rows:
        if _tested(query, row, call):
            yield _item(host, name, row, _wanted(call, query, row))


@emulates("Get-CimAssociatedInstance")
def get_cim_associated_instance(host: Host, call: Call) -> Iterator[Item]:
    """The members of a group, and the groups of an account."""
    refuse(call, *_UNUSED, "KeyOnly")
    _local(host, call)
    start = call.get("InputObject")
    name, _, key = start.id.partition("|") if isinstance(start, Ref) else ("", "", "")
    pairs = {"Win32_Group": "Win32_UserAccount", "Win32_UserAccount": "Win32_Group"}
    result = str(call.get("ResultClassName", pairs.get(name, "")))
    association = str(call.get("Association", "Win32_GroupUser"))
    if pairs.get(name) != result or association.lower() != "win32_groupuser":
        raise not_emulated(f"Get-CimAssociatedInstance of {name} by {association} to {result}")
    for row in CLASSES[result](host):
        group, account = (key, row["Name"]) if name == "Win32_Group" else (row["Name"], key)
        if _is_member(host, account, group):
            yield _item(host, result, row, None)


def _query(call: Call) -> wql.Query:
    text = call.get("Query")
    try:
        if text is not None:
            if str(call.get("QueryDialect", "WQL")).upper() != "WQL":
                raise not_emulated(f"the query dialect {call.get('QueryDialect')}")
            return wql.select(str(text))
        condition = call.get("Filter")
        test = wql.condition(str(condition)) if condition is not None else lambda row: True
        return wql.Query(str(call.get("ClassName")), (), test)
    except wql.InvalidQuery as exc:
        raise _invalid_query() from exc
    except wql.Elsewhere as exc:
        raise not_emulated(f"the query {exc}") from exc


def _tested(query: wql.Query, row: Mapping[str, Any], call: Call) -> bool:
    plain = {name: value.value if isinstance(value, Typed) else value for name, value in row.items()}
    try:
        return query.test(plain)
    except wql.InvalidQuery as exc:
        raise _invalid_query() from exc


def _rows(host: Host, call: Call, name: str) -> tuple[str, list[Mapping[str, Any]]]:
    where = str(call.get("Namespace", NAMESPACE)).replace("\\", "/").strip("/").lower()
    if where in _OTHERS:
        raise not_emulated(f"the WMI namespace {where}")
    if where != NAMESPACE:
        raise _error("Invalid namespace ", "0x8004100e", f"{where}:{name}")
    for known, rows in CLASSES.items():
        if known.lower() == name.lower():
            return known, list(rows(host))
    if name.lower() in {one.lower() for one in ELSEWHERE}:
        raise not_emulated(f"the WMI class {name}")
    raise _error("Invalid class ", "0x80041010", f"root\\cimv2:{name}")


def _wanted(call: Call, query: wql.Query, row: Mapping[str, Any]) -> Sequence[str] | None:
    """The properties that are filled; None: all."""
    if call.switch("KeyOnly"):
        return [next(iter(row))]
    asked = [str(one) for one in call.list("Property")] or list(query.properties)
    unknown = [one for one in asked if one.lower() not in {name.lower() for name in row} and one != "*"]
    if unknown:
        raise _invalid_query()
    return None if not asked or "*" in asked else asked


def _item(host: Host, name: str, row: Mapping[str, Any], wanted: Sequence[str] | None) -> Item:
    names = None if wanted is None else {one.lower() for one in wanted}
    shown = {key: value if names is None or key.lower() in names else None for key, value in row.items()}
    return item(name, f"{name}|{_key(row)}", {**shown, "PSComputerName": None}, namespace=NAMESPACE)


def _again(host: Host, ref: object) -> Item:
    """The instance as it is now."""
    if not isinstance(ref, Ref) or (name := ref.id.partition("|")[0]) not in CLASSES:
        raise not_emulated(f"Get-CimInstance of {ref}")
    for row in CLASSES[name](host):
        if f"{name}|{_key(row)}" == ref.id:
            return _item(host, name, row, None)
    raise _error("Not found ", "0x80041002", ref.id, "ObjectNotFound")


def _key(row: Mapping[str, Any]) -> str:
    return str(row.get("Handle") or row.get("DeviceID") or row["Name"])


def _is_member(host: Host, account: str, group: str) -> bool:
    found = next((one for one in host.part(System).accounts if one.name == account), None)
    english = next((one for one in GROUPS if group_name(host, one) == group), group)
    return found is not None and english in found.groups


def _local(host: Host, call: Call) -> None:
    for name in call.list("ComputerName"):
        if str(name).lower() not in (".", "localhost", host.name.lower()):
            raise not_emulated(f"{call.cmdlet} -ComputerName {name}")


def _invalid_query() -> CmdletError:
    return _error("Invalid query ", "0x80041017", None, "InvalidArgument")


def _error(message: str, code: str, target: str | None, category: str = "MetadataError") -> CmdletError:
    return CmdletError(
        message,
        exception="Microsoft.Management.Infrastructure.CimException",
        error_id=f"HRESULT {code}",
        category=category,
        target=target,
        terminating=False,
    )
