"""setup.py: the guest's guard table and routes, at boot and when they have changed."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.guest.machine import Machine

LISTED = {
    "nftables": [
        {"metainfo": {"version": "1.0.9", "release_name": "Old Doc Yak #3", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "vmproxy", "handle": 7}},
        {"chain": {"family": "inet", "table": "vmproxy", "name": "input", "handle": 2, "policy": "accept"}},
        {"rule": {"chain": "input", "handle": 5, "expr": [{"counter": {"handle": 1}}, {"drop": None}]}},
    ]
}
GUARD, NOTE, ROUTES = "/etc/vmproxy/guard.nft", "/run/vmproxy/guard.json", "/etc/vmproxy/routes.json"


def with_guard(machine: Machine, *, source: str = "table inet vmproxy {}\n", then: str = "") -> str:
    """The guest's guard.nft and a fake nft; gives the file's hash."""
    machine.write(GUARD, source)
    machine.records("nft", says=json.dumps(LISTED), then=then)
    return hashlib.sha256(source.encode()).hexdigest()


def with_routes(
    machine: Machine, seen: list[dict[str, Any]], former: Sequence[dict[str, Any]] = (), **wanted: str
) -> None:
    """routes.json holds `wanted`, next hops by their prefixes; the kernel has `seen`, and `former` of an
    earlier version."""
    listed = [{"prefix": prefix, "via": via} for prefix, via in wanted.items()]
    machine.write(ROUTES, json.dumps(listed))
    ours = shlex.quote(json.dumps(seen) if seen else "")
    older = shlex.quote(json.dumps(list(former)))
    machine.records(
        "ip", then=f'case "$*" in *"show proto 250") printf %s {ours};; *show*) printf %s {older};; esac'
    )


def changes(machine: Machine) -> list[str]:
    shown = ["ip -j -4 route show proto 250", "ip -j -4 route show proto 186"]
    assert [call for call in machine.calls() if "show" in call] == shown
    return sorted(call for call in machine.calls() if "show" not in call)


def test_the_guard_is_loaded_and_then_noted_by_its_source(machine: Machine) -> None:
    source = with_guard(machine)
    assert machine.run("setup.py", "guard").returncode == 0
    assert machine.calls() == [f"nft -f {machine.path(GUARD)}", "nft -j list table inet vmproxy"]
    assert json.loads(machine.path(NOTE).read_text())["source"] == source
    assert machine.module("setup.py").guard_seen(json.dumps(LISTED)) == source


def test_handles_and_the_version_of_nft_are_no_change_of_the_guard(machine: Machine) -> None:
    source = with_guard(machine)
    machine.run("setup.py", "guard")
    again = json.dumps(LISTED).replace('"handle": 5', '"handle": 50').replace('"handle": 1}', '"handle": 2}')
    assert machine.module("setup.py").guard_seen(again.replace("1.0.9", "1.1.3")) == source


@pytest.mark.parametrize(("what", "other"), [('{"drop": null}', '{"accept": null}'), ('"accept"', '"drop"')])
def test_another_rule_or_policy_is_a_change_of_the_guard(machine: Machine, what: str, other: str) -> None:
    with_guard(machine)
    machine.run("setup.py", "guard")
    told = json.dumps(LISTED)
    assert what in told
    assert machine.module("setup.py").guard_seen(told.replace(what, other)) == "changed"


@pytest.mark.parametrize("note", [None, "", "{}"])
def test_a_guard_that_was_not_noted_counts_as_changed(machine: Machine, note: str | None) -> None:
    if note is not None:
        machine.write(NOTE, note)
    assert machine.module("setup.py").guard_seen(json.dumps(LISTED)) == "changed"


def test_a_guard_that_does_not_load_is_an_error_and_is_not_noted(machine: Machine) -> None:
    with_guard(machine, then="echo syntax error >&2; exit 1")
    done = machine.run("setup.py", "guard")
    assert done.returncode != 0
    assert b"syntax error" in done.stderr
    assert not machine.path(NOTE).exists()


def test_a_guard_that_cannot_be_listed_after_loading_leaves_the_older_note(machine: Machine) -> None:
    with_guard(machine, then='[ "$1" = -f ]')
    machine.write(NOTE, "older")
    assert machine.run("setup.py", "guard").returncode != 0
    assert machine.path(NOTE).read_text() == "older"


def test_missing_routes_are_set_and_others_of_ours_removed(machine: Machine) -> None:
    with_routes(
        machine,
        [
            {"dst": "10.9.0.0/24", "gateway": "192.168.10.9", "dev": "eth0", "flags": []},
            {"dst": "10.244.7.0/24", "gateway": "192.168.10.7", "dev": "eth0", "flags": []},
        ],
        **{"10.9.0.0/24": "192.168.10.9", "10.244.1.0/24": "192.168.10.20"},
    )
    assert machine.run("setup.py", "routes").returncode == 0
    assert changes(machine) == [
        "ip route del 10.244.7.0/24 via 192.168.10.7 proto 250",
        "ip route replace 10.244.1.0/24 via 192.168.10.20 proto 250",
    ]


def test_a_route_with_another_next_hop_is_removed_before_it_is_set(machine: Machine) -> None:
    seen = [{"dst": "10.9.0.0/24", "gateway": "192.168.10.7", "dev": "eth0", "flags": []}]
    with_routes(machine, seen, **{"10.9.0.0/24": "192.168.10.9"})
    machine.run("setup.py", "routes")
    assert [call for call in machine.calls() if "show" not in call] == [
        "ip route del 10.9.0.0/24 via 192.168.10.7 proto 250",
        "ip route replace 10.9.0.0/24 via 192.168.10.9 proto 250",
    ]


def test_routes_as_they_should_be_are_left_alone(machine: Machine) -> None:
    """ip writes a single address without its length, and 0.0.0.0/0 as a word."""
    seen = [
        {"dst": "10.9.0.7", "gateway": "192.168.10.9", "dev": "eth0", "flags": []},
        {"dst": "default", "gateway": "192.168.10.8", "dev": "eth0", "flags": []},
    ]
    machine.program(
        "ip",
        f'echo "ip $*" >> {machine.root}/calls\n'
        f"case \"$*\" in *default) echo '{json.dumps(seen[1:])}';; *250) echo '{json.dumps(seen)}';; esac",
    )
    wanted = [
        {"prefix": "10.9.0.7/32", "via": "192.168.10.9"},
        {"prefix": "0.0.0.0/0", "via": "192.168.10.8"},
    ]
    machine.write("/etc/vmproxy/routes.json", json.dumps(wanted))
    assert machine.run("setup.py", "routes").returncode == 0
    assert [call for call in machine.calls() if "show" not in call and "186" not in call] == []


@pytest.mark.parametrize(
    "seen",
    [[], [{"dst": "default", "gateway": "192.168.10.9"}, {"dst": "default", "gateway": "192.168.10.1"}]],
)
def test_a_default_route_that_is_not_used_is_set_again_as_the_systems_own(
    machine: Machine, seen: list[dict[str, str]]
) -> None:
    machine.program(
        "ip",
        f'echo "ip $*" >> {machine.root}/calls; case "$*" in *default) echo \'{json.dumps(seen)}\';; esac',
    )
    machine.write("/etc/vmproxy/routes.json", json.dumps([{"prefix": "0.0.0.0/0", "via": "192.168.10.1"}]))
    assert machine.run("setup.py", "routes").returncode == 0
    assert [call for call in machine.calls() if "show" not in call] == [
        "ip route replace 0.0.0.0/0 via 192.168.10.1 proto static"
    ]


@pytest.mark.parametrize(
    "seen",
    [
        {"dst": "10.8.0.0/24", "dev": "eth0", "scope": "link", "flags": []},
        {"type": "blackhole", "dst": "10.8.0.0/24", "flags": []},
        {"dst": "10.8.0.0/24", "flags": [], "nexthops": [{"gateway": "192.168.10.3", "dev": "eth0"}]},
    ],
)
def test_a_route_of_ours_without_one_next_hop_is_removed_by_its_prefix(
    machine: Machine, seen: dict[str, Any]
) -> None:
    with_routes(machine, [seen])
    assert machine.run("setup.py", "routes").returncode == 0
    assert changes(machine) == ["ip route del 10.8.0.0/24 proto 250"]


def test_an_older_ip_that_shows_nothing_at_all_has_no_routes(machine: Machine) -> None:
    with_routes(machine, [], **{"10.9.0.0/24": "192.168.10.9"})
    assert machine.run("setup.py", "routes").returncode == 0
    assert changes(machine) == ["ip route replace 10.9.0.0/24 via 192.168.10.9 proto 250"]


def test_a_route_that_cannot_be_set_is_an_error_in_ips_words(machine: Machine) -> None:
    with_routes(machine, [], **{"10.9.0.0/24": "192.168.10.9"})
    machine.program("ip", 'case "$*" in *show*) ;; *) echo Nexthop has invalid gateway. >&2; exit 2;; esac')
    done = machine.run("setup.py", "routes")
    assert done.returncode != 0
    assert b"Nexthop has invalid gateway." in done.stderr


def test_a_route_that_cannot_be_set_keeps_nothing_else_from_being_set(machine: Machine) -> None:
    kernel = machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    wanted = {"0.0.0.0/0": "192.168.77.1", "10.8.0.0/24": "192.168.77.8", "10.9.0.0/24": "192.168.10.9"}
    with_routes(machine, [], **wanted)
    machine.program(
        "ip",
        f'echo "ip $*" >> {machine.root}/calls; case "$*" in *show*) ;; *192.168.77*) exit 2;; esac',
    )
    done = machine.run("setup.py", "routes", "forward")
    assert done.returncode != 0
    assert b"0.0.0.0/0 via 192.168.77.1" in done.stderr
    assert "ip route replace 10.9.0.0/24 via 192.168.10.9 proto 250" in machine.calls()
    assert kernel.read_text() == "1"


def test_routes_of_an_earlier_version_become_ours_and_those_that_bgp_learned_stay(machine: Machine) -> None:
    former = [
        {"dst": "10.9.0.0/24", "gateway": "192.168.10.9", "dev": "eth0", "flags": []},
        {"dst": "10.77.0.0/24", "gateway": "192.168.10.7", "dev": "eth0", "flags": []},
    ]
    with_routes(machine, [], former, **{"10.9.0.0/24": "192.168.10.9"})
    assert machine.run("setup.py", "routes").returncode == 0
    assert changes(machine) == [
        "ip route del 10.9.0.0/24 via 192.168.10.9 proto 186",
        "ip route replace 10.9.0.0/24 via 192.168.10.9 proto 250",
    ]


def with_addresses(machine: Machine, seen: dict[str, str], *wanted: str, then: str = "") -> None:
    """The kernel has `seen`, labels by address; ip does `then` to change one."""
    machine.write("/etc/vmproxy/addresses.json", json.dumps(wanted))
    listed = [
        {"family": "inet", "local": text.partition("/")[0], "prefixlen": int(text.partition("/")[2])}
        | ({"label": label} if label else {})
        for text, label in seen.items()
    ]
    told = shlex.quote(json.dumps([{}, {"ifname": "eth0", "addr_info": listed}]))
    machine.records("ip", then=f'case "$*" in *show*) printf %s {told};; *) {then or ":"};; esac')


OWN = {"192.168.10.5/24": "eth0"}


def address_changes(machine: Machine) -> list[str]:
    done = machine.run("setup.py", "addresses")
    assert done.returncode == 0, done.stderr
    first, *others = machine.calls()
    assert first == "ip -j -4 address show dev eth0"
    return others


def test_a_missing_address_is_added_with_our_label(machine: Machine) -> None:
    with_addresses(machine, OWN, "10.244.9.2/24")
    assert address_changes(machine) == ["ip address add 10.244.9.2/24 dev eth0 label eth0:vmproxy"]


@pytest.mark.parametrize("label", ["eth0:vmproxy", "eth0", ""])
def test_an_address_that_is_there_is_left_alone_whoever_set_it(machine: Machine, label: str) -> None:
    with_addresses(machine, {**OWN, "10.244.9.2/24": label}, "10.244.9.2/24")
    assert address_changes(machine) == []


def test_only_addresses_with_our_label_go(machine: Machine) -> None:
    with_addresses(
        machine, {**OWN, "10.1.2.3/32": "", "10.7.7.7/24": "eth0:x", "10.244.9.2/24": "eth0:vmproxy"}
    )
    assert address_changes(machine) == ["ip address del 10.244.9.2/24 dev eth0"]


def test_another_subnet_takes_the_place_of_the_one_before(machine: Machine) -> None:
    with_addresses(machine, {**OWN, "10.244.9.2/24": "eth0:vmproxy"}, "10.244.9.2/25")
    assert address_changes(machine) == [
        "ip address del 10.244.9.2/24 dev eth0",
        "ip address add 10.244.9.2/25 dev eth0 label eth0:vmproxy",
    ]


def test_an_address_that_cannot_be_set_is_an_error_and_keeps_nothing_else_from_being_set(
    machine: Machine,
) -> None:
    kernel = machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    with_addresses(machine, OWN, "10.244.9.2/24", then="echo no such device >&2; exit 2")
    done = machine.run("setup.py", "addresses", "forward")
    assert done.returncode != 0
    assert b"no such device" in done.stderr
    assert b"addresses: not set: 10.244.9.2/24" in done.stderr
    assert kernel.read_text() == "1"


@pytest.mark.parametrize("content", ["", "{", None])
def test_a_damaged_list_of_addresses_is_an_error_and_changes_none(
    machine: Machine, content: str | None
) -> None:
    with_addresses(machine, {**OWN, "10.244.9.2/24": "eth0:vmproxy"})
    file = machine.path("/etc/vmproxy/addresses.json")
    file.unlink() if content is None else file.write_text(content)
    assert machine.run("setup.py", "addresses").returncode != 0
    assert machine.calls() == []


def test_forwarding_is_let_on(machine: Machine) -> None:
    kernel = machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    assert machine.run("setup.py", "forward").returncode == 0
    assert kernel.read_text() == "1"


def test_what_the_counters_count_is_no_change_of_the_guard(machine: Machine) -> None:
    counter = {"family": "inet", "name": "transit", "table": "vmproxy", "handle": 9, "packets": 0, "bytes": 0}
    counted = {"nftables": [*LISTED["nftables"], {"counter": counter}]}
    machine.write(GUARD, "x")
    machine.records("nft", says=json.dumps(counted))
    assert machine.run("setup.py", "guard").returncode == 0
    later = json.dumps(counted).replace('"packets": 0, "bytes": 0', '"packets": 7, "bytes": 588')
    assert machine.module("setup.py").guard_seen(later) == hashlib.sha256(b"x").hexdigest()
    other = later.replace('"transit"', '"other"')
    assert machine.module("setup.py").guard_seen(other) == "changed"


@pytest.mark.parametrize(
    ("words", "programs"), [(["guard"], ["nft"]), (["routes"], ["ip"]), (["guard", "routes"], ["nft", "ip"])]
)
def test_each_word_does_its_part(machine: Machine, words: list[str], programs: list[str]) -> None:
    with_guard(machine)
    with_routes(machine, [])
    assert machine.run("setup.py", *words).returncode == 0
    assert list(dict.fromkeys(call.split()[0] for call in machine.calls())) == programs
