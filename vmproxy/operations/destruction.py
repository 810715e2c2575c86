"""destroy: routes first, then the VM with its disks, then the identity in the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vmproxy.engine.machine import Machine
from vmproxy.engine.reconcile import HostResult
from vmproxy.errors import VmproxyError
from vmproxy.model.seen import ClusterSeen, HostSeen, Unobservable
from vmproxy.model.steps import ClusterStep, HostStep, Plan, Step
from vmproxy.resources import identity, route, vm
from vmproxy.site.model import Host, Site

Report = Callable[[str], None]


def destroy_host(site: Site, host: Host, report: Report, *, yes: bool, going: Sequence[Host]) -> HostResult:
    """Without `yes` nothing is done and the result's `left` tells what would be.

    `going`: all hosts that this run removes; the last of them takes what they share.
    A cluster that does not answer does not keep the host's part from going; what stays in the
    cluster then is named by the error in the result.
    """
    done: list[Step] = []
    try:
        with Machine(site, host, report) as machine:
            if not yes:
                cluster, _ = _look_at_cluster(machine)
                on_host, in_cluster = _steps(machine, machine.place.observe(), cluster, going)
                return HostResult(host.name, left=Plan((*on_host, *in_cluster)))
            with machine.place.lock(report):
                for step in _destroy(machine, going):  # one by one: they stay when a later one fails
                    done.append(step)
    except VmproxyError as exc:
        return HostResult(host.name, tuple(done), error=exc)
    return HostResult(host.name, tuple(done))


def _destroy(machine: Machine, going: Sequence[Host]) -> Iterator[Step]:
    cluster, unreachable = _look_at_cluster(machine)
    on_host, in_cluster = _steps(machine, machine.place.observe(), cluster, going)
    yield from machine.change_host(on_host)
    if unreachable is not None:
        raise VmproxyError(
            f"removed all of {machine.host.name} but its identity in the cluster: {unreachable.message}",
            hint="run destroy again when the cluster answers",
        ) from unreachable
    yield from machine.change_cluster(in_cluster)


def _look_at_cluster(machine: Machine) -> tuple[ClusterSeen | Unobservable, VmproxyError | None]:
    try:
        return machine.observe_cluster(), None
    except VmproxyError as exc:
        return Unobservable(exc.message), exc


def _steps(
    machine: Machine, seen: HostSeen, cluster: ClusterSeen | Unobservable, going: Sequence[Host]
) -> tuple[tuple[HostStep, ...], tuple[ClusterStep, ...]]:
    """On the host, and in the cluster after it."""
    site, host = machine.site, machine.host
    machine.note_host(seen)
    ranges = cluster.service_cidrs if isinstance(cluster, ClusterSeen) else site.cluster.service_cidrs
    accounts = frozenset(site.account(one) for one in going)
    routes = route.wanted(ranges, host.network.address.ip)
    on_host = (
        *route.remove_plan(routes, seen, why="before the VM behind it goes", cold=True),
        *vm.destroy_plan(site.vm_name(host), site=site.name, host=host.name, seen=seen),
    )
    return on_host, identity.destroy_plan(site, host, cluster, going=accounts)
