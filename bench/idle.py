"""A run that finds nothing to do."""

from __future__ import annotations

from bench.measure import medians, tell, timed
from bench.opened import opened
from tests.integration.world import World

ROUNDS = 7


def run(world: World) -> None:
    world.apply("--yes")
    peaks = []

    def apply() -> float:
        ended = timed(world.command("apply"))
        peaks.append(ended.peak)
        return ended.seconds

    login = _ssh_command(world)
    before = _log_ins(world)
    run_, bare = medians(apply, lambda: timed(login).seconds, rounds=ROUNDS)
    connections = (_log_ins(world) - before - ROUNDS - 1) / ROUNDS
    tell(
        "no-change run / bare SSH log-in",
        run_ / bare,
        f"{run_:.2f} s of `vmproxy apply` against {bare:.2f} s of `ssh root@VM true`, medians of "
        f"{ROUNDS} by turns",
    )
    print(f"    SSH connections a run: {connections:.0f}; largest memory: {max(peaks) >> 20} MiB", flush=True)


def _ssh_command(world: World) -> list[str]:
    """The same key and pinned host key, by the ordinary client."""
    with opened(world) as scope:
        return [*scope.ssh_command(), "true"]


def _log_ins(world: World) -> int:
    return int(world.guest("journalctl -u ssh --no-pager | grep -c 'Accepted publickey'"))
