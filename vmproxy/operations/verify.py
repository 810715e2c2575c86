"""verify: real connections from the host to Services, and where along the path they break.

The hops, in the packet's order: route (the host sends it elsewhere), vm (the VM does not answer),
proxy (kube-proxy is not up, or has no rule), endpoints (the Service has none that are ready),
endpoint (the VM does not reach it). api: the cluster cannot be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vmproxy.engine.endpoints import Target, broken, targets_of, ways
from vmproxy.engine.links import GuestLink
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.hosts.protocols import Answer, Connection
from vmproxy.model.seen import CarrierSeen, ClusterSeen, ServiceSeen
from vmproxy.model.topology import Member
from vmproxy.util.events import Report, Reporter

Hop = Literal["route", "vm", "proxy", "endpoints", "endpoint", "api"]
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
    site: SiteRun, member: Member, report: Reporter, *, services: Sequence[str]
) -> tuple[Check, ...]:
    """One check for each port of the named Services ("namespace/name" or with ":port"), or of those
    that the cluster has and that have ready endpoints for the VM. Raises UsageError for a name not there."""
    with Scope(site, member, report) as scope:
        seen = scope.look_at_carrier()
        try:
            cluster = site.cluster_seen()
            targets = _targets(site.services(), services, report, node=member.vm.acts_for)
        except UsageError:
            raise
        except VmproxyError as exc:
            return (Check("*", "tcp", ok=False, hop="api", detail=exc.message),)
        report(f"connecting to {len(targets)} ports from {member.client.name}")
        answers = scope.client.probe(
            [Connection(target.protocol, target.service.cluster_ip, target.port) for target in targets]
        )
        diagnosis = Diagnosis(scope, cluster, seen)
        return tuple(diagnosis.check(*pair) for pair in zip(targets, answers, strict=True))


class Diagnosis:
    """Finds the hop at which a connection breaks; looks into the guest at most once."""

    def __init__(self, scope: Scope, cluster: ClusterSeen, seen: CarrierSeen) -> None:
        self._scope = scope
        self._cluster = cluster
        self._seen = seen
        self._guest: GuestLink | str | None = None

    def check(self, target: Target, answer: Answer) -> Check:
        if answer.ok:
            return Check(str(target), target.protocol, ok=True, hop=None, detail=answer.detail)
        hop, why = self._broken(target, answer)
        ok = answer.ok if hop is None else False
        return Check(str(target), target.protocol, ok=ok, hop=hop, detail=why or answer.detail)

    def _broken(self, target: Target, answer: Answer) -> tuple[Hop | None, str]:
        address = self._scope.address(self._seen.marker).ip
        if answer.via != address:
            return "route", f"the host sends it to {answer.via or 'no next hop'}, not to the VM at {address}"
        guest = self._inside()
        if isinstance(guest, str):
            return "vm", guest
        node = self._scope.member.vm.acts_for
        if not target.service.usable(node):
            return "endpoints", _unusable(target.service, node)
        if not guest.rule_present(target.service.cluster_ip, target.port, target.protocol):
            return "proxy", "kube-proxy has no rule for it; see: vmproxy logs"
        if lost := broken(guest, [target], ways(self._scope.member.vm, self._cluster))[0]:
            return "endpoint", lost
        if answer.ok is None:
            return None, answer.detail
        return "proxy", f"{answer.detail}, though the rule is there and the endpoints answer the VM"

    def _inside(self) -> GuestLink | str:
        """The guest, or why it cannot be asked."""
        if self._guest is None:
            vm = self._seen.vm
            if vm is None or not vm.running or vm.marker is None:
                self._guest = "there is no VM" if vm is None else "the VM is stopped"
            else:
                try:
                    self._guest = self._scope.guest()
                except VmproxyError as exc:
                    self._guest = exc.message
        return self._guest


def _unusable(service: ServiceSeen, node: str | None) -> str:
    if not any(endpoint.ready for endpoint in service.endpoints):
        return "the Service has no ready endpoints"
    where = f"none is on Node {node}" if node else "a plain gateway (no actsFor) is on no Node"
    return f"the Service has internalTrafficPolicy: Local, and of its ready endpoints {where}"


def _targets(
    services: Sequence[ServiceSeen], chosen: Sequence[str], report: Report, *, node: str | None
) -> list[Target]:
    every = list(targets_of(services))
    if chosen:
        return [target for name in chosen for target in _named(name, every)]
    ready = [target for target in every if target.service.usable(node)]
    left_out = len({target.service.name for target in every} - {target.service.name for target in ready})
    if left_out:
        report(f"{left_out} Services left out: the VM has no ready endpoints for them")
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
