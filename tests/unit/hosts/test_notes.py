from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from tests.values import route
from vmproxy.hosts.hyperv import notes
from vmproxy.model.seen import Marker

MARKER = Marker(
    site="a",
    host="b",
    address=ip_interface("192.168.10.5/24"),
    seed="5" * 64,
    image="1" * 64,
    host_key="ssh-ed25519 AAAA",
    routes=(route("10.96.0.0/16", "192.168.10.5"),),
    recipe="debian-13-3b5a256048cd",
    made="2026-11-29",
)


def test_a_marker_is_read_as_it_was_written() -> None:
    assert notes.parse(f"ask Anna\r\n{notes.block(MARKER)}") == MARKER


def test_one_of_an_older_vmproxy_has_no_recipe() -> None:
    old = notes.block(MARKER).replace(',"recipe":"debian-13-3b5a256048cd","made":"2026-11-29"', "")
    assert notes.parse(old) == replace(MARKER, recipe="", made="")


@pytest.mark.parametrize("inside", ["", "[]", "null", "5", "{", "{}", "[" * 100_000, '{"site": 1}'])
def test_a_damaged_marker_is_none(inside: str) -> None:
    assert notes.parse(f"[vmproxy]{inside}[/vmproxy]") is None
