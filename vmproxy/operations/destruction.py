"""destroy: routes first, then the VM with its disks, then the identity in the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vmproxy.engine.machine import Machine
from vmproxy.engine.reconcile import HostResult
from vmproxy.errors import VmproxyError
from vmproxy.model.seen import ClusterSeen, Unobservable
from vmproxy.model.steps import ClusterStep, Plan, RouteStep, Step, VmStep
from vmproxy.model.topology import Member, Topology
from vmproxy.resources import identity, route, vm

Report = Callable[[str], None]


def destroy_host(
    topology: Topology, member: Member, report: Report, *, yes: bool, going: Sequence[Member]
) -> HostResult:
    """Without `yes` nothing is done and the result's `left` tells what would be.

    `going`: all hosts that this run removes; the last of them takes what they share.
    A cluster that does not answer does not keep the host's part from going; what stays in the
    cluster then is named by the error in the result.
    """
    done: list[Step] = []
    try:
        with Machine(topology, member, report) as machine:
            if not yes:
                cluster, _ = _look_at_cluster(machine)
                routes, on_carrier, in_cluster = _steps(machine, cluster, going)
                return HostResult(member.name, left=Plan((*routes, *on_carrier, *in_cluster)))
            with machine.carrier.lock(report):
                for step in _destroy(machine, going):  # one by one: they stay when a later one fails
                    done.append(step)
    except VmproxyError as exc:
        return HostResult(member.name, tuple(done), error=exc)
    return HostResult(member.name, tuple(done))


def _destroy(machine: Machine, going: Sequence[Member]) -> Iterator[Step]:
    cluster, unreachable = _look_at_cluster(machine)
    routes, on_carrier, in_cluster = _steps(machine, cluster, going)
    yield from machine.change_routes(routes)
    yield from machine.change_vm(on_carrier)
    if unreachable is not None:
        raise VmproxyError(
            f"removed all of {machine.member.name} but its identity in the cluster: {unreachable.message}",
            hint="run destroy again when the cluster answers",
        ) from unreachable
    yield from machine.change_cluster(in_cluster)


def _look_at_cluster(machine: Machine) -> tuple[ClusterSeen | Unobservable, VmproxyError | None]:
    try:
        return machine.observe_cluster(), None
    except VmproxyError as exc:
        return Unobservable(exc.message), exc


def _steps(
    machine: Machine, cluster: ClusterSeen | Unobservable, going: Sequence[Member]
) -> tuple[tuple[RouteStep, ...], tuple[VmStep, ...], tuple[ClusterStep, ...]]:
    """In the order in which they are done."""
    own = machine.member.vm
    carrier, client = machine.carrier.observe(), machine.client.observe()
    machine.note_carrier(carrier)
    known = machine.topology.cluster.service_cidrs
    ranges = cluster.service_cidrs if isinstance(cluster, ClusterSeen) else known
    accounts = frozenset(one.vm.account for one in going)
    routes = route.wanted(ranges, own.address.ip)
    marked = carrier.marker.routes if carrier.marker else ()
    return (
        route.remove_plan(routes, marked, client, why="before the VM behind it goes", cold=True),
        vm.destroy_plan(own.name, site=own.site, host=own.host, seen=carrier),
        identity.destroy_plan(own, cluster, going=accounts),
    )
