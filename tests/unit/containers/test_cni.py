from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmproxy.containers import cni
from vmproxy.errors import UsageError

NETWORK = cni.ContainerNetwork(
    site="plant-a",
    host="win-01",
    name="cbr0",
    subnet=IPv4Network("10.244.9.0/24"),
    service_cidrs=(IPv4Network("10.96.0.0/16"),),
    pod_cidrs=(IPv4Network("10.244.0.0/16"),),
    lan=IPv4Network("192.168.10.0/24"),
    management=IPv4Address("192.168.10.10"),
    dns=cni.Dns((IPv4Address("10.96.0.10"),), ("svc.cluster.local",)),
)
VARIANTS = {
    "win-bridge-v2": NETWORK,
    "win-bridge-v1": replace(NETWORK, api="v1"),
    "win-bridge-v2-vm": replace(NETWORK, gateway="vm"),
    "win-bridge-v2-isolate": replace(NETWORK, isolate=True),
    "win-bridge-v1-isolate": replace(NETWORK, api="v1", isolate=True),
    "win-bridge-v1-vm": replace(NETWORK, api="v1", gateway="vm"),
    "win-bridge-v2-vm-isolate": replace(NETWORK, gateway="vm", isolate=True),
    "sdnbridge": replace(NETWORK, plugin="sdnbridge"),
    "sdnbridge-vm": replace(NETWORK, plugin="sdnbridge", gateway="vm"),
    "sdnbridge-vm-isolate": replace(NETWORK, plugin="sdnbridge", gateway="vm", isolate=True),
    "sdnbridge-isolate": replace(NETWORK, plugin="sdnbridge", isolate=True),
}
CASES = Path(__file__).parent / "conflists"


def plugin(network: cni.ContainerNetwork) -> dict[str, Any]:
    (only,) = cni.conflist(network)["plugins"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_is_the_expected_one(name: str) -> None:
    assert cni.text(VARIANTS[name]) == (CASES / f"{name}.json").read_text()


def test_every_expected_file_has_its_case() -> None:
    assert {path.stem for path in CASES.glob("*.json")} == set(VARIANTS)


@st.composite
def networks(draw: st.DrawFn) -> cni.ContainerNetwork:
    """Any that has no faults."""
    length = draw(st.integers(16, 29))
    subnet = IPv4Network((draw(st.integers(0, 2**16 - 1)) << 8 | 10 << 24, length), strict=False)
    services = st.integers(0, 255).map(lambda at: IPv4Network(f"172.{at}.0.0/16"))
    plugin = draw(st.sampled_from(("win-bridge", "sdnbridge")))
    return replace(
        NETWORK,
        subnet=subnet,
        service_cidrs=tuple(draw(st.lists(services, min_size=1, max_size=3, unique=True))),
        pod_cidrs=tuple(draw(st.sampled_from(((), (IPv4Network("10.0.0.0/8"),), NETWORK.pod_cidrs)))),
        gateway=draw(st.sampled_from(("host", "vm"))),
        plugin=plugin,
        api=draw(st.sampled_from(("v1", "v2"))) if plugin == "win-bridge" else "v2",
        isolate=draw(st.booleans()),
    )


@given(networks())
def test_no_range_hands_out_the_first_two_addresses(network: cni.ContainerNetwork) -> None:
    assert not list(cni.faults(network))
    given = plugin(network)["ipam"]
    if network.plugin == "sdnbridge":
        assert "type" not in given  # HNS hands them out
        return
    (((only,),),) = (given["ranges"],)
    start = IPv4Address(only["rangeStart"])
    assert start == network.subnet[3]
    assert start in network.subnet
    assert start < network.subnet.broadcast_address


@given(networks())
def test_the_gateway_is_the_second_address_whatever_the_plugin(network: cni.ContainerNetwork) -> None:
    given = plugin(network)["ipam"]
    told = given["routes"][0]["GW"] if network.plugin == "sdnbridge" else given["ranges"][0][0]["gateway"]
    assert IPv4Address(told) == network.subnet[2]


@given(networks())
def test_every_service_range_and_the_own_subnet_keep_the_containers_address(
    network: cni.ContainerNetwork,
) -> None:
    listed = cni.exceptions(network)
    assert set(network.service_cidrs) | {network.lan} <= set(listed)
    assert any(network.subnet.subnet_of(cidr) for cidr in listed)
    assert len(set(listed)) == len(listed)


@given(networks())
def test_a_service_range_is_led_into_the_host_exactly_if_the_host_is_the_gateway(
    network: cni.ContainerNetwork,
) -> None:
    text = json.dumps(cni.policies(network))
    led = set(re.findall(r'"DestinationPrefix": "([^"]+)", "NeedEncap": true', text))
    wanted = {str(cidr) for cidr in network.service_cidrs} | {"192.168.10.10/32"}
    assert led == (wanted if network.gateway == "host" else set())
    assert ("OutBoundNAT" in text) == (network.gateway == "host")


@given(networks())
def test_isolation_leaves_the_gateway_and_services_open(network: cni.ContainerNetwork) -> None:
    v2 = replace(network, api="v2")
    rules = [policy["Settings"] for policy in cni.policies(v2) if policy["Type"] == "ACL"]
    assert bool(rules) == network.isolate
    near = {str(network.management), str(network.next_hop)}
    for direction, open_ in (("In", near), ("Out", near | set(map(str, network.service_cidrs)))):
        for rule, blocked in (
            (one, one["Action"] == "Block") for one in rules if one["Direction"] == direction
        ):
            first = [
                one for one in rules if one["Direction"] == direction and one["Priority"] < rule["Priority"]
            ]
            before = {item for one in first for item in one.get("RemoteAddresses", "").split(",")}
            assert not blocked or open_ <= before


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_names_are_data_whatever_they_are(site: str, host: str, search: str) -> None:
    dns = cni.Dns((), (search,))
    network = replace(NETWORK, site=site, host=host, dns=dns)
    read = json.loads(cni.text(network))
    assert (read["vmproxy.io/site"], read["vmproxy.io/host"]) == (site, host)
    assert read["plugins"][0]["dns"]["search"] == [search]
    assert cni.text(network).isascii()


@pytest.mark.parametrize("name", ["", "-a", "my net", 'a"b', "a\n", "größe", "../x", "a;b", "$(x)"])
def test_a_name_that_cni_cannot_have_is_an_error(name: str) -> None:
    with pytest.raises(UsageError) as error:
        cni.conflist(replace(NETWORK, name=name))
    assert "letter or digit first" in error.value.details[0]
    assert error.value.hint


@pytest.mark.parametrize("name", ["cbr0", "l2bridge", "A-b_c.d", "0"])
def test_a_name_that_cni_can_have_is_kept(name: str) -> None:
    assert cni.conflist(replace(NETWORK, name=name))["name"] == name


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"subnet": IPv4Network("10.244.9.0/30")}, "no addresses for containers"),
        ({"service_cidrs": ()}, "no IPv4 Service range"),
        ({"plugin": "sdnbridge", "api": "v1"}, "API v2 only"),
        ({"subnet": IPv4Network("10.96.4.0/24")}, "overlaps 10.96.0.0/16"),
        ({"subnet": IPv4Network("192.168.0.0/16")}, "overlaps 192.168.10.0/24"),
    ],
)
def test_what_no_plugin_could_use_is_an_error(change: dict[str, Any], detail: str) -> None:
    with pytest.raises(UsageError) as error:
        cni.text(replace(NETWORK, **change))
    assert [True for line in error.value.details if detail in line]


def test_all_faults_are_told_at_once() -> None:
    bad = replace(NETWORK, name="my net", service_cidrs=(), subnet=IPv4Network("10.244.9.0/31"))
    assert len(list(cni.faults(bad))) == 3


def test_without_a_dns_server_the_runtime_decides() -> None:
    assert "dns" not in plugin(replace(NETWORK, dns=None))


def test_a_subnet_outside_the_pod_ranges_is_an_exception_of_its_own() -> None:
    assert ip_network("10.244.9.0/24") in cni.exceptions(replace(NETWORK, pod_cidrs=()))
    assert ip_network("10.244.9.0/24") not in cni.exceptions(NETWORK)


def test_the_file_name_names_site_and_host() -> None:
    assert cni.file_name("plant-a", "win-01") == "10-vmproxy-plant-a-win-01.conflist"
