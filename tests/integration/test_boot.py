"""The whole job with a VM of its own kernel: what a container can not show, once on each kind of host."""

from __future__ import annotations

import pytest

from tests.integration.test_site_changes import answered
from tests.integration.world import World

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
    assert "cloud-amd64" in world.look("uname -r"), "the VM's own kernel"
    assert world.look("cloud-init query subplatform").startswith("config-disk (/dev/"), "the attached seed"
    assert int(world.look("sysctl -n net.netfilter.nf_conntrack_max")) >= 131072, "set by kube-proxy"
    for module in MODULES:
        assert f"{module}.ko" in world.look(f"modinfo -n {module}")
    assert world.look("systemctl --failed --no-legend") == ""
