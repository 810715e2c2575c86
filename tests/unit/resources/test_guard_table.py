"""The guard table as nft itself reads it: checked, not loaded, in a network namespace that ends with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import ip_address, ip_network

import pytest

from tests.winhost.presence import require
from vmproxy.model.net import Network
from vmproxy.resources import firewall
from vmproxy.resources.firewall import Inside

SERVICES = (ip_network("10.96.0.0/16"), ip_network("fd01::/112"))
SUBNET = ip_network("10.244.9.0/24")
LAN = (ip_network("192.168.10.0/24"),)
INSIDE = Inside(
    SUBNET,
    (ip_address("192.168.10.5"), ip_address("10.244.9.2")),
    (ip_network("10.244.0.0/16"), *LAN),
    (SERVICES[0], ip_network("10.244.0.0/16"), *LAN),
)


@pytest.fixture
def nft() -> list[str]:
    """The command; a check needs the rights to load, but nothing of the machine's."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    apart = ["unshare", *mapped, "--net"]
    missing = [name for name in ("nft", "unshare") if shutil.which(name) is None]
    if missing or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        require(f"nft: {', '.join(missing) or 'no network namespace can be made'}")
    return [*apart, "nft", "--check", "--file", "-"]


def checked(nft: list[str], text: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(nft, input=text, capture_output=True, check=False)


@pytest.mark.parametrize("inside", [None, INSIDE])
@pytest.mark.parametrize("allowed", [None, (), (SUBNET, ip_network("192.168.10.2/32"))])
def test_nft_takes_the_guard_table(
    nft: list[str], allowed: tuple[Network, ...] | None, inside: Inside | None
) -> None:
    content = firewall.file(SERVICES, allowed, inside).content
    assert content is not None
    done = checked(nft, content)
    assert done.returncode == 0, done.stderr.decode()
    broken = checked(nft, content.replace(b"counter name unknown_service drop", b"counter name other drop"))
    assert broken.returncode != 0, "it does look at the rules"
