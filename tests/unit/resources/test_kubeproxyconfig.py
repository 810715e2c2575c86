from __future__ import annotations

import json

import pytest

from vmproxy.errors import UsageError
from vmproxy.resources import kubeproxyconfig
from vmproxy.resources.kubeproxyconfig import Identity

NODE = Identity("win-01", "192.168.10.5", acts_for_node=True)
GATEWAY = Identity("vmproxy-a-win-01", "192.168.10.5", acts_for_node=False)


def rendered(version: str, mode: kubeproxyconfig.Mode, identity: Identity = NODE) -> dict[str, object]:
    config = kubeproxyconfig.configuration(version, mode, identity, kubeconfig="/k", pod_cidr="10.244.0.0/16")
    loaded: dict[str, object] = json.loads(kubeproxyconfig.text(config))
    return loaded


@pytest.mark.parametrize("minor", range(kubeproxyconfig.OLDEST, kubeproxyconfig.NEWEST + 1))
def test_each_version_gets_only_fields_that_it_knows(minor: int) -> None:
    config = rendered(f"v1.{minor}.0", "nftables" if minor >= 31 else "iptables")
    assert ("nftables" in config) == (minor >= 31)
    conntrack = config["conntrack"]
    assert isinstance(conntrack, dict)
    assert ("tcpBeLiberal" in conntrack) == (minor >= 29)
    iptables = config.get("iptables", {})
    assert isinstance(iptables, dict)
    assert ("localhostNodePorts" in iptables) == (26 <= minor < 31)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_masquerade_is_in_the_block_of_the_mode_and_the_mode_is_written(mode: kubeproxyconfig.Mode) -> None:
    config = rendered("v1.36.3", mode)
    assert config["mode"] == mode
    block = config[mode]
    assert isinstance(block, dict)
    assert block["masqueradeAll"] is True
    assert ({"iptables", "nftables"} - {mode}).isdisjoint(config)


def test_it_acts_for_a_node_by_its_name_and_takes_the_addresses_from_it() -> None:
    config = rendered("v1.36.3", "nftables")
    assert (config["hostnameOverride"], config["bindAddress"]) == ("win-01", "0.0.0.0")


def test_a_plain_gateway_says_its_own_name_and_address() -> None:
    config = rendered("v1.36.3", "nftables", GATEWAY)
    assert (config["hostnameOverride"], config["bindAddress"]) == ("vmproxy-a-win-01", "192.168.10.5")


@pytest.mark.parametrize(
    ("version", "kernel", "nft", "mode"),
    [
        ("v1.36.3", "6.12.1-cloud", "1.1.3", "nftables"),
        ("v1.31.0", "5.13.0", "1.0.1", "nftables"),
        ("v1.30.9", "6.12.1", "1.1.3", "iptables"),
        ("v1.36.3", "5.10.0-9", "1.1.3", "iptables"),
        ("v1.36.3", "6.12.1", "0.9.8", "iptables"),
        ("v1.36.3", None, None, "nftables"),
    ],
)
def test_auto_takes_nftables_where_everything_is_new_enough(
    version: str, kernel: str | None, nft: str | None, mode: str
) -> None:
    assert kubeproxyconfig.choose_mode("auto", version, kernel=kernel, nft=nft) == mode


def test_nftables_is_refused_where_kube_proxy_has_no_such_mode() -> None:
    with pytest.raises(UsageError, match=r"v1\.31"):
        kubeproxyconfig.choose_mode("nftables", "v1.28.0", kernel=None, nft=None)


@pytest.mark.parametrize("version", ["v1.19.0", "v2.0.0", "1.36.3"])
def test_a_version_whose_fields_are_not_known_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match="known are"):
        kubeproxyconfig.minor(version)


def test_an_unknown_newer_minor_is_configured_as_the_newest_known_one_with_a_warning() -> None:
    assert rendered("v1.99.0", "nftables") == rendered(f"v1.{kubeproxyconfig.NEWEST}.0", "nftables")
    (warning,) = kubeproxyconfig.warnings("v1.99.0", "v1.99.1", chosen=False)
    assert "newer than vmproxy knows" in warning


@pytest.mark.parametrize(
    ("version", "api_server", "fits"),
    [
        ("v1.36.3", "v1.36.0", True),
        ("v1.33.0", "v1.36.0", True),
        ("v1.32.0", "v1.36.0", False),
        ("v1.37.0", "v1.36.9", False),
        ("v1.22.0", "v1.24.0", True),
        ("v1.21.0", "v1.24.0", False),
        ("unknown", "v1.36.0", False),
    ],
)
def test_the_version_skew_policy_is_that_of_kubernetes(version: str, api_server: str, fits: bool) -> None:
    assert kubeproxyconfig.fits(version, api_server) is fits


def test_another_version_than_the_api_servers_is_warned_of() -> None:
    def warned(version: str, *, chosen: bool) -> list[str]:
        return list(kubeproxyconfig.warnings(version, "v1.36.3", chosen=chosen))

    assert warned("v1.36.1", chosen=False) == []
    assert "stays while it fits" in warned("v1.35.0", chosen=False)[0]
    assert warned("v1.35.0", chosen=True) == []
    assert "skew policy" in warned("v1.37.0", chosen=True)[0]
