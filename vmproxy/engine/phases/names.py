"""The cluster's names on the host: asked of its DNS when the way there works, removed before that goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases.phase import Hop, Leaving, Phase, Progress, Unsettled
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import Answer, Resolved
from vmproxy.model.finding import Finding, checked, failed
from vmproxy.model.net import Address
from vmproxy.model.seen import ClientSeen, ClusterSeen, DnsSeen, Unobservable
from vmproxy.model.steps import NameStep
from vmproxy.resources import clientnames


def wrong(found: Resolved, address: Address) -> str | None:
    """Why that is not how the name is to be resolved: to that one address by every way. None: it is."""
    lost = [
        f"{way}: {seen if isinstance(seen, str) else ', '.join(map(str, seen))}"
        for way, seen in found.ways.items()
        if seen != (address,)
    ]
    return f"{found.name} is not {address} by {'; '.join(lost)}" if lost else None


def void(policy: str) -> str:
    return (
        f"a policy has rules for names, under {policy}: while that key exists, Windows ignores all rules but "
        "the policy's"
    )


def _plan(scope: Scope, world: World) -> Sequence[NameStep]:
    return _steps(scope, world.cluster, world.client)


def _steps(scope: Scope, cluster: ClusterSeen, client: ClientSeen) -> Sequence[NameStep]:
    rules = scope.wanted_names(cluster)
    return clientnames.plan(rules, client, comment=scope.comment, client=scope.member.client.name)


def _unsettled(scope: Scope, world: World) -> Unsettled:
    policy = world.client.policy if scope.site.topology.dns else None
    return Unsettled(warnings=(f"{void(policy)}; run: vmproxy doctor",) if policy else ())


def _removal(scope: Scope, leaving: Leaving) -> Sequence[NameStep]:
    return clientnames.remove_plan(leaving.client, comment=scope.comment)


def _answers(scope: Scope, world: World, progress: Progress) -> None:
    if progress.steps and isinstance(world.cluster.dns, DnsSeen):
        scope.try_names(world.cluster.dns)


def _files(scope: Scope) -> Mapping[str, bytes]:
    rules = [
        {"namespaces": rule.namespaces, "servers": list(map(str, rule.servers)), "comment": rule.comment}
        for rule in scope.wanted_names(scope.site.cluster_seen())
    ]
    return {"names.json": json.dumps(rules, indent=2).encode() + b"\n"} if rules else {}


def _findings(look: Look) -> Iterator[Finding]:
    """Nothing where the cluster or the host cannot be looked at, which other phases have said."""
    cluster, scope = or_why(look.cluster), look.scope
    if isinstance(cluster, Unobservable) or cluster.dns is None:
        return
    if isinstance(or_why(look.carrier), Unobservable):
        return
    try:
        client = look.client()
        _steps(scope, cluster, client)
    except VmproxyError as exc:
        yield failed("names", exc)
        return
    assert isinstance(cluster.dns, DnsSeen)
    yield Finding("names", ok=True, detail=f"{cluster.dns.domain} is asked of {cluster.dns.server}")
    yield _policies(client, cluster.dns)
    if client.serves_dns:
        yield Finding("DNS server on the host", ok=True, detail=_forwarder(cluster.dns))


def _policies(client: ClientSeen, dns: DnsSeen) -> Finding:
    return checked(
        "policies for names",
        ok=client.policy is None,
        detail=void(client.policy) if client.policy else "none",
        otherwise="add the rule to the Group Policy Object that has the others: Add-DnsClientNrptRule "
        f"-GpoName GPO -Namespace '.{dns.domain}' -NameServers {dns.server}; or remove that key where no "
        "policy needs it",
    )


def _forwarder(dns: DnsSeen) -> str:
    """For the reader: vmproxy gives the names to the host itself only."""
    return (
        "runs: for the machines that ask it, Add-DnsServerConditionalForwarderZone "
        f"-Name {dns.domain} -MasterServers {dns.server}"
    )


def _problems(look: Look) -> Iterator[str]:
    """A real look-up of the canary's name, where nothing before it is known to be wrong."""
    cluster, guest = or_why(look.cluster), or_why(look.guest)
    if isinstance(cluster, Unobservable) or isinstance(guest, Unobservable):
        return
    if isinstance(cluster.dns, Unobservable):
        yield cluster.dns.because
    if not isinstance(cluster.dns, DnsSeen):
        return
    if policy := look.client().policy:
        yield void(policy)
    address = cluster.canary[0]
    if not look.scope.ask_through(cluster).ok:  # the routes' own problem
        return
    canary = next((item.name for item in look.scope.site.services() if item.cluster_ip == address), None)
    for found in look.scope.client.resolve([cluster.dns.name(canary)] if canary else ()):
        if why := wrong(found, address):
            yield why


def _broken(_look: Look, _target: Target, _answer: Answer) -> tuple[Hop, str] | None:
    """None: a connection to an address needs no name."""
    return None


NAMES = Phase(
    "names",
    _plan,
    _removal,
    Scope.change_host,
    findings=_findings,
    problems=_problems,
    broken=_broken,
    unsettled=_unsettled,
    gate=_answers,
    files=_files,
)
