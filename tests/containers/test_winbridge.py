"""The CNI configuration, read by win-bridge's and host-local's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.containers import winbridge
from tests.unit.containers.test_cni import NETWORK
from vmproxy.containers import cni

pytestmark = pytest.mark.xdist_group("winbridge")
DSR = ("OutBoundNAT", {"Destinations": ["10.244.9.3"]})
"""What win-bridge adds by itself for a container's connections to its own Service."""
Reader = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    program = winbridge.build(tmp_path_factory.mktemp("winbridge"))
    return lambda conflist: winbridge.read(program, conflist)


def test_the_reader_and_the_plugin_compile_for_windows_from_unchanged_packages(tmp_path: Path) -> None:
    winbridge.compile_for_windows(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "plugincheck.exe",
        "win-bridge.exe",
        "host-local.exe",
    }


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("gateway", ["host", "vm"])
@pytest.mark.parametrize("api", ["v1", "v2"])
def test_each_policy_reaches_hns_as_it_was_written(
    read: Reader, api: str, gateway: str, isolate: bool
) -> None:
    network = replace(NETWORK, api=api, gateway=gateway, isolate=isolate)
    seen = read(cni.conflist(network))
    added = [cni._form(network.api, *DSR)] if gateway == "host" else []
    assert seen["policies"] == cni.policies(network) + added
    assert seen["apiVersion"] == {"v1": 1, "v2": 2}[api]
    assert (seen["network"], seen["plugin"]) == ("cbr0", "win-bridge")


def test_the_containers_gateway_and_names_are_those_that_were_asked_for(read: Reader) -> None:
    seen = read(cni.conflist(NETWORK))
    assert seen["gateway"] == str(NETWORK.next_hop) == "10.244.9.2"
    assert (seen["servers"], seen["search"]) == (["10.96.0.10"], ["svc.cluster.local"])


@pytest.mark.parametrize("subnet", ["10.244.9.0/29", "10.244.9.128/26", "10.244.8.0/22"])
def test_host_local_hands_out_every_address_but_the_first_two(read: Reader, subnet: str) -> None:
    network = replace(NETWORK, subnet=IPv4Network(subnet))
    handed = [ip_address(text) for text in read(cni.conflist(network))["addresses"]]
    assert handed == list(network.subnet.hosts())[2:]


def test_a_network_whose_name_cni_refuses_is_refused_here_first(read: Reader) -> None:
    conflist = cni.conflist(NETWORK)
    with pytest.raises(winbridge.Refused, match="invalid characters found in network name"):
        read({**conflist, "name": "my network"})


def test_the_reader_sees_a_key_that_the_plugin_does_not_have(read: Reader) -> None:
    conflist = cni.conflist(NETWORK)
    conflist["plugins"][0]["gatewayAddress"] = "10.244.9.2"
    with pytest.raises(winbridge.Refused, match='unknown field "gatewayAddress"'):
        read(conflist)


@pytest.mark.parametrize(
    ("api", "policy", "message"),
    [
        ("v1", {"Type": "OutBoundNAT", "Exceptions": []}, 'unknown field "Exceptions"'),
        ("v1", {"Type": "SDNRoute"}, 'HNS has no policy "SDNRoute"'),
        ("v2", {"Type": "OutBoundNAT", "Settings": {"ExceptionList": []}}, 'unknown field "ExceptionList"'),
        ("v2", {"Type": "ROUTE", "Settings": {}}, 'HCN has no policy "ROUTE"'),
    ],
)
def test_the_reader_sees_the_other_apis_policies(
    read: Reader, api: str, policy: dict[str, Any], message: str
) -> None:
    conflist = cni.conflist(replace(NETWORK, api=api))
    conflist["plugins"][0]["policies"].append({"name": "EndpointPolicy", "value": policy})
    with pytest.raises(winbridge.Refused, match=message):
        read(conflist)
