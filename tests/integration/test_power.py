"""Power failure and restart of a VM with a kernel of its own."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.world import RESTART_SECONDS, World
from vmproxy.util import wait

pytestmark = pytest.mark.lab


@pytest.mark.vm("a kill -9 of QEMU is a power failure of its kernel")
def test_a_vm_that_lost_its_power_is_started_again(settled: World) -> None:
    world = settled
    world.kill_vm()
    assert world.drift() == ["state"]
    outcomes = world.apply("-o", "json").json["hosts"][0]["outcomes"]
    assert [outcome["verb"] for outcome in outcomes] == ["start"], "all else comes back by itself"
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


@pytest.mark.vm("a restart of the guest's kernel, through firmware and boot loader")
def test_after_a_restart_with_an_expired_token_all_comes_back_and_an_older_one_is_renewed(
    settled: World,
) -> None:
    """As after a week off: kube-proxy has no rules and no good token when it starts."""
    world = settled
    world.expire_token()
    world.restart()
    wait.until("an answer without any apply", lambda: _answers(world), timeout=RESTART_SECONDS)
    assert world.drift() == []
    token = world.look("cat /etc/vmproxy/token")

    def renewed() -> bool | str:
        return world.look("cat /etc/vmproxy/token") != token or "the token of before"

    world.guest("date -s '+13 hours'")  # as after a pause: half of the token's life is over
    wait.until("the renewal by the wall clock", renewed, timeout=RESTART_SECONDS, every=2.0)
    world.guest("date -s '-13 hours'")
    assert world.drift() == []


def _answers(world: World) -> bool | str:
    try:
        return world.curl("web") in {"web-1", "web-2"}
    except subprocess.CalledProcessError as exc:
        return f"curl: {exc.returncode}"
