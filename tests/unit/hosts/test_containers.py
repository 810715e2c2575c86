"""What HNS shows of containers, as both versions of its interface write it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from vmproxy.hosts.hyperv.containers import seen
from vmproxy.model.seen import AccessRule, ContainersSeen
from vmproxy.site.model import Containers

ASKED = Containers.model_validate({"network": "cbr0", "subnet": "10.244.9.0/24"})
LAN = ip_network("192.168.10.0/24")
V1 = [
    {"Type": "OutBoundNAT", "ExceptionList": ["10.244.0.0/16", "10.96.0.0/16"]},
    {"Type": "ROUTE", "DestinationPrefix": "10.96.0.0/16", "NeedEncap": True},
    {"Type": "ROUTE", "DestinationPrefix": "10.99.0.0/16", "NeedEncap": False},
    {"Type": "L2Driver"},
    {"Type": "ACL", "Action": "Block", "Direction": "Out", "RemoteAddresses": "10.244.9.0/24,192.168.10.10"},
]
V2 = [
    {"Type": "OutBoundNAT", "Settings": {"Exceptions": ["10.244.0.0/16", "10.96.0.0/16"]}},
    {"Type": "SDNRoute", "Settings": {"DestinationPrefix": "10.96.0.0/16", "NeedEncap": True}},
    {
        "Type": "ACL",
        "Settings": {
            "Action": "Block",
            "Direction": "Out",
            "RemoteAddresses": "10.244.9.0/24,192.168.10.10",
        },
    },
]


def facts(policies: object = None, **changes: object) -> dict[str, Any]:
    endpoint = {
        "name": "web-1_cbr0",
        "address": "10.244.9.10",
        "gateway": "10.244.9.2",
        "remote": False,
        "policies": policies,
    }
    subnet = {"prefix": "10.244.9.0/24", "gateway": "10.244.9.1"}
    return {
        "networks": {"items": {"name": "cbr0", "type": "L2Bridge", "subnets": subnet}},
        "endpoints": [endpoint, {**endpoint, "name": "cbr0_ep", "address": "10.244.9.2"}],
        "interfaces": [
            {"alias": "vEthernet (LAN)", "forwarding": "Enabled", "addresses": "192.168.10.10"},
            {"alias": "vEthernet (cbr0_ep)", "forwarding": "Disabled", "addresses": ["10.244.9.2"]},
            {"alias": "Loopback", "forwarding": "Disabled", "addresses": ["127.0.0.1"]},
        ],
        "rivals": [],
        **changes,
    }


def look(found: dict[str, Any]) -> ContainersSeen:
    return seen(found, ASKED, LAN)


@pytest.mark.parametrize("policies", [V1, V2])
def test_the_policies_of_an_endpoint_are_read_in_both_forms(policies: object) -> None:
    (endpoint,) = look(facts(policies)).endpoints
    assert endpoint.encapsulated == (ip_network("10.96.0.0/16"),)
    assert endpoint.exceptions == (ip_network("10.244.0.0/16"), ip_network("10.96.0.0/16"))
    assert endpoint.rules == (
        AccessRule("block", "out", (ip_network("10.244.9.0/24"), ip_network("192.168.10.10/32"))),
    )


def test_an_endpoint_without_policies_has_none() -> None:
    (endpoint,) = look(facts()).endpoints
    assert (endpoint.encapsulated, endpoint.exceptions, endpoint.rules) == ((), None, ())
    assert endpoint.gateway == ip_address("10.244.9.2")


@pytest.mark.parametrize(
    ("gateway", "gateways"),
    [
        ("10.244.9.1", {ip_network("10.244.9.0/24"): ip_address("10.244.9.1")}),
        ("", {}),
        ("0.0.0.0", {}),
    ],
)
def test_the_gateway_of_a_network_is_read_where_it_has_one(gateway: str, gateways: object) -> None:
    found = facts()
    found["networks"]["items"]["subnets"]["gateway"] = gateway
    (network,) = look(found).networks or ()
    assert network.subnets == (ip_network("10.244.9.0/24"),)
    assert network.gateways == gateways


def test_the_interfaces_are_those_between_the_containers_and_the_vm() -> None:
    assert [(item.alias, item.forwards) for item in look(facts()).interfaces] == [
        ("vEthernet (LAN)", True),
        ("vEthernet (cbr0_ep)", False),
    ]


def test_hns_that_is_not_there_is_not_a_host_without_networks() -> None:
    assert look(facts(networks=None)).networks is None
    assert look(facts(networks={"items": []})).networks == ()


def test_a_native_kube_proxy_is_named() -> None:
    assert look(facts(rivals="kube-proxy.exe")).rival == "kube-proxy.exe"


@pytest.mark.parametrize("change", [{"address": ""}, {"remote": True}])
def test_what_is_no_container_of_this_host_is_left_out(change: dict[str, object]) -> None:
    found = facts()
    found["endpoints"] = [{**found["endpoints"][0], **change}]
    assert look(found).endpoints == ()
