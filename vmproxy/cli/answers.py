"""What commands write with `-o json`: the type of each object, and how it is made from the results.

Users rely on these shapes. docs/json.md has a table of each, which scripts/json-doc makes from the keys'
types and docstrings here. A host that failed has all keys of a good one, with null, false or nothing in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NotRequired, TypedDict, TypeVar, cast

from vmproxy.errors import VmproxyError
from vmproxy.model.seen import Unobservable

if TYPE_CHECKING:  # a command loads only what it needs itself
    from vmproxy.engine.run import HostResult
    from vmproxy.image import Image as CachedImage
    from vmproxy.lab import LabStatus
    from vmproxy.model import steps
    from vmproxy.operations import doctor as doctors
    from vmproxy.operations import status as statuses
    from vmproxy.operations import verify as checks

T = TypeVar("T")
Host = TypeVar("Host")


class Hosts(TypedDict, Generic[Host]):
    hosts: list[Host]
    """One object for each host, in the order of the site file, or of `--host`."""


class Error(TypedDict):
    message: str
    """What cannot be done, where, and why."""
    hint: str | None
    """The next step; null when none is known."""
    details: list[str]
    """Further lines: a tool's own words, or each mistake in a file."""


class Drift(TypedDict):
    field: str
    """What differs."""
    wanted: Any
    """The wanted value; a file's content appears as its hash, a secret never."""
    seen: Any
    """The value that was found; "absent" when there is none."""


class Step(TypedDict):
    place: Literal["cluster", "host", "guest"]
    """Where it is done; "guest" is the VM from inside."""
    verb: str
    """What is done, in a word: create, add, replace, push, start, …"""
    target: str
    """What it is done to."""
    drift: list[Drift]
    """The differences that it repairs."""
    why: str
    """The reason, for a reader."""
    cold: bool
    """Interrupts a running VM, so it is done only with `--yes`."""


class Outcome(Step):
    result: Literal["done", "failed"]
    """What came of it; nothing follows one that failed."""
    detail: str
    """Why it failed, otherwise empty."""


class HostPlan(TypedDict):
    name: str
    """The host's, in the site file."""
    inSync: bool
    """False when there is something to do, something could not be looked at, or the host failed."""
    actions: list[Step]
    """What apply would do, in its order."""
    later: list[str]
    """What could not be looked at yet, and when it will be."""
    warnings: list[str]
    """Findings that no action repairs."""
    error: Error | None
    """Why there is no plan; null otherwise."""


class HostChanges(TypedDict):
    name: str
    """The host's, in the site file."""
    outcomes: list[Outcome]
    """What was done, in its order; of a host that failed, what was done before the error."""
    left: list[Step]
    """What was not done for lack of `--yes`."""
    error: Error | None
    """Why the host was not finished; null otherwise."""


class Vm(TypedDict):
    state: Literal["running", "stopped", "absent", "foreign"]
    """A foreign VM has the name but was not made by vmproxy."""
    name: str
    """The VM's, on its host."""
    address: NotRequired[str]
    """With the length of its network; only when the VM is running or stopped."""


class Unknown(TypedDict):
    state: Literal["unknown"]
    """It could not be looked at."""
    detail: str
    """Why."""


class Proxy(TypedDict):
    state: Literal["live", "down"]
    """What kube-proxy reports about its own health; "down" also when it does not answer."""
    mode: str | None
    """nftables or iptables; null when kube-proxy does not answer."""
    version: str | None
    """kube-proxy's, as v1.36.3; null when it does not answer."""
    ruleAgeSeconds: float | None
    """Seconds since the last sync of its rules; null before the first."""
    syncFailures: int
    """Failed syncs of its rules since it started."""


class Route(TypedDict):
    prefix: str
    """A Service range."""
    via: str
    """The next hop; empty when the host reaches it directly."""


class Routes(TypedDict):
    state: Literal["set", "partly", "missing"]
    """Whether the host has all wanted routes, some, or none."""
    routes: list[Route]
    """Those on the host that vmproxy set."""


class Names(TypedDict):
    state: Literal["set", "partly", "missing", "void"]
    """Whether the host has all wanted rules, some, or none; "void": a policy makes it ignore them."""
    domain: str
    """The domain of the cluster's names."""
    server: str
    """The address of the cluster's DNS Service."""


class Credential(TypedDict):
    state: Literal["valid", "expired", "revoked", "refused", "absent"]
    """Of the token in the VM. Revoked: its ServiceAccount was deleted or replaced. Refused: by the API."""
    expires: NotRequired[str]
    """When, in ISO 8601; not when the token is absent."""


class HostStatus(TypedDict):
    name: str
    """The host's, in the site file."""
    vm: Vm | None
    """Null when the host failed."""
    imageAgeDays: int | None
    """Days since the image that the VM was made of was built or fetched; null when that is not known."""
    proxy: Proxy | Unknown | None
    """kube-proxy in the VM; null when the host failed."""
    route: Routes | None
    """The host's routes to the Service ranges; null when the host failed."""
    names: Names | Unknown | None
    """The host's rules for the cluster's names; null without `dns` in the site file, or when it failed."""
    credential: Credential | Unknown | None
    """The token that kube-proxy uses; null when the host failed."""
    converged: bool | None
    """Whether kube-proxy works and the host is answered through it; null when the host failed."""
    problems: list[str]
    """Why it has not converged."""
    drops: dict[str, int]
    """Packets dropped in the VM: to Services that kube-proxy does not know, and from or to anybody else."""
    repairs: dict[str, int]
    """What the VM's keeper has repaired since the VM started, and how often."""
    warnings: list[str]
    """What is wrong in the VM, hinders nothing now, and is not repaired by apply."""
    podRoutes: PodRoutes | Unknown | None
    """What keeps routes to pods in the VM; null where it keeps none, and when the host failed."""
    error: Error | None
    """Why the host could not be looked at; null otherwise."""


class PodRoutes(TypedDict):
    state: Literal["current", "late"]
    """"late": it does not follow the API server now, and keeps the routes that it has."""
    mode: str
    """`network.podRoutes`, as the VM has it."""
    routes: int
    """How many are set."""
    sinceSeconds: float
    """For how long it has been in this state."""


class Check(TypedDict):
    service: str
    """namespace/name:port; namespace/name for its name; "*" when the cluster could not be asked."""
    protocol: str
    """tcp or udp; dns: a look-up of its name, with `dns` in the site file."""
    ok: Literal[True, False, "unknown"]
    """Unanswered UDP is "unknown": it proves nothing, unless the path is found broken elsewhere."""
    hop: Literal["container", "route", "vm", "proxy", "endpoints", "endpoint", "api", "name"] | None
    """Where it breaks; null when it is not known to break."""
    detail: str
    """What was seen, for a reader."""


class HostChecks(TypedDict):
    name: str
    """The host's, in the site file."""
    ok: bool
    """False when a check is, or when the host failed."""
    checks: list[Check]
    """One for each port that was tried, and for each name."""
    error: Error | None
    """Why nothing could be tried; null otherwise."""


class Finding(TypedDict):
    check: str
    """What was looked at."""
    ok: bool
    """False when it is a problem, or could not be looked at."""
    detail: str
    """What was found."""
    next: str | None
    """The next step; null when it is ok."""


class HostFindings(TypedDict):
    name: str
    """The host's, in the site file."""
    ok: bool
    """False when a finding is, or when the host failed."""
    findings: list[Finding]
    """One for each thing that was looked at."""
    error: Error | None
    """Why not everything could be looked at; null otherwise."""


class Image(TypedDict):
    name: str
    """What the site file calls it."""
    size: int
    """The disk's, in bytes."""
    origin: str
    """A URL, a file, or the suite that it was built from."""
    sha256: str
    """Of the raw disk."""
    path: str
    """The raw disk, in the cache."""
    made: str
    """The day on which it was built or fetched, as 2026-01-31."""


class Images(TypedDict):
    images: list[Image]
    """From build and fetch the one image, from list all in the cache, sorted by name."""


class Lab(TypedDict):
    running: bool
    """Whether all of the lab's processes run."""
    kubeconfig: str | None
    """Its path; null when there is none."""
    site: str | None
    """The path of the site file; null when there is none."""
    namespaces: dict[str, str]
    """The network namespaces by role; `host` is the one that stands for the Windows host."""
    binaries: dict[str, str]
    """The paths of its programs, by name."""


def error(problem: VmproxyError) -> Error:
    return {"message": problem.message, "hint": problem.hint, "details": list(problem.details)}


def step(action: steps.Step) -> Step:
    """Of a step only what is for a reader."""
    return {
        "place": action.place,
        "verb": action.verb,
        "target": action.target,
        "drift": [{"field": one.field, "wanted": one.wanted, "seen": one.seen} for one in action.drift],
        "why": action.why,
        "cold": action.cold,
    }


def plan(name: str, result: steps.Plan | VmproxyError) -> HostPlan:
    planned, failure = _either(result)
    return {
        "name": name,
        "inSync": planned is not None and planned.in_sync,
        "actions": [step(action) for action in planned.steps] if planned else [],
        "later": list(planned.unseen) if planned else [],
        "warnings": list(planned.warnings) if planned else [],
        "error": failure,
    }


def changes(name: str, result: HostResult | VmproxyError) -> HostChanges:
    """Of apply and destroy."""
    changed, failure = _either(result)
    if changed and changed.error:
        failure = error(changed.error)
    return {
        "name": name,
        "outcomes": list(_outcomes(changed)) if changed else [],
        "left": [step(action) for action in changed.left.steps] if changed else [],
        "error": failure,
    }


def status(name: str, result: statuses.HostStatus | VmproxyError) -> HostStatus:
    seen, failure = _either(result)
    return {
        "name": name,
        "vm": _vm(seen.vm) if seen else None,
        "imageAgeDays": seen.vm.image_age if seen else None,
        "proxy": _proxy(seen.proxy) if seen else None,
        "route": _routes(seen.route) if seen else None,
        "names": _names(seen.names) if seen else None,
        "credential": _credential(seen.credential) if seen else None,
        "converged": seen.converged if seen else None,
        "problems": list(seen.problems) if seen else [],
        "drops": dict(seen.drops) if seen else {},
        "repairs": dict(seen.repairs) if seen else {},
        "warnings": list(seen.warnings) if seen else [],
        "podRoutes": _pod_routes(seen.pod_routes) if seen else None,
        "error": failure,
    }


def verify(name: str, result: Sequence[checks.Check] | VmproxyError) -> HostChecks:
    tried, failure = _either(result)
    return {
        "name": name,
        "ok": tried is not None and all(check.ok is not False for check in tried),
        "checks": [_check(check) for check in tried or ()],
        "error": failure,
    }


def doctor(name: str, result: Sequence[doctors.Finding] | VmproxyError) -> HostFindings:
    found, failure = _either(result)
    return {
        "name": name,
        "ok": found is not None and all(finding.ok for finding in found),
        "findings": [_finding(finding) for finding in found or ()],
        "error": failure,
    }


def images(found: Sequence[CachedImage]) -> Images:
    return {"images": [_image(image) for image in found]}


def lab(seen: LabStatus) -> Lab:
    return {
        "running": seen.running,
        "kubeconfig": str(seen.kubeconfig) if seen.kubeconfig else None,
        "site": str(seen.site) if seen.site else None,
        "namespaces": seen.namespaces,
        "binaries": {name: str(path) for name, path in seen.binaries.items()},
    }


def _either(result: T | VmproxyError) -> tuple[T | None, Error | None]:
    return (None, error(result)) if isinstance(result, VmproxyError) else (result, None)


def _outcomes(result: HostResult) -> Iterator[Outcome]:
    """What was done, and the step that failed."""
    for one in result.done:
        yield {**step(one), "result": "done", "detail": ""}
    if result.error and result.error.step:
        failed = cast("steps.Step", result.error.step)
        yield {**step(failed), "result": "failed", "detail": result.error.message}


def _vm(vm: statuses.VmStatus) -> Vm:
    seen: Vm = {"state": vm.state, "name": vm.name}
    return {**seen, "address": str(vm.address)} if vm.address else seen


def _proxy(proxy: statuses.ProxyStatus | Unobservable) -> Proxy | Unknown:
    if isinstance(proxy, Unobservable):
        return _unknown(proxy)
    return {
        "state": proxy.state,
        "mode": proxy.mode,
        "version": proxy.version,
        "ruleAgeSeconds": proxy.rule_age,
        "syncFailures": proxy.failures,
    }


def _routes(route: statuses.RouteStatus) -> Routes:
    return {
        "state": route.state,
        "routes": [{"prefix": str(item.prefix), "via": str(item.via or "")} for item in route.routes],
    }


def _pod_routes(kept: statuses.PodRoutesStatus | Unobservable | None) -> PodRoutes | Unknown | None:
    if kept is None or isinstance(kept, Unobservable):
        return _unknown(kept) if kept else None
    return {"state": kept.state, "mode": kept.mode, "routes": kept.routes, "sinceSeconds": kept.since}


def _names(names: statuses.NamesStatus | Unobservable | None) -> Names | Unknown | None:
    if names is None or isinstance(names, Unobservable):
        return _unknown(names) if names else None
    return {"state": names.state, "domain": names.domain, "server": str(names.server)}


def _credential(credential: statuses.CredentialStatus | Unobservable) -> Credential | Unknown:
    if isinstance(credential, Unobservable):
        return _unknown(credential)
    seen: Credential = {"state": credential.state}
    return {**seen, "expires": credential.expires.isoformat()} if credential.expires else seen


def _unknown(why: Unobservable) -> Unknown:
    return {"state": "unknown", "detail": why.because}


def _check(check: checks.Check) -> Check:
    return {
        "service": check.service,
        "protocol": check.protocol,
        "ok": "unknown" if check.ok is None else check.ok,
        "hop": check.hop,
        "detail": check.detail,
    }


def _finding(finding: doctors.Finding) -> Finding:
    return {
        "check": finding.check,
        "ok": finding.ok,
        "detail": finding.detail,
        "next": finding.next_step or None,
    }


def _image(image: CachedImage) -> Image:
    return {
        "name": image.name,
        "size": image.size,
        "origin": image.origin,
        "sha256": image.sha256,
        "path": str(image.raw),
        "made": image.day,
    }
