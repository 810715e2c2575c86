"""The commands that only look, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.world import World

pytestmark = pytest.mark.lab


def test_doctor_finds_nothing_wrong_and_says_what_it_looked_at(world: World) -> None:
    ran = world.vmproxy("doctor", "-o", "json")
    assert ran.code == 0, ran.out
    findings = ran.json["hosts"][0]["findings"]
    assert all(finding["ok"] for finding in findings)
    looked_at = {finding["check"] for finding in findings}
    assert {
        "memory",
        "disk",
        "acceleration",
        "cluster",
        "rights in the cluster",
        "switch",
        "routes",
    } <= looked_at
    assert "Service ranges" in world.vmproxy("doctor").out


def test_doctor_gives_each_finding_a_next_step(world: World) -> None:
    world.change_host(actsFor="nobody", vm={"memory": "900GiB"})
    ran = world.vmproxy("doctor", "-o", "json")
    assert ran.code == 4
    wrong = {item["check"]: item for item in ran.json["hosts"][0]["findings"] if not item["ok"]}
    assert set(wrong) == {"memory", "actsFor"}
    assert all(item["next"] for item in wrong.values())


def test_status_tells_vm_proxy_routes_and_credential(world: World) -> None:
    (host,) = world.vmproxy("status", "-o", "json").json["hosts"]
    assert host["converged"] is True
    assert host["vm"] == {"state": "running", "name": "vmproxy-it-win-01", "address": "192.168.100.5/24"}
    assert (host["proxy"]["state"], host["proxy"]["mode"]) == ("live", "nftables")
    assert host["proxy"]["ruleAgeSeconds"] >= 0
    assert host["route"] == {
        "state": "set",
        "routes": [{"prefix": "10.96.0.0/16", "via": "192.168.100.5"}],
    }
    assert host["credential"]["state"] == "valid"
    assert "yes" in world.vmproxy("status").out


def test_logs_of_kube_proxy_cloud_init_and_the_console(world: World) -> None:
    assert "kube-proxy" in world.vmproxy("logs", "win-01").out
    assert "Cloud-init" in world.vmproxy("logs", "win-01", "--of", "cloud-init").out
    console = world.vmproxy("logs", "--of", "console", "-n", "5").out
    assert 1 <= len(console.splitlines()) <= 5


def test_ssh_runs_a_command_and_gives_its_exit_code(world: World) -> None:
    ran = world.vmproxy("ssh", "win-01", "hostname; cat; exit 7", stdin="told\n")
    assert (ran.code, ran.out) == (7, "vmproxy-it-win-01\ntold\n")


def test_render_writes_what_would_be_pushed_and_no_secret(world: World, tmp_path: Path) -> None:
    ran = world.vmproxy("render", str(tmp_path / "out"))
    assert ran.code == 0, ran.err
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    names = " ".join(map(str, files))
    for part in ("kube-proxy.yaml", "guard.nft", "user-data", "network-config", "identity.yaml"):
        assert part in names
    text = "\n".join(path.read_text(errors="replace") for path in files)
    assert "PRIVATE KEY" not in text
    assert "eyJ" not in text, "no token"


def test_json_is_alone_on_stdout_and_progress_on_stderr(world: World) -> None:
    world.guest("systemctl stop vmproxy-keeper.service vmproxy-kube-proxy.service")
    ran = world.vmproxy("apply", "-o", "json")
    assert ran.code == 0
    assert json.loads(ran.out)["hosts"][0]["error"] is None
    assert "converged" in ran.err


def test_plan_s_exit_code_tells_pending_changes(world: World) -> None:
    assert world.vmproxy("plan", "--exit-code").code == 0
    world.guest("systemctl stop vmproxy-keeper.service vmproxy-kube-proxy.service")
    assert world.vmproxy("plan").code == 0
    assert world.vmproxy("plan", "--exit-code").code == 3
