"""verify: real connections from the host to Services, and look-ups of their names; where they break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vmproxy.engine.endpoints import Target, of_nodes, targets_of
from vmproxy.engine.look import Look, or_why
from vmproxy.engine.phases import PHASES
from vmproxy.engine.phases.names import wrong
from vmproxy.engine.phases.phase import Hop
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.hosts.protocols import Answer, Connection
from vmproxy.model.seen import DnsSeen, ServiceSeen, Unobservable
from vmproxy.model.topology import Member
from vmproxy.resources import clientnames
from vmproxy.util.events import Report, Reporter

MOST = 50
"""How many found Services are tried; chosen ones all are."""


@dataclass(frozen=True)
class Check:
    """`ok` None: unknown; UDP that is not answered proves nothing. `hop` None: it did not break."""

    service: str
    protocol: str
    ok: bool | None
    hop: Hop | None
    detail: str


def verify_host(
    site: SiteRun,
    member: Member,
    report: Reporter,
    *,
    services: Sequence[str],
    container: str | None = None,
) -> tuple[Check, ...]:
    """One check for each port of the named Services ("namespace/name" or with ":port"), or of those
    that the cluster has and that have ready endpoints for the VM; then one for each Node whose pods the VM
    does not reach, and one for the name of each Service. `container`: connect from inside that one, by TCP
    and to ports only; None: from the host itself. Raises UsageError for a name not there, and for a
    container of a kind of host that has none."""
    with Scope(site, member, report) as scope:
        look = Look(scope)
        look.carrier()
        try:
            site.cluster_seen()
            targets = _targets(site.services(), services, report, node=member.vm.acts_for)
            targets = [target for target in targets if container is None or target.protocol == "tcp"]
        except UsageError:
            raise
        except VmproxyError as exc:
            return (Check("*", "tcp", ok=False, hop="api", detail=exc.message),)
        origin = f"container {container} of {member.client.name}" if container else member.client.name
        report(f"connecting to {len(targets)} ports from {origin}")
        tried = [_connection(target) for target in targets]
        answers = _from_inside(scope, container, tried) if container else scope.client.probe(tried)
        checks = [_check(look, *pair) for pair in zip(targets, answers, strict=True)]
        if container:
            return tuple(checks)
        lost = () if services else _of_nodes(look, checks, report)
        return (*checks, *lost, *_names(scope, site.services(), targets, report))


def _from_inside(scope: Scope, container: str, tried: Sequence[Connection]) -> list[Answer]:
    """What does not answer the container is tried from the host itself, too."""
    answers = scope.containers.probe(container, tried)
    silent = [connection for connection, answer in zip(tried, answers, strict=True) if not answer.ok]
    own = iter(scope.client.probe(silent) if silent else ())
    return [answer if answer.ok else replace(answer, host_ok=next(own).ok) for answer in answers]


def _of_nodes(look: Look, checks: Sequence[Check], report: Report) -> Iterator[Check]:
    """One for each Node whose pods the VM does not reach, as far as no other check says it. Nothing where the
    VM cannot be asked: the other checks say that."""
    link, site = or_why(look.link), look.scope.site
    if isinstance(link, Unobservable):
        return
    report("trying one endpoint of each Node from the VM")
    known = {check.service for check in checks if check.hop == "endpoint"}
    for target, why in of_nodes(link, site.services(), look.ways()):
        if str(target) not in known:
            yield Check(str(target), target.protocol, ok=False, hop="endpoint", detail=why)


def _names(
    scope: Scope, services: Sequence[ServiceSeen], targets: Sequence[Target], report: Report
) -> Iterator[Check]:
    """Where the site file asks for the cluster's names: those of the canary and of each Service that was
    tried, as the host's own applications look them up."""
    cluster = scope.site.cluster_seen()
    if isinstance(cluster.dns, Unobservable):
        yield Check("*", "dns", ok=False, hop="name", detail=cluster.dns.because)
    if not isinstance(cluster.dns, DnsSeen):
        return
    canary = [item for item in services if item.cluster_ip == cluster.canary[0]]
    asked = {item.name: item.cluster_ip for item in (*canary, *(target.service for target in targets))}
    report(f"looking up {len(asked)} names on {scope.member.client.name}")
    found = scope.client.resolve([cluster.dns.name(service) for service in asked])
    for (service, address), answer in zip(asked.items(), found, strict=True):
        why = wrong(answer, address)
        seen = why or f"{answer.name} is {address} by {' and '.join(answer.ways)}"
        yield Check(service, "dns", ok=why is None, hop="name" if why else None, detail=seen)


def _connection(target: Target) -> Connection:
    """A DNS server answers nothing but a query."""
    plain = Connection(target.protocol, target.service.cluster_ip, target.port)
    if (target.port, target.protocol) != (clientnames.PORT, "udp"):
        return plain
    return replace(plain, payload=clientnames.question("localhost"))


def _check(look: Look, target: Target, answer: Answer) -> Check:
    """Where it breaks is asked from the last phase to the first: one that lacks what it rests on leaves the
    answer to those before it."""
    if answer.ok:
        return Check(str(target), target.protocol, ok=True, hop=None, detail=answer.detail)
    for phase in reversed(PHASES):
        if found := phase.broken(look, target, answer):
            hop, why = found
            return Check(str(target), target.protocol, ok=False, hop=hop, detail=why)
    return Check(str(target), target.protocol, ok=answer.ok, hop=None, detail=answer.detail)


def _targets(
    services: Sequence[ServiceSeen], chosen: Sequence[str], report: Report, *, node: str | None
) -> list[Target]:
    every = list(targets_of(services))
    if chosen:
        return [target for name in chosen for target in _named(name, every)]
    ready = [target for target in every if target.service.usable(node)]
    left_out = len({target.service.name for target in every} - {target.service.name for target in ready})
    if left_out:
        which = "Service" if left_out == 1 else "Services"
        report(f"{left_out} {which} left out: the VM has no ready endpoints for them")
    if len(ready) > MOST:
        report(f"{len(ready)} ports found, trying {MOST}; choose others with --service")
    return ready[:MOST]


def _named(name: str, every: Sequence[Target]) -> list[Target]:
    found = [target for target in every if name in {target.service.name, str(target)}]
    if not found:
        raise UsageError(
            f"no Service port {name} with a ClusterIP",
            hint="write it as namespace/name or namespace/name:port",
        )
    return found
