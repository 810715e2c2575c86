"""The whole job with a VM of its own kernel: what a container can not show, once on each kind of host."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.test_site_changes import answered
from tests.integration.world import World
from vmproxy import wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

MODULES = ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils")


@pytest.mark.vm("firmware, boot loader, kernel and modules; the seed on a disc; the packet path through a VM")
def test_from_nothing_to_an_answer_and_back_to_nothing_to_do(bare: World) -> None:
    world = bare
    world.reset()
    assert world.vmproxy("destroy", "--yes").code == 0
    world.apply()
    assert world.drift() == []
    assert answered(world)
    assert world.curl("web-pods", "/clientip") == "192.168.100.5", "the backend sees the VM"
    assert "nothing to do" in world.apply().out
    assert "cloud-amd64" in world.guest("uname -r"), "the VM's own kernel"
    assert world.guest("cloud-init query subplatform").startswith("config-disk (/dev/"), "the attached seed"
    assert int(world.guest("sysctl -n net.netfilter.nf_conntrack_max")) >= 131072, "set by kube-proxy"
    for module in MODULES:
        assert f"{module}.ko" in world.guest(f"modinfo -n {module}")
    assert world.guest("systemctl --failed --no-legend") == ""


@pytest.mark.vm("a kill -9 of QEMU is a power failure of its kernel", on=("qemu",))
def test_a_vm_that_lost_its_power_is_started_again(world: World) -> None:
    world.kill_vm()
    assert world.drift() == ["state"]
    outcomes = world.apply("-o", "json").json["hosts"][0]["outcomes"]
    assert [outcome["verb"] for outcome in outcomes] == ["start"], "all else comes back by itself"
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


@pytest.mark.vm("a restart of the guest's kernel, through firmware and boot loader", on=("qemu",))
def test_after_a_restart_of_the_guest_all_comes_back_and_the_token_is_renewed(world: World) -> None:
    boot, token = world.guest(BOOT_ID), world.guest("cat /etc/vmproxy/token")
    world.guest("systemctl reboot")

    def booted() -> bool | str:
        try:
            return world.guest(BOOT_ID) != boot or "not restarted yet"
        except AssertionError as exc:
            return str(exc)

    wait.until("the guest's restart", booted, timeout=300)
    wait.until("an answer without any apply", lambda: _answers(world), timeout=120)
    assert world.drift() == []

    def renewed() -> bool | str:
        return world.guest("cat /etc/vmproxy/token") != token or "the token of before"

    wait.until("the renewal after the restart", renewed, timeout=240, every=2.0)
    assert world.drift() == []


BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def _answers(world: World) -> bool | str:
    try:
        return world.curl("web") in {"web-1", "web-2"}
    except subprocess.CalledProcessError as exc:
        return f"curl: {exc.returncode}"
