"""Get-Hns…: HNS's JSON as objects. Those that remove are not emulated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tests.winhost.engine import Call, CmdletError, Item, emulates
from tests.winhost.hns.calls import hns_call
from tests.winhost.hns.store import Container, Store, store
from tests.winhost.state import Host

_OBJECT = "System.Management.Automation.PSCustomObject"
_KINDS = {
    "get-hnsnetwork": "networks",
    "get-hnsendpoint": "endpoints",
    "get-hnspolicylist": "policylists",
    "get-hnsnamespace": "namespaces",
}


@emulates("Get-HnsNetwork", "Get-HnsEndpoint", "Get-HnsPolicyList", "Get-HnsNamespace")
def get_hns(host: Host, call: Call) -> Iterator[Item]:
    """With -Detailed the same: what more Windows tells then is not known."""
    if host.services.get("hns") != "Running":
        raise _failed("There are no more endpoints available from the endpoint mapper.", 0x6D9)
    asked = str(call.get("Id") or "")
    answer = json.loads(hns_call(host, "GET", f"/{_KINDS[call.cmdlet.lower()]}/{asked}"))
    if not answer["Success"]:
        raise _failed("Element not found.", 0x490)
    output = answer["Output"]
    yield from (_object(one["ID"], one) for one in (output if isinstance(output, list) else [output]))


@emulates("containers")
def containers(host: Host, call: Call) -> Iterator[str]:
    """For crictl.exe and docker.exe: what a runtime runs, as JSON."""
    part = store(host)
    found = [one for one in part.containers.values() if one.runtime == call.get("Runtime")]
    yield json.dumps([_told(part, one) for one in found])


def _told(part: Store, one: Container) -> dict[str, Any]:
    network = part.endpoint(one.endpoint).about.VirtualNetworkName
    return {**asdict(one), "programs": sorted(one.programs), "network": network}


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
