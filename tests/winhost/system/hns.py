"""Get-HnsNetwork, Get-HnsEndpoint and Get-HnsPolicyList: HNS's JSON as objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.winhost.engine import Call, CmdletError, Item, emulates
from tests.winhost.state import Host
from tests.winhost.system.state import System

_OBJECT = "System.Management.Automation.PSCustomObject"


@emulates("Get-HnsNetwork", "Get-HnsEndpoint", "Get-HnsPolicyList")
def get_hns(host: Host, call: Call) -> Iterator[Item]:
    system = host.part(System)
    kinds = {"network": system.networks, "endpoint": system.endpoints, "policylist": system.policies}
    entries = kinds[call.cmdlet.lower().removeprefix("get-hns")]
    if host.services.get("hns") != "Running":
        raise _failed("There are no more endpoints available from the endpoint mapper.", 0x6D9)
    asked = call.get("Id")
    found = [one for one in entries if asked in (None, "") or one["ID"].lower() == str(asked).lower()]
    if asked and not found:
        raise _failed("Element not found.", 0x490)
    yield from (_object(one["ID"], one) for one in found)


def _failed(message: str, code: int) -> CmdletError:
    return CmdletError(
        message,
        exception="System.ComponentModel.Win32Exception",
        error_id=f"System.ComponentModel.Win32Exception,{code}",
        category="NotSpecified",
        terminating=False,
    )


def _object(key: str, content: Mapping[str, Any]) -> Item:
    return Item(_OBJECT, key, {name: _value(f"{key}.{name}", one) for name, one in content.items()})


def _value(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _object(key, value)
    if isinstance(value, list):
        return [_value(f"{key}.{at}", one) for at, one in enumerate(value)]
    return value
