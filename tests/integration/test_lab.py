"""The lab by itself: up, up again, broken and repaired, down and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import names
from vmproxy import lab

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]
NAME, DEMO = names.own("t1"), names.own("t2")


def vmproxy(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmproxy", *words], text=True, capture_output=True, timeout=900, check=False
    )


def namespaces() -> set[str]:
    return set(subprocess.run(["ip", "netns"], text=True, capture_output=True, check=True).stdout.split())


def processes() -> set[str]:
    """Command lines that belong to the lab."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
            folder = f"{path.with_name('cwd').readlink()}/"
        except OSError:
            continue
        told = f"{words} {folder.replace(' (deleted)', '')}"
        if f"vmproxy-{NAME}-" in told or f"/lab/{NAME}/" in told:
            found.add(f"{state} {words}")
    return {line for line in found if not line.startswith("Z")}


@pytest.fixture(scope="module")
def up() -> Iterator[dict[str, object]]:
    """One lab for the tests that look at it; the last of them takes it down."""
    try:
        assert vmproxy("lab", "up", "--name", NAME).returncode == 0
        told = vmproxy("lab", "status", "--name", NAME, "-o", "json")
        loaded: dict[str, object] = json.loads(told.stdout)
        yield loaded
    finally:
        lab.down(name=NAME, report=print)


def in_host(*command: str) -> str:
    words = ["ip", "netns", "exec", f"vmproxy-{NAME}-host", *command]
    return subprocess.run(words, text=True, capture_output=True, check=True, timeout=30).stdout


def test_the_machine_s_own_network_stays_as_it_is(up: dict[str, object]) -> None:
    shown = subprocess.run(["ip", "-br", "addr"], text=True, capture_output=True, check=True).stdout
    assert "192.168.100." not in shown
    routes = subprocess.run(["ip", "route"], text=True, capture_output=True, check=True).stdout
    assert "10.96." not in routes


def test_the_gateway_keeps_its_mac_address_whoever_joins_its_bridge(up: dict[str, object]) -> None:
    """A bridge without an address of its own has the lowest one of its ports."""
    ip = ("ip", "-n", f"vmproxy-{NAME}-switch")

    def of_gateway() -> str:
        shown = subprocess.run([*ip, "-j", "link", "show", "br0"], text=True, capture_output=True, check=True)
        return str(json.loads(shown.stdout)[0]["address"])

    before = of_gateway()
    subprocess.run([*ip, "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth"], check=True)
    subprocess.run([*ip, "link", "set", "low", "up", "master", "br0"], check=True)
    assert of_gateway() == before
    subprocess.run([*ip, "link", "del", "low"], check=True)


def test_a_resolver_that_has_taken_the_host_s_part_keeps_it_when_the_lab_is_repaired(
    up: dict[str, object],
) -> None:
    """As an emulated Windows host does: its DNS client is whom the programs of the namespace ask."""
    file = Path(f"/etc/netns/vmproxy-{NAME}-host/resolv.conf")
    before = file.read_text()
    assert "nameserver 127.0.0.1\n" in before
    file.write_text("nameserver 127.0.0.53\n")
    try:
        assert vmproxy("lab", "up", "--name", NAME).returncode == 0
        assert file.read_text() == "nameserver 127.0.0.53\n"
        file.unlink()
        assert vmproxy("lab", "up", "--name", NAME).returncode == 0
        assert file.read_text() == before
    finally:
        file.write_text(before)


def test_it_comes_up_answers_is_repaired_and_leaves_nothing(up: dict[str, object]) -> None:
    assert up["running"] is True
    assert set(up) == {"running", "kubeconfig", "site", "namespaces", "binaries"}
    kubeconfig, site = Path(str(up["kubeconfig"])), Path(str(up["site"]))
    assert kubeconfig.stat().st_mode & 0o077 == 0
    assert in_host("curl", "-sS", "-m", "5", "http://192.168.100.31:8080/hostname").strip() == "web-1"
    assert "default" in in_host("ip", "route")

    before = site.stat().st_mtime_ns
    again = vmproxy("lab", "up", "--name", NAME)
    assert again.returncode == 0
    assert "starting kube-apiserver" not in again.stderr
    assert site.stat().st_mtime_ns == before

    for name in ("etcd", "relay"):
        pid = int((kubeconfig.parent / f"{name}.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    client, switch = (f"vmproxy-{NAME}-{role}" for role in ("client", "switch"))
    subprocess.run(["ip", "-n", client, "link", "del", "eth0"], check=True)
    left = ["link", "add", "to-client", "type", "bridge"]  # as of a namespace that the kernel still removes
    subprocess.run(["ip", "-n", switch, *left], check=True)
    assert json.loads(vmproxy("lab", "status", "--name", NAME, "-o", "json").stdout)["running"] is False
    assert vmproxy("lab", "up", "--name", NAME).returncode == 0
    assert json.loads(vmproxy("lab", "status", "--name", NAME, "-o", "json").stdout)["running"] is True
    asked = ["ip", "netns", "exec", client, "curl", "-sS", "-m", "5", "http://192.168.100.31:8080/hostname"]
    assert subprocess.run(asked, text=True, capture_output=True, check=True).stdout.strip() == "web-1"

    subprocess.run(["ip", "netns", "del", f"vmproxy-{NAME}-web-1"], check=True)
    down = vmproxy("lab", "down", "--name", NAME)
    assert down.returncode == 0, down.stderr
    assert not [name for name in namespaces() if name.startswith(f"vmproxy-{NAME}-")]
    assert processes() == set()
    assert not kubeconfig.exists()
    assert vmproxy("lab", "down", "--name", NAME).returncode == 0


@pytest.mark.parametrize("name", ["Upper", "much-too-long-a-name", "a/b"])
def test_a_name_that_can_not_be_is_refused(name: str) -> None:
    ran = vmproxy("lab", "up", "--name", name)
    assert ran.returncode == 2
    assert "lower-case" in ran.stderr


def test_binaries_that_are_not_there_are_said(tmp_path: Path) -> None:
    ran = vmproxy("lab", "up", "--name", NAME, "--binaries", str(tmp_path / "none"))
    assert ran.returncode == 2
    assert "no such folder" in ran.stderr


def test_the_demo_shows_the_product_and_takes_everything_down() -> None:
    ran = vmproxy("demo", "--name", DEMO)
    assert ran.returncode == 0, ran.stderr
    assert "web-1" in ran.stdout or "web-2" in ran.stdout
    assert "in sync, nothing to do" in ran.stdout
    assert "2 changes" in ran.stdout
    assert not [name for name in namespaces() if name.startswith(f"vmproxy-{DEMO}-")]
