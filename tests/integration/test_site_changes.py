"""A change of the site file that is made live, in the guest and on the embedded host's switch."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.world import World
from vmproxy import binaries
from vmproxy.lab.network import MOVED_CONTROL

pytestmark = pytest.mark.lab

CONFIG = "/etc/vmproxy/kube-proxy.yaml"
OLD_VERSION = "v1.33.13"


def answered(world: World) -> bool:
    """TCP and UDP, with backends on the bridge and in the pod network."""
    ran = world.vmproxy("verify", "-o", "json")
    assert ran.code == 0, ran.out
    checks = ran.json["hosts"][0]["checks"]
    assert {check["protocol"] for check in checks} == {"tcp", "udp"}
    return all(check["ok"] is True for check in checks)


def test_the_mode_changes_live_and_both_modes_answer(world: World) -> None:
    before = world.started()
    world.change(proxy={"version": "v1.36.3", "mode": "iptables"})
    assert world.drift() == [f"{CONFIG}: sha256"]
    world.apply()
    assert world.vmproxy("status", "-o", "json").json["hosts"][0]["proxy"]["mode"] == "iptables"
    assert answered(world)
    assert world.drift() == []
    world.reset()
    world.apply()
    assert world.vmproxy("status", "-o", "json").json["hosts"][0]["proxy"]["mode"] == "nftables"
    assert "kube-proxy" not in world.look("iptables-save | grep KUBE-SVC || true")
    assert answered(world)
    assert world.started() == before


def test_an_older_kube_proxy_runs_and_is_upgraded_live(world: World) -> None:
    before = world.started()
    old = binaries.obtain("kube-proxy", OLD_VERSION, report=lambda _: None)
    world.change(proxy=binaries.site_entry(old))
    assert world.drift() == ["/usr/local/lib/vmproxy/kube-proxy: sha256"]
    world.apply()
    assert world.vmproxy("status", "-o", "json").json["hosts"][0]["proxy"]["version"] == OLD_VERSION
    assert answered(world)
    world.reset()
    world.apply()
    assert world.look("/usr/local/lib/vmproxy/kube-proxy --version").split() == ["Kubernetes", "v1.36.3"]
    assert answered(world)
    assert world.started() == before


def test_a_plain_gateway_makes_no_node_and_borrows_no_name(world: World) -> None:
    world.change_host(actsFor=None)
    ran = world.vmproxy("plan", "-o", "json")
    assert any("30 s" in warning for warning in ran.json["hosts"][0]["warnings"])
    assert [drift["field"] for action in ran.json["hosts"][0]["actions"] for drift in action["drift"]] == [
        "clusterrole/vmproxy-it-win-01: rules[3].resourceNames[0]",
        f"{CONFIG}: sha256",
    ]
    world.apply()
    with world.api() as api:
        nodes = {item["metadata"]["name"] for item in api.get("/api/v1/nodes").json()["items"]}
    assert nodes == {"win-01", "node-01"}
    assert "vmproxy-it-win-01" in world.look(f"cat {CONFIG}")
    assert answered(world)


def test_the_token_s_life_changes_live(world: World) -> None:
    before = world.started()
    world.change(proxy={"version": "v1.36.3", "tokenTTL": "10m"})
    assert world.drift() == ["/etc/vmproxy/credential.json: sha256"]
    world.apply()
    claims = world.look("cut -d. -f2 /etc/vmproxy/token | base64 -d 2>/dev/null || true")
    exp, iat = (int(claims.split(f'"{name}":')[1].split(",")[0]) for name in ("exp", "iat"))
    assert exp - iat == 600
    assert world.drift() == []
    assert world.started() == before


def test_a_missing_pod_route_is_found_named_and_warned_of(world: World) -> None:
    world.change_network(podRoutes="none")
    world.apply()
    ran = world.vmproxy("verify", "-o", "json", "--service", "demo/web-pods", "--service", "demo/echo-pods")
    assert ran.code == 4
    for check in ran.json["hosts"][0]["checks"]:
        assert (check["ok"], check["hop"]) == (False, "endpoint")
        assert "10.244.1.0/24 via 192.168.100.20" in check["detail"]
    warnings = world.vmproxy("plan", "-o", "json").json["hosts"][0]["warnings"]
    assert any("demo/web-pods" in warning and "10.244.1.0/24" in warning for warning in warnings)
    world.change_network(routes=[{"to": "10.244.1.0/24", "via": "192.168.100.20"}])
    assert world.drift() == ["/etc/vmproxy/routes.json: sha256"]
    world.apply()
    assert answered(world)


def test_another_api_address_changes_live(world: World) -> None:
    world.in_namespace("control", "ip", "addr", "replace", f"{MOVED_CONTROL}/24", "dev", "eth0")
    site = world.site()
    world.change(cluster={**site["cluster"], "server": f"https://{MOVED_CONTROL}:6443"})
    assert world.drift() == ["/etc/vmproxy/kubeconfig: sha256", "/etc/vmproxy/credential.json: sha256"]
    world.apply()
    assert answered(world)
    assert MOVED_CONTROL in world.look(f"ss -tn state established dst {MOVED_CONTROL} | tail -n +2")


def knows_vlans(world: World) -> bool:
    """Whether this kernel's bridges can filter VLANs; asked of a bridge made for it."""
    switch = world.status.namespaces["switch"]
    bridge = ["ip", "-n", switch, "link"]
    subprocess.run([*bridge, "add", "try0", "type", "bridge"], check=True)
    try:
        words = [*bridge, "set", "try0", "type", "bridge", "vlan_filtering", "1"]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0
    finally:
        subprocess.run([*bridge, "del", "try0"], check=True)


def test_the_vlan_changes_live_on_the_switch_s_port(world: World) -> None:
    if not knows_vlans(world):
        pytest.skip("this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)")
    before = world.started()
    world.change_network(vlan=7)
    world.change_host(vm={"bootTimeout": "15s"})
    assert world.drift() == ["vlan"]
    ran = world.vmproxy("apply")
    assert ran.code == 1, "nobody else is in VLAN 7: the VM is out of reach, and that is said"
    assert "error:" in ran.err
    assert "7 PVID" in world.look_in("switch", "bridge", "vlan", "show")
    world.reset()
    world.apply()
    assert world.drift() == []
    assert answered(world)
    assert world.started() == before


def test_a_kernel_without_vlans_is_said_and_nothing_changes(world: World) -> None:
    if knows_vlans(world):
        pytest.skip("this kernel's bridges know VLANs")
    world.change_network(vlan=7)
    assert world.drift() == ["vlan"]
    ran = world.vmproxy("apply")
    assert ran.code == 1
    assert "do not support VLANs" in ran.err
    assert "CONFIG_BRIDGE_VLAN_FILTERING" in ran.err
    world.reset()
    assert world.drift() == []
    assert answered(world)


def test_the_switch_changes_live(world: World) -> None:
    """Another bridge, with a cable to the first one."""
    before = world.started()
    switch = world.status.namespaces["switch"]
    ip = ["ip", "-n", switch, "link"]
    subprocess.run([*ip, "add", "br7", "type", "bridge"], check=True)
    subprocess.run([*ip, "add", "a7", "master", "br7", "type", "veth", "peer", "name", "b7"], check=True)
    subprocess.run([*ip, "set", "b7", "master", "br0"], check=True)
    for name in ("br7", "a7", "b7"):
        subprocess.run([*ip, "set", name, "up"], check=True)
    try:
        world.change_host(switch={"name": "br7"})
        assert world.drift() == ["switch"]
        world.apply()
        assert "vmp" in world.look_in("switch", "ip", "-br", "link", "show", "master", "br7")
        assert answered(world)
        world.reset()
        world.apply()
        assert world.drift() == []
    finally:
        world.reset()
        world.apply()
        subprocess.run([*ip, "del", "a7"], check=True)
        subprocess.run([*ip, "del", "br7"], check=True)
    assert world.started() == before
