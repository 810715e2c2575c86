"""What a phase is: every question that a command asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look
from vmproxy.engine.scope import Scope, World
from vmproxy.hosts.protocols import Answer
from vmproxy.model.finding import Finding
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen, Unobservable
from vmproxy.model.steps import Step

Hop = Literal["container", "route", "vm", "proxy", "endpoints", "endpoint", "api", "name"]
"""Where a connection breaks: container (it does not get to the host, or to the VM as its gateway), route (the
host sends it elsewhere), vm (the VM does not answer), proxy (kube-proxy is not up, or has no rule), endpoints
(the Service has none that are ready), endpoint (the VM does not reach it). api: the cluster cannot be asked.
name: the host does not resolve the Service's name."""


@dataclass(frozen=True)
class Leaving:
    """What is seen of a member that goes. `accounts` are those of all members that go in the same run."""

    cluster: ClusterSeen | Unobservable
    carrier: CarrierSeen
    client: ClientSeen
    accounts: frozenset[str]


@dataclass(frozen=True)
class Progress:
    """Where a run is: whether this phase has steps to do, and whether any step was done before."""

    steps: bool
    changed: bool


@dataclass(frozen=True)
class Unsettled:
    """Beside a phase's steps: `unseen`, what only a later look can tell; `warnings`, findings that no step
    of ours repairs."""

    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """One part of what is made of a member.

    plan, apply: `plan` is pure but for the artifacts that the scope holds, and `unsettled` what it leaves
    open; `change` carries the steps out, one by one. `ready` waits for what the phase needs, and gives the
    world then; `gate` raises VmproxyError when its steps must not be done yet. `after` is the world as far as
    later phases need it when some were done, and `expected` what it will be like, for their plans.
    destroy: `removal` are the steps that take it away again.
    render: `files` are what it would put on host, guest or cluster, by path, secrets redacted.
    doctor: `findings`, each with its next step, before anything is made.
    status: `problems` are what keeps Services from being answered now.
    verify: `broken` says why a connection breaks at this phase's hop of a packet's way, or None.
    """

    name: str
    plan: Callable[[Scope, World], Sequence[Step]]
    removal: Callable[[Scope, Leaving], Sequence[Step]]
    change: Callable[[Scope, Sequence[Any]], Iterator[Step]]
    findings: Callable[[Look], Iterator[Finding]]
    problems: Callable[[Look], Iterator[str]]
    broken: Callable[[Look, Target, Answer], tuple[Hop, str] | None]
    unsettled: Callable[[Scope, World], Unsettled] = lambda _scope, _world: Unsettled()
    ready: Callable[[Scope, World], World] = lambda _scope, world: world
    gate: Callable[[Scope, World, Progress], None] = lambda _scope, _world, _progress: None
    after: Callable[[Scope, World], World] = lambda _scope, world: world
    expected: Callable[[Scope, World, Sequence[Step]], World] = lambda _scope, world, _steps: world
    files: Callable[[Scope], Mapping[str, bytes]] = lambda _scope: {}
