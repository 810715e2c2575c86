from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.containers.test_cni import NETWORK
from vmproxy.containers import l2bridge
from vmproxy.util import assets


def test_the_hosts_endpoint_is_the_containers_gateway() -> None:
    assert json.loads(l2bridge.text(NETWORK)) == {
        "network": "cbr0",
        "subnet": "10.244.9.0/24",
        "gateway": "10.244.9.1",
        "management": "192.168.10.10",
        "endpoint": {"name": "cbr0_ep", "address": "10.244.9.2"},
    }


def test_towards_the_vm_the_network_knows_its_address_and_the_host_has_none() -> None:
    read = json.loads(l2bridge.text(replace(NETWORK, gateway="vm")))
    assert read["gateway"] == "10.244.9.2"
    assert read["endpoint"] is None


@pytest.mark.parametrize("name", l2bridge.SCRIPTS)
def test_the_scripts_have_no_data_of_a_site_in_them(name: str) -> None:
    text = assets.text(name)
    assert text.isascii()
    assert not [value for value in ("10.244.", "cbr0", "plant-a") if value in text]
