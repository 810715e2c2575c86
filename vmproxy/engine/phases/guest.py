"""What is inside the VM, until kube-proxy works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vmproxy.engine.endpoints import Target, broken
from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Hop, Leaving, Phase, Unsettled
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer
from vmproxy.model.finding import Finding, failed
from vmproxy.model.seen import CarrierSeen, ClientSeen, GuestSeen, ServiceSeen, Unobservable
from vmproxy.model.steps import Step
from vmproxy.resources import guest, kubeproxy, podroutes


def _plan(scope: Scope, world: World) -> Sequence[Step]:
    return guest.plan(scope.wanted_guest(world), world.guest)


def _unsettled(scope: Scope, world: World) -> Unsettled:
    wanted = scope.wanted_guest(world)
    unseen = guest.unsettled(wanted, world.guest)
    if isinstance(world.guest, Unobservable):
        unseen = (f"guest: {world.guest.because}; observed after the start",)
    return Unsettled(unseen, guest.warnings(wanted, world.guest))


def _goes_with_the_vm(_scope: Scope, _leaving: Leaving) -> Sequence[Step]:
    return ()


def _let_in(scope: Scope, world: World) -> World:
    """Wait for a VM that boots, until it lets us in and has what kube-proxy needs."""
    if not isinstance(world.guest, Unobservable):
        return world
    scope.wait_for_boot()
    world = scope.look()
    if isinstance(world.guest, GuestSeen) and not world.guest.writes_rules:
        scope.wait_for_cloud_init()
        world = scope.look()
    return replace(world, booted=True)


def _files(scope: Scope) -> Mapping[str, bytes]:
    """Without the host's own addresses among the clients: no host is asked."""
    nothing = CarrierSeen(None, None), ClientSeen(()), Unobservable("not observed")
    wanted = scope.wanted_guest(World(scope.site.cluster_seen(), *nothing))
    found = {path: file.content for path, file in wanted.files.items()}
    return {f"guest/{path.lstrip('/')}": content for path, content in found.items() if content is not None}


def _findings(look: Look) -> Iterator[Finding]:
    """Only the way to pods: doctor looks at what a VM would be made on, and plan at what is in one. Nothing
    where the cluster or the host cannot be asked, which other phases have said."""
    cluster, host = or_why(look.cluster), or_why(look.host_addresses)
    if isinstance(cluster, Unobservable) or isinstance(host, Unobservable):
        return
    try:
        found = podroutes.findings(look.scope.member.vm, cluster, look.scope.site.services(), host)
    except VmproxyError as exc:
        yield failed("pod routes", exc)
        return
    yield from found
    own = look.scope.member.vm
    if not found:
        mode = own.network.pod_routes
        ways = "the VM's gateway has to know the way to pods" if mode == "none" else "it fits the endpoints"
        yield Finding("pod routes", ok=True, detail=f"podRoutes: {mode}: {ways}")
    yield from (Finding("pod routes", ok=True, detail=text) for text in podroutes.notes(own, cluster))


def _problems(look: Look) -> Iterator[str]:
    if isinstance(or_why(look.link), Unobservable):  # the VM's own problem
        return
    seen = or_why(look.guest)
    if isinstance(seen, Unobservable):
        yield seen.because
        return
    yield from (f"{item.field}: {item.seen}" for item in kubeproxy.health(seen))


def _broken(look: Look, target: Target, answer: Answer) -> tuple[Hop, str] | None:
    link = or_why(look.link)
    if isinstance(link, Unobservable):  # the VM's own problem
        return None
    own, service = look.scope.member.vm, target.service
    if not service.usable(own.acts_for):
        return "endpoints", _unusable(service, own.acts_for)
    if not link.rule_present(service.cluster_ip, target.port, target.protocol):
        return "proxy", "kube-proxy has no rule for it; see: vmproxy logs"
    if lost := broken(link, [target], look.ways())[0]:
        return "endpoint", lost
    if answer.ok is None:
        return None
    return "proxy", f"{answer.detail}, though the rule is there and the endpoints answer the VM"


def _unusable(service: ServiceSeen, node: str | None) -> str:
    if not any(endpoint.ready for endpoint in service.endpoints):
        return "the Service has no ready endpoints"
    where = f"none is on Node {node}" if node else "a plain gateway (no actsFor) is on no Node"
    return f"the Service has internalTrafficPolicy: Local, and of its ready endpoints {where}"


GUEST = Phase(
    "guest",
    _plan,
    _goes_with_the_vm,
    Scope.change_guest,
    findings=_findings,
    problems=_problems,
    broken=_broken,
    unsettled=_unsettled,
    ready=_let_in,
    files=_files,
)
