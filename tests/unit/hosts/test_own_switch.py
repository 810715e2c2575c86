"""The VM's own switch on a Windows host: what is read of it, what its script is given, and the way in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from tests.opened import Opened, opened
from tests.unit.hosts.windows import FakeWindows
from vmproxy.errors import Conflict
from vmproxy.hosts.hyperv.switch import entrance
from vmproxy.hosts.protocols import Delivery
from vmproxy.model.drift import ABSENT, Drift
from vmproxy.model.seen import Entrance
from vmproxy.model.steps import CreateSwitch, RemoveSwitch, SetSwitch, SwitchWanted
from vmproxy.model.topology import Member, compile_site
from vmproxy.site.model import Site

NAME, MARK = "vmproxy-a-win-01", "vmproxy:a:win-01"
NETWORK, HOST, VM = "172.30.255.0/29", "172.30.255.1/29", ip_address("172.30.255.2")
CONTROLLER = ip_address("127.0.0.1")


def member(**switch: object) -> Member:
    host = {
        "name": "win-01",
        "hyperv": {"endpoint": "https://127.0.0.9:5986", "auth": "kerberos"},
        "switch": {"internal": NETWORK, **switch},
    }
    return compile_site(Site.model_validate({"name": "a", "hosts": [host]})).members[0]


def wanted(one: Member, controller: Any = CONTROLLER) -> SwitchWanted:
    assert one.carrier.own is not None
    return SwitchWanted(one.carrier.own, controller)


def facts(**changes: Any) -> dict[str, Any]:
    """As observe.ps1 reports a switch that is as it should be."""
    own = {
        "switches": [{"notes": f"{MARK} of plant 7", "type": "Internal"}],
        "interface": {
            "addresses": [
                {"store": store, "address": "172.30.255.1", "length": 29}
                for store in ("ActiveStore", "PersistentStore")
            ],
            "metric": 5000,
            "forwarding": "Disabled",
            "registers": False,
        },
        "nats": {"name": NAME, "prefix": NETWORK},
        "mappings": {
            "protocol": "TCP",
            "external": "0.0.0.0",
            "externalPort": 2222,
            "remote": f"{CONTROLLER}/32",
            "internal": str(VM),
            "internalPort": 22,
        },
        "hostAddresses": [
            {"address": "192.168.10.2", "length": 24},
            {"address": "172.30.255.1", "length": 29},
        ],
    }
    return {**own, **changes}


@contextmanager
def place(windows: FakeWindows, one: Member) -> Iterator[Opened]:
    def deliver() -> Delivery:
        raise AssertionError("nothing is delivered for a switch")

    with opened(one, windows.connect, deliver) as there:
        yield there


def test_what_is_reported_is_compared_field_by_field() -> None:
    one = member()
    with place(FakeWindows(own=facts()), one) as there:
        seen = there.observe()
    assert seen.own is not None
    assert (seen.own.ours, seen.own.internal, seen.own.addresses) == (True, True, (ip_interface(HOST),))
    assert {name: seen.own.settings[name] for name in wanted(one).settings} == wanted(one).settings
    assert seen.nats == {NAME: NETWORK}


@pytest.mark.parametrize(
    ("changes", "field", "seen"),
    [
        ({"nats": None}, "nat", ABSENT),
        ({"mappings": []}, "mapping", ABSENT),
        ({"interface": None}, "address", None),
        ({"switches": {"notes": "vmproxy:a:win-010", "type": "Internal"}}, "ours", False),
        ({"switches": {"notes": MARK, "type": "Private"}}, "internal", False),
    ],
)
def test_what_is_missing_or_another_s_is_told(changes: dict[str, Any], field: str, seen: object) -> None:
    with place(FakeWindows(own=facts(**changes)), member()) as there:
        own = there.observe().own
    assert own is not None
    assert {**own.settings, "ours": own.ours, "internal": own.internal}.get(field) == seen


def test_two_switches_of_that_name_are_a_conflict() -> None:
    both = [{"notes": MARK, "type": "Internal"}, {"notes": "", "type": "Internal"}]
    with (
        place(FakeWindows(own=facts(switches=both)), member()) as there,
        pytest.raises(Conflict, match="2 switches"),
    ):
        there.observe()


def test_a_new_switch_is_given_everything_and_an_existing_one_what_differs() -> None:
    one, windows = member(), FakeWindows(own=facts())
    want = wanted(one)
    with place(windows, one) as there:
        for step in (CreateSwitch(want), SetSwitch(want, (Drift("metric", 5000, 15),)), RemoveSwitch(NAME)):
            there.drivers.carrier.change_switch(step)
    made, changed, gone = (data for name, data in windows.calls if "switch" in name)
    assert (made["create"], made["mark"], made["vm"]) == (True, MARK, NAME)
    assert made["settings"] == {
        "address": {"address": "172.30.255.1", "length": 29},
        "dnsRegistration": "off",
        "metric": 5000,
        "nat": NETWORK,
        "mapping": True,
    }
    assert made["mapping"] == {"port": 2222, "from": f"{CONTROLLER}/32", "to": str(VM), "toPort": 22}
    assert (changed["create"], changed["settings"]) == (False, {"metric": 5000})
    assert gone["mark"] == MARK


def test_without_nat_nothing_is_mapped_and_the_vm_is_reached_as_it_is() -> None:
    one, windows = member(nat=False), FakeWindows(own=facts())
    with place(windows, one) as there:
        assert there.observe().entrance is None
        there.drivers.carrier.change_switch(CreateSwitch(wanted(one, None)))
        assert there.drivers.carrier.ssh_command(VM) == ["ssh"]
    made = next(data for name, data in windows.calls if name == "switch.ps1")
    assert (made["mapping"], made["settings"]["forwarding"], made["settings"]["nat"]) == (
        None,
        "Enabled",
        None,
    )


def test_the_way_in_is_the_hosts_address_that_the_endpoint_names_or_one_beside_us() -> None:
    host = tuple(map(ip_interface, ("127.0.0.1/8", "169.254.3.4/16", HOST, "192.168.77.2/24", "10.0.0.2/24")))
    here = {"192.168.77.2": "192.168.77.9", "10.0.0.2": "10.9.9.9", "172.30.255.1": "10.9.9.9"}
    inside = ip_network(NETWORK)

    def known(to: object) -> Any:
        return ip_address(here[str(to)]) if str(to) in here else None

    def way(endpoint: str) -> Entrance | None:
        return entrance(endpoint, host, beside=inside, local=known)

    assert way("https://10.0.0.2:5986") == Entrance(ip_address("10.0.0.2"), ip_address("10.9.9.9"))
    assert way("https://localhost:5986") == Entrance(ip_address("192.168.77.2"), ip_address("192.168.77.9"))
    assert way("https://172.30.255.1:5986") == way("https://no-such-name.invalid:5986")
    del here["192.168.77.2"]
    assert way("https://localhost:5986") is None
