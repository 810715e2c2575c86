from __future__ import annotations

from vmproxy.model.mac import static_mac


def test_the_same_name_has_the_same_address_and_another_has_another() -> None:
    assert static_mac("a") == static_mac("a") != static_mac("b")
    assert static_mac("a").startswith("00:15:5d:")


def test_it_is_outside_of_the_hosts_own_range() -> None:
    first = static_mac("a").replace(":", "").upper()
    second = static_mac("a", pool=(first, first))
    assert second.startswith("00:15:5d:")
    assert second.replace(":", "").upper() != first


def test_a_host_that_gives_away_all_of_hyper_vs_own_leaves_a_local_one() -> None:
    assert static_mac("a", pool=("00155D000000", "00155DFFFFFF")).startswith("02:15:5d:")
