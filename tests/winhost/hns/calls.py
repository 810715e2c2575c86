"""HNSCall: the one way in which HNS is asked and changed, as vmcompute.dll offers it; JSON in, JSON out."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from tests.winhost.hns import filtering, nat, schema, wiring
from tests.winhost.hns.errors import (
    ALREADY_ATTACHED,
    ELEMENT_NOT_FOUND,
    INVALID_IP,
    INVALID_JSON,
    INVALID_POLICY,
    NETWORK_EXISTS,
    RESERVED_IP,
    UNSUPPORTED,
    HnsError,
)
from tests.winhost.hns.shown import endpoint_content, namespaces, network_content, policy_list_content
from tests.winhost.hns.store import Kept, Store, short, store
from tests.winhost.net.kernel import Refused
from tests.winhost.state import Host

Content = dict[str, Any]


def hns_call(host: Host, method: str, path: str, request: str = "") -> str:
    """The answer: `{"Success": true, "Output": …}`, or `{"Success": false, "Error": …, "ErrorCode": …}`.

    `path` is /networks, /endpoints, /policylists or /namespaces, then an ID, then attach or detach. A
    document of HCN's is known by its SchemaVersion. Raises CmdletError for what is not emulated."""
    with host.lock:
        try:
            output = _answer(host, method.upper(), path.strip("/").split("/"), request)
        except HnsError as exc:
            return json.dumps({"Success": False, "Error": exc.message, "ErrorCode": exc.code})
        return json.dumps({"Success": True, "Output": output})


def _answer(host: Host, method: str, path: list[str], request: str) -> Any:
    kind, number, action = (*path, "", "")[:3]
    document = _document(request) if method == "POST" else {}
    answer = _ANSWERS.get((method, kind, bool(number), action))
    if answer is None:
        raise HnsError(UNSUPPORTED)
    return answer(host, number.upper(), document)


def _document(request: str) -> Mapping[str, Any]:
    try:
        document = json.loads(request)
    except ValueError as exc:
        raise HnsError(INVALID_JSON) from exc
    if not isinstance(document, dict):
        raise HnsError(INVALID_JSON)
    return document


def _new_network(host: Host, _: str, document: Mapping[str, Any]) -> Content:
    part, asked = store(host), schema.network(document)
    if any(one.Name.lower() == asked.Name.lower() for one in part.networks.values()):
        raise HnsError(NETWORK_EXISTS)
    if asked.Type.lower() in ("l2bridge", "transparent", "l2tunnel", "overlay"):
        wiring.bridge(host, asked)
        asked = asked.model_copy(update={"ManagementIP": wiring.management_address(host)})
    number = (asked.ID or str(uuid4())).upper()
    part.networks[number] = asked.model_copy(update={"ID": number})
    if asked.Type.lower() == "nat":
        nat.start(host, part.networks[number])
    return network_content(host, part.networks[number])


def _remove_network(host: Host, number: str, _: Mapping[str, Any]) -> Content:
    """Its endpoints go with it."""
    part = store(host)
    content = network_content(host, part.network(number))
    for one in list(part.of_network(number)):
        _remove_endpoint(host, one.about.ID, {})
    if part.networks[number].Type.lower() == "nat":
        nat.stop(host, part.networks[number])
    del part.networks[number]
    return content


def _new_endpoint(host: Host, _: str, document: Mapping[str, Any]) -> Content:
    part, asked, second = store(host), schema.endpoint(document), schema.is_second(document)
    about = part.network(asked.VirtualNetwork)
    understood = [schema.policy(one, second=second) for one in asked.Policies]
    number = (asked.ID or str(uuid4())).upper()
    known = {
        "ID": number,
        "VirtualNetwork": about.ID,
        "VirtualNetworkName": about.Name,
        "MacAddress": asked.MacAddress or _mac(number),
        **_place(part, about, asked),
    }
    kept = Kept(asked.model_copy(update=known), list(asked.Policies), understood, second)
    part.endpoints[number] = kept
    return endpoint_content(part, kept)


def _place(part: Store, about: schema.Network, asked: schema.Endpoint) -> dict[str, Any]:
    """Its address and the length of its prefix: the one that was asked for, else the next that is free."""
    if not about.Subnets:
        return {}
    subnets = [ipaddress.IPv4Network(one.AddressPrefix) for one in about.Subnets]
    taken = {one.about.IPAddress for one in part.of_network(about.ID)}
    taken |= {one.GatewayAddress for one in about.Subnets}
    if asked.IPAddress is None:
        free = (str(one) for one in subnets[0].hosts() if str(one) not in taken)
        asked = asked.model_copy(update={"IPAddress": next(free)})
    inside = [one for one in subnets if ipaddress.ip_address(str(asked.IPAddress)) in one]
    if not inside or (asked.IPAddress in taken and not asked.IsRemoteEndpoint):
        raise HnsError(RESERVED_IP)
    return {"IPAddress": asked.IPAddress, "PrefixLength": asked.PrefixLength or inside[0].prefixlen}


def _mac(number: str) -> str:
    digits = short(number, 6).upper()
    return f"00-15-5D-{digits[:2]}-{digits[2:4]}-{digits[4:]}"


def _change_endpoint(host: Host, number: str, document: Mapping[str, Any]) -> Content:
    """New policies, in the place of all that it had."""
    part = store(host)
    kept = part.endpoint(number)
    given = document.get("Policies")
    if not isinstance(given, list) or set(document) - set(schema.Endpoint.model_fields):
        raise HnsError(INVALID_POLICY)
    understood = [schema.policy(one, second="Settings" in one) for one in given]
    kept.given, kept.policies = given, understood
    filtering.apply(host)
    return endpoint_content(part, kept)


def _remove_endpoint(host: Host, number: str, _: Mapping[str, Any]) -> Content:
    part = store(host)
    kept = part.endpoint(number)
    content = endpoint_content(part, kept)
    wiring.detach(host, kept)
    del part.endpoints[number]
    filtering.apply(host)
    return content


def _attach(host: Host, number: str, document: Mapping[str, Any]) -> Content:
    part, asked = store(host), schema.read(schema.Attach, document)
    kept = part.endpoint(number)
    about = part.network(kept.about.VirtualNetwork)
    if kept.wired is not None:
        raise HnsError(ALREADY_ATTACHED)
    if kept.about.IsRemoteEndpoint or asked.SystemType == "VirtualMachine":
        raise HnsError(UNSUPPORTED)
    try:
        if asked.SystemType == "Host":
            wiring.attach_host(host, about, kept)
        else:
            wiring.attach_container(host, about, kept, asked.ContainerId)
    except Refused as exc:
        wiring.detach(host, kept)
        raise HnsError(INVALID_IP, exc.reason) from exc
    filtering.apply(host)
    return {}


def _detach(host: Host, number: str, document: Mapping[str, Any]) -> Content:
    schema.read(schema.Attach, document)
    kept = store(host).endpoint(number)
    if kept.wired is None:
        raise HnsError(ELEMENT_NOT_FOUND)
    wiring.detach(host, kept)
    filtering.apply(host)
    return {}


def _new_list(host: Host, _: str, document: Mapping[str, Any]) -> Content:
    part, asked = store(host), schema.read(schema.PolicyList, document)
    for one in asked.References:
        part.endpoint(one.rpartition("/")[2])
    number = (asked.ID or str(uuid4())).upper()
    part.policy_lists[number] = asked.model_copy(update={"ID": number})
    return policy_list_content(part.policy_lists[number])


def _remove_list(host: Host, number: str, _: Mapping[str, Any]) -> Content:
    found = store(host).policy_lists.pop(number, None)
    if found is None:
        raise HnsError(ELEMENT_NOT_FOUND)
    return policy_list_content(found)


def _networks(host: Host, number: str, _: Mapping[str, Any]) -> Any:
    part = store(host)
    if number:
        return network_content(host, part.network(number))
    return [network_content(host, one) for one in part.networks.values()]


def _endpoints(host: Host, number: str, _: Mapping[str, Any]) -> Any:
    part = store(host)
    if number:
        return endpoint_content(part, part.endpoint(number))
    return [endpoint_content(part, one) for one in part.endpoints.values()]


def _lists(host: Host, number: str, _: Mapping[str, Any]) -> Any:
    found = store(host).policy_lists
    if not number:
        return [policy_list_content(one) for one in found.values()]
    if number not in found:
        raise HnsError(ELEMENT_NOT_FOUND)
    return policy_list_content(found[number])


def _namespaces(host: Host, number: str, _: Mapping[str, Any]) -> Any:
    found = namespaces(store(host))
    if not number:
        return found
    chosen = [one for one in found if one["ID"] == number]
    if not chosen:
        raise HnsError(ELEMENT_NOT_FOUND)
    return chosen[0]


Answer = Callable[[Host, str, Mapping[str, Any]], Any]
_ANSWERS: Mapping[tuple[str, str, bool, str], Answer] = {
    ("GET", "networks", False, ""): _networks,
    ("GET", "networks", True, ""): _networks,
    ("POST", "networks", False, ""): _new_network,
    ("DELETE", "networks", True, ""): _remove_network,
    ("GET", "endpoints", False, ""): _endpoints,
    ("GET", "endpoints", True, ""): _endpoints,
    ("POST", "endpoints", False, ""): _new_endpoint,
    ("POST", "endpoints", True, ""): _change_endpoint,
    ("DELETE", "endpoints", True, ""): _remove_endpoint,
    ("POST", "endpoints", True, "attach"): _attach,
    ("POST", "endpoints", True, "detach"): _detach,
    ("GET", "policylists", False, ""): _lists,
    ("GET", "policylists", True, ""): _lists,
    ("GET", "namespaces", False, ""): _namespaces,
    ("GET", "namespaces", True, ""): _namespaces,
    ("POST", "policylists", False, ""): _new_list,
    ("DELETE", "policylists", True, ""): _remove_list,
}
