"""The way of the host's containers to the VM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vmproxy.containers import cni as cni_file
from vmproxy.containers import containerd, l2bridge
from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Hop, Leaving, Phase, Unsettled
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer
from vmproxy.model.finding import Finding, failed
from vmproxy.model.seen import GuestSeen, Unobservable
from vmproxy.model.steps import ContainerStep
from vmproxy.resources import cni, containers
from vmproxy.util import assets


def _plan(scope: Scope, world: World) -> Sequence[ContainerStep]:
    marker, vm, host = world.carrier.marker, scope.member.vm, scope.member.name
    forwarding, files = (marker.forwarding, marker.cni) if marker else ((), ())
    if world.containers is None:
        going = tuple(alias for alias in forwarding if not containers.of_switch(vm, alias))
        return (*containers.remove_plan(going), *cni.remove_plan(vm, files))
    wanted = cni.content(vm, world.cluster, world.client.addresses) if cni.file(vm) else None
    return (
        *containers.plan(vm, world.containers, forwarding, host=host),
        *cni.plan(vm, wanted, world.containers.cni, files, host=host),
    )


def _unsettled(scope: Scope, world: World) -> Unsettled:
    if world.containers is None:
        return Unsettled()
    vm, ranges = scope.member.vm, world.cluster.service_cidrs
    lacks = containers.warnings(vm, ranges, world.containers)
    others = cni.warnings(vm, world.containers.cni)
    return Unsettled(warnings=(*containers.experimental(vm), *lacks, *others))


def _removal(scope: Scope, leaving: Leaving) -> Sequence[ContainerStep]:
    marker = leaving.carrier.marker
    if marker is None:
        return ()
    return (
        *cni.remove_plan(scope.member.vm, marker.cni),
        *containers.remove_plan(marker.forwarding),
    )


def _findings(look: Look) -> Iterator[Finding]:
    """Nothing where the host cannot be looked at, which the VM's phase has said."""
    vm, carrier = look.scope.member.vm, or_why(look.carrier)
    if vm.containers is None or isinstance(carrier, Unobservable):
        return
    try:
        seen = look.containers()
        assert seen is not None
        network = containers.check(vm, seen, host=look.scope.member.name)
    except VmproxyError as exc:
        yield failed("containers", exc)
        return
    yield Finding("containers", ok=True, detail=f"{network.name}: {network.kind}, {vm.containers.subnet}")
    for why in containers.experimental(vm):
        yield Finding("container gateway", ok=True, detail=why)
    cluster = or_why(look.cluster)
    if isinstance(cluster, Unobservable):
        return
    lacks = containers.warnings(vm, cluster.service_cidrs, seen)
    for lack in lacks:
        yield Finding("container policies", ok=False, detail=lack, next_step=_POLICIES)
    if not lacks:
        yield Finding("container policies", ok=True, detail=f"{len(seen.endpoints)} endpoints have them")


_POLICIES = (
    "compare the network plugin's configuration with what `vmproxy render` writes into containers/; policies "
    "are given to an endpoint when it is made: start its container anew"
)


def _files(scope: Scope) -> Mapping[str, bytes]:
    """For review, and for those who make the network. The host is asked only for its own address, where the
    site file has none."""
    vm = scope.member.vm
    if vm.containers is None:
        return {}
    known = vm.containers.host_address and vm.carrier.own is None
    host = () if known else scope.client.observe().addresses
    network = cni.network(vm, scope.site.cluster_seen(), host)
    folders = containerd.Folders(configurations=vm.containers.cni.directory)
    found = {
        f"containers/{cni_file.file_name(vm.site, vm.host)}": cni_file.text(network),
        "containers/containerd-2.toml": containerd.fragment(2, folders, note=network.note),
        "containers/containerd-3.toml": containerd.fragment(3, folders, note=network.note),
        f"containers/{l2bridge.DATA}": l2bridge.text(network),
        **{name: assets.text(name) for name in l2bridge.SCRIPTS},
    }
    return {name: text.encode() for name, text in found.items()}


def _problems(look: Look) -> Iterator[str]:
    """The host's own Services are answered without it, the containers' are not."""
    yield from _of_host(look)
    yield from _of_guest(look)


def _of_guest(look: Look) -> Iterator[str]:
    """Nothing where it cannot be looked at, which its own phase says."""
    if isinstance(seen := or_why(look.guest), GuestSeen):
        yield from containers.without_gateway(look.scope.member.vm, seen)


def _of_host(look: Look) -> Iterator[str]:
    vm, seen = look.scope.member.vm, or_why(look.containers)
    if vm.containers is None or seen is None:
        return
    if isinstance(seen, Unobservable):
        yield seen.because
        return
    try:
        steps = containers.plan(vm, seen, (), host=look.scope.member.name)
    except VmproxyError as exc:
        yield exc.message
        return
    yield from (f"{step.target} is off: the containers of {vm.containers.network} need it" for step in steps)


def _broken(look: Look, _target: Target, answer: Answer) -> tuple[Hop, str] | None:
    """Of a connection from a container: what is before the host's own way. Of a nat network, which the site
    file does not have, only that the host itself is answered is known."""
    if answer.container is None:
        return None
    vm, seen = look.scope.member.vm, look.containers()
    if seen is not None:
        for why in (*_of_host(look), *containers.warnings(vm, look.cluster().service_cidrs, seen)):
            return "container", why
        for why in _of_guest(look):
            return "vm", why
    if answer.host_ok:
        host = look.scope.member.client.name
        return "container", f"{host} reaches it, its container does not: {answer.detail}"
    return None


CONTAINERS = Phase(
    "containers",
    _plan,
    _removal,
    Scope.change_host,
    findings=_findings,
    problems=_problems,
    broken=_broken,
    unsettled=_unsettled,
    files=_files,
)
