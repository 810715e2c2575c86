"""HNS's answers: what it keeps as the first version's JSON, as Get-Hns… shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from tests.winhost.hns.schema import Network, PolicyList
from tests.winhost.hns.store import Kept, Store, store
from tests.winhost.state import Host

_HEALTH = {"LastErrorCode": 0, "LastUpdateTime": 133820466000000000}
_VERSION = 64424509440
_EXTENSIONS = (
    ("E7C3B2F0-F3C5-48DF-AF2B-10FED6D72E7A", "Microsoft Windows Filtering Platform", False),
    ("F74F241B-440F-4433-BB28-00F89EAD20D8", "Microsoft Azure VFP Switch Filter Extension", True),
    ("430BDADD-BAB0-41AB-A369-94B67FA5BE0A", "Microsoft NDIS Capture", True),
)
_CREATED, _ATTACHED = 1, 3
"""An endpoint's State."""


def network_content(host: Host, about: Network) -> dict[str, Any]:
    there = list(store(host).of_network(about.ID))
    optional = {
        "NetworkAdapterName": about.NetworkAdapterName,
        "SourceMac": about.SourceMac,
        "DNSSuffix": about.DNSSuffix,
        "DNSServerList": about.DNSServerList,
        "ManagementIP": about.ManagementIP,
    }
    return {
        **_common(about.ID),
        "CurrentEndpointCount": len(there),
        "Extensions": [{"Id": key, "IsEnabled": on, "Name": name} for key, name, on in _EXTENSIONS],
        "Flags": 0,
        "IPv6": about.IPv6,
        "MacPools": [one.model_dump() for one in about.MacPools],
        "MaxConcurrentEndpoints": len(there),
        "Name": about.Name,
        "Policies": about.Policies,
        "State": 1,
        "Subnets": [_subnet(one.model_dump()) for one in about.Subnets],
        "TotalEndpoints": len(there),
        "Type": about.Type,
        **{name: value for name, value in optional.items() if value},
    }


def endpoint_content(part: Store, kept: Kept) -> dict[str, Any]:
    """Fields without a value are not there."""
    about = kept.about
    told = about.model_dump(exclude_none=True, exclude_defaults=True, exclude={"Policies", "Routes"})
    ours = kept.wired.container if kept.wired else ""
    return {
        **_common(about.ID),
        **told,
        "Policies": [_policy(part, one) for one in kept.given],
        "SharedContainers": [ours] if ours else [],
        "State": _ATTACHED if kept.wired else _CREATED,
    }


def policy_list_content(about: PolicyList) -> dict[str, Any]:
    return {**_common(about.ID), "Policies": about.Policies, "References": about.References, "State": 2}


def namespaces(part: Store) -> list[dict[str, Any]]:
    """The host's own, and one for each container."""
    every = [("910F7D92-BA2D-4C3F-98AE-7C0AC590D2DC", "")]
    wired = [one.wired for one in part.endpoints.values() if one.wired and one.wired.container]
    every += [(str(uuid5(NAMESPACE_OID, one.namespace)).upper(), one.container) for one in wired]
    return [
        {
            **_common(number),
            "CompartmentId": place,
            "Containers": [container] if container else [],
            "Flags": 0,
            "IsDefault": not container,
            "Policies": [],
            "State": 1,
        }
        for place, (number, container) in enumerate(every, start=1)
    ]


def _policy(part: Store, given: Mapping[str, Any]) -> dict[str, Any]:
    """HCN's in the first version's form, where that is what is shown."""
    settings = given.get("Settings")
    if part.shown == "second" or settings is None:
        return dict(given)
    names = {"VirtualIP": "VIP", "Exceptions": "ExceptionList"} if given["Type"] == "OutBoundNAT" else {}
    kind = "ROUTE" if given["Type"] == "SDNRoute" else given["Type"]
    return {"Type": kind, **{names.get(key, key): value for key, value in settings.items()}}


def _common(number: str) -> dict[str, Any]:
    return {
        "ActivityId": number[:24] + "0C0DE0000001",
        "AdditionalParams": {},
        "Health": dict(_HEALTH),
        "ID": number,
        "Version": _VERSION,
    }


def _subnet(told: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in told.items() if value is not None}
    return {"AdditionalParams": {}, "Flags": 0, "Health": dict(_HEALTH), "ObjectType": 5, **known, "State": 0}
