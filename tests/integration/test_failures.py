"""Bad input and failure: one clear error, the right exit code, nothing lost, and the next apply converges."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.integration.world import Ran, World
from vmproxy import lab
from vmproxy.lab.cluster import ControlPlane

pytestmark = pytest.mark.lab

PROGRAM = "/usr/local/lib/vmproxy/kube-proxy"


def says(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code, ran.err
    assert ran.err.count("error:") == 1, ran.err
    for word in words:
        assert word in ran.err


def test_no_site_file(world: World) -> None:
    world.site_file.unlink()
    says(world.vmproxy("apply"), 2, "vmproxy.yaml", "vmproxy init")


def test_every_mistake_of_the_site_file_at_once(world: World) -> None:
    world.change(hots=[], proxy={"mode": "ipvs", "tokenTTL": "1m"})
    says(world.vmproxy("plan"), 2, "vmproxy.yaml:", "hots", "mode", "tokenTTL")


def test_a_host_that_is_not_there(world: World) -> None:
    says(world.vmproxy("plan", "--host", "win-99"), 2, "win-99", "win-01")


def test_a_wrong_ca(world: World, tmp_path: Path) -> None:
    other = ControlPlane(tmp_path, world.control().network, {}).pki
    other.make(server_names=("127.0.0.1",))
    kubeconfig = _kubeconfig(world)
    kubeconfig["clusters"][0]["cluster"].pop("certificate-authority-data")
    kubeconfig["clusters"][0]["cluster"]["certificate-authority"] = str(other.certificate_file("ca"))
    _use(world, tmp_path, kubeconfig)
    says(world.vmproxy("plan"), 1, "certificate is not trusted")


def test_a_missing_right_is_named(world: World, tmp_path: Path) -> None:
    """A ServiceAccount without rights, as an operator."""
    with world.api() as api:
        path = "/api/v1/namespaces/demo/serviceaccounts/default/token"
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = api.post(path, json=kind).raise_for_status().json()["status"]["token"]
    kubeconfig = _kubeconfig(world)
    kubeconfig["users"][0]["user"] = {"token": token}
    _use(world, tmp_path, kubeconfig)
    says(world.vmproxy("plan"), 1, "cannot", "forbidden")
    ran = world.vmproxy("doctor")
    assert ran.code == 4
    assert "forbidden" in ran.out


def test_a_kubeconfig_that_is_not_there(world: World) -> None:
    world.change(cluster={"kubeconfig": "/nowhere/config", "server": "https://192.168.100.2:6443"})
    says(world.vmproxy("plan"), 2, "/nowhere/config", "cluster.kubeconfig")


def test_a_loopback_api_server_is_of_no_use_to_the_vm(world: World) -> None:
    site = world.site()
    site["cluster"].pop("server")
    world.write(site)
    says(world.vmproxy("plan"), 2, "cluster.server")


def test_an_unknown_image(world: World) -> None:
    world.change(image={"name": "plan-9"})
    says(world.vmproxy("plan"), 2, "plan-9", "debian-13")


def test_an_image_that_is_missing_or_is_none(world: World, tmp_path: Path) -> None:
    world.change(image={"path": str(tmp_path / "none.qcow2")})
    says(world.vmproxy("plan"), 1, "none.qcow2")
    (tmp_path / "text.qcow2").write_text("not a disk\n" * 1000)
    world.change(image={"path": str(tmp_path / "text.qcow2")})
    before = world.started()
    says(world.vmproxy("apply", "--yes"), 1, "not a disk image")
    assert world.started() == before, "found before anything is changed"


def test_a_switch_that_is_not_there(world: World) -> None:
    world.change_host(switch={"name": "br9"})
    says(world.vmproxy("plan"), 2, "br9")


def test_more_memory_than_there_is(world: World) -> None:
    before = world.started()
    world.change_host(vm={"memory": "900GiB"})
    says(world.vmproxy("apply", "--yes"), 1, "memory", "free")
    assert world.started() == before, "the VM that runs goes on"
    assert world.curl("web") in {"web-1", "web-2"}
    world.reset()
    assert world.drift() == []


def test_a_kube_proxy_of_another_version_never_takes_its_place(world: World, tmp_path: Path) -> None:
    """A program that tells another version, and a file that is none."""
    other = tmp_path / "kube-proxy"
    for text, words in (("#!/bin/sh\necho Kubernetes v1.20.0\n", "v1.20.0"), ("none\n", "does not run")):
        other.write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        world.change(proxy={"version": "v1.36.3", "binary": {"url": other.as_uri(), "sha256": digest}})
        says(world.vmproxy("apply"), 1, "not v1.36.3", words, "proxy.binary")
    world.reset()
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_on_this_machine(world: World, small_disk: Path) -> None:
    """Another site, so that the VM of the other tests stays."""
    env = {"XDG_STATE_HOME": str(small_disk)}
    world.change(name="full")
    world.change_network(address="192.168.100.8/24")
    world.in_namespace("host", "ip", "route", "del", "10.96.0.0/16")
    try:
        says(world.vmproxy("apply", env=env), 1, "vmproxy-full-win-01", "MiB are needed", "free disk space")
        assert not list(small_disk.glob("vmproxy/qemu/*/vmproxy-full-win-01/vm.json"))
    finally:
        assert world.vmproxy("destroy", "--yes", env=env).code == 0


def test_a_broken_kube_proxy_is_never_given_the_range(world: World) -> None:
    """The API is not where the site file says: kube-proxy can not sync, so the route stays away."""
    world.in_namespace("host", "ip", "route", "del", "10.96.0.0/16")
    world.guest("rm -f /etc/vmproxy/token")
    site = world.site()
    world.change(cluster={**site["cluster"], "server": "https://192.168.100.99:6443"})
    ran = world.vmproxy("apply", "-o", "json")
    assert ran.code == 1
    assert "10.96.0.0/16" not in world.look_in("host", "ip", "route")
    (host,) = ran.json["hosts"]
    assert "kube-proxy" in host["error"]["message"]
    done = {outcome["target"] for outcome in host["outcomes"]}
    assert {"/etc/vmproxy/kubeconfig", "/etc/vmproxy/credential.json"} <= done
    world.reset()
    world.apply()
    assert world.drift() == []


def test_a_running_vm_is_not_replaced_without_yes(world: World) -> None:
    """QEMU still runs with the disk that is gone from its folder."""
    world.remove_disk()
    ran = world.vmproxy("apply")
    assert ran.code == 3
    assert "disk" in ran.out
    world.apply("--yes")
    assert world.drift() == []


def test_destroy_without_the_api_server_removes_the_host_s_part_and_the_rest_later(world: World) -> None:
    world.control().process("kube-apiserver").stop()
    try:
        ran = world.vmproxy("destroy", "--yes", "-o", "json")
        says(ran, 1, "but its identity in the cluster", "run destroy again")
        (host,) = ran.json["hosts"]
        assert [outcome["verb"] for outcome in host["outcomes"]] == ["remove", "delete"]
        assert "cannot reach the API server" in host["error"]["message"]
        assert "10.96" not in world.look_in("host", "ip", "route")
        assert not world.vm_folder.exists()
    finally:
        lab.up(name=world.name, report=print)
    again = world.vmproxy("destroy", "--yes", "-o", "json")
    assert again.code == 0, again.err
    assert {outcome["place"] for outcome in again.json["hosts"][0]["outcomes"]} == {"cluster"}


def test_killed_during_the_trial_the_trial_route_is_taken_away(world: World) -> None:
    world.in_namespace("host", "ip", "route", "del", "10.96.0.0/16")
    world.in_namespace("host", "ip", "route", "add", "10.96.0.1/32", "via", "192.168.100.5")
    note = world.vm_folder / "vm.json"
    prefix = '"routes": ['
    trial = '{"prefix": "10.96.0.1/32", "via": "192.168.100.5"},'
    note.write_text(note.read_text().replace(prefix, prefix + trial))
    world.apply()
    routes = world.look_in("host", "ip", "route")
    assert "10.96.0.1 " not in routes
    assert "10.96.0.0/16 via 192.168.100.5" in routes


def test_the_vm_outlives_the_command_and_has_no_part_of_this_machine_s_network(world: World) -> None:
    pid = int((world.vm_folder / "qemu.pid").read_text())
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def test_destroy_shows_first_then_leaves_nothing_and_apply_makes_it_again(world: World) -> None:
    """At once, while the namespace is still being deleted."""
    shown = world.vmproxy("destroy")
    assert shown.code == 3
    assert "10.96.0.0/16" in shown.out
    assert world.drift() == []
    assert world.vmproxy("destroy", "--yes").code == 0
    assert "10.96" not in world.look_in("host", "ip", "route")
    assert not world.vm_folder.exists()
    assert "vmp" not in world.look_in("switch", "ip", "-br", "link")
    with world.api() as api:
        assert api.get("/api/v1/namespaces/vmproxy").json().get("status", {}).get("phase") != "Active"
        roles = api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").json()["items"]
    assert not [role for role in roles if role["metadata"]["name"].startswith("vmproxy-it")]
    assert world.vmproxy("destroy", "--yes").code == 0
    world.apply()
    assert world.drift() == []


def _kubeconfig(world: World) -> dict[str, list[dict[str, dict[str, str]]]]:
    assert world.status.kubeconfig is not None
    loaded: dict[str, list[dict[str, dict[str, str]]]] = YAML(typ="safe").load(world.status.kubeconfig)
    return loaded


def _use(world: World, folder: Path, kubeconfig: object) -> None:
    path = folder / "kubeconfig"
    with path.open("w") as file:
        YAML().dump(kubeconfig, file)
    world.change(cluster={"kubeconfig": str(path), "server": "https://192.168.100.2:6443"})
