"""The VM's identity in the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vmproxy.engine.look import Look
from vmproxy.engine.phases.phase import Leaving, Phase, Unsettled
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.model.finding import Finding, failed
from vmproxy.model.steps import ClusterStep, Step
from vmproxy.resources import identity, kubeproxy
from vmproxy.resources.kubeproxy import NO_DNS


def _plan(scope: Scope, world: World) -> Sequence[ClusterStep]:
    return identity.plan(scope.member.vm, world.cluster)


def _unsettled(scope: Scope, _world: World) -> Unsettled:
    return Unsettled(warnings=tuple(identity.warnings(scope.member.vm, scope.site.grants())))


def _expected(_scope: Scope, world: World, steps: Sequence[Step]) -> World:
    return replace(world, cluster=identity.after(world.cluster, steps))


def _removal(scope: Scope, leaving: Leaving) -> Sequence[ClusterStep]:
    return identity.destroy_plan(scope.member.vm, leaving.cluster, going=leaving.accounts)


def _again(scope: Scope, world: World) -> World:
    return replace(world, cluster=scope.cluster_seen())


def _files(scope: Scope) -> Mapping[str, bytes]:
    documents = identity.documents(scope.member.vm)
    return {f"cluster/{name}": text.encode() for name, text in documents.items()}


def _findings(look: Look) -> Iterator[Finding]:
    scope = look.scope
    try:
        seen = look.cluster()
        missing = scope.site.cluster.missing_rights(scope.member.vm.account)
    except VmproxyError as exc:
        yield failed("cluster", exc)
        return
    yield Finding("cluster", ok=True, detail=f"Kubernetes {seen.version} at {seen.server}")
    if name := kubeproxy.unresolved(scope.member.vm, seen):
        yield Finding("API server's name", ok=False, detail=f"the VM cannot resolve {name}", next_step=NO_DNS)
    yield Finding("Service ranges", ok=True, detail=", ".join(map(str, seen.service_cidrs)))
    yield Finding(
        "rights in the cluster",
        not missing,
        "missing: " + ", ".join(missing) if missing else "all that apply needs",
        "ask the cluster's administrator for them" if missing else "",
    )
    acts_for = scope.member.vm.acts_for
    if acts_for:
        known = any(node.name == acts_for for node in seen.nodes)
        detail = f"{acts_for} is there" if known else f"there is no Node {acts_for}"
        yield Finding("actsFor", known, detail, "" if known else "correct hosts[].actsFor, or omit it")


def _problems(look: Look) -> Iterator[str]:
    try:
        look.cluster()
    except VmproxyError as exc:
        yield exc.message


IDENTITY = Phase(
    "identity",
    _plan,
    _removal,
    Scope.change_cluster,
    findings=_findings,
    problems=_problems,
    broken=lambda _look, _target, _answer: None,
    unsettled=_unsettled,
    after=_again,
    expected=_expected,
    files=_files,
)
