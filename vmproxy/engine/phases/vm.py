"""The VM on its host, until it boots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vmproxy import seed
from vmproxy.engine.endpoints import Target
from vmproxy.engine.look import Look
from vmproxy.engine.phases.phase import Hop, Leaving, Phase
from vmproxy.engine.scope import Scope, World
from vmproxy.errors import VmproxyError
from vmproxy.hosts.protocols import DISK_NEEDED, Answer, Connection
from vmproxy.image.age import OLD_DAYS, age, days
from vmproxy.model.finding import Finding, checked, enough, failed
from vmproxy.model.seen import CarrierSeen, Unobservable
from vmproxy.model.steps import CreateVm, HostStep, Step
from vmproxy.resources import switch, vm
from vmproxy.seed.keys import KeyPair
from vmproxy.util import assets

_REDACTED = KeyPair(private="(redacted: generated for each seed)", public="(generated with the private key)")
_NEWER = (
    "run: vmproxy image build --again, or name a newer image in the site file; "
    "then: vmproxy apply --yes --new-image"
)


def _plan(scope: Scope, world: World) -> Sequence[HostStep]:
    """The routes go first where the VM behind them stops or moves; they are set again afterwards."""
    if scope.member.carrier.own is None:
        switch.check(scope.member.carrier, world.carrier)
    wanted = scope.wanted_vm(world.carrier)
    steps = vm.plan(wanted, world.carrier)
    cold = any(step.cold for step in steps)
    if not (cold or (steps and vm.moves(wanted, world.carrier))):
        return steps
    return (*scope.routes_away(world, cold=cold), *steps)


def _removal(scope: Scope, leaving: Leaving) -> Sequence[HostStep]:
    own = scope.member.vm
    return vm.destroy_plan(own.name, site=own.site, host=own.host, seen=leaving.carrier)


def _again(scope: Scope, world: World) -> World:
    scope.forget_guest()
    return replace(world, guest=Unobservable("the VM was changed"))


def _expected(scope: Scope, world: World, steps: Sequence[Step]) -> World:
    """The world when these steps are done."""
    world = world.with_routes(steps)
    carrier, inside = world.carrier, world.guest
    if any(isinstance(step, CreateVm) for step in steps):
        inside = Unobservable("the VM is created again" if carrier.vm else "there is no VM yet")
        carrier = replace(carrier, vm=None) if _moves(scope, world) else carrier
    cold = world.interrupted or any(step.cold for step in steps)
    return replace(world, carrier=carrier, guest=inside, interrupted=cold)


def _moves(scope: Scope, world: World) -> bool:
    marker = world.carrier.marker
    return marker is not None and marker.address != scope.member.vm.address


def _files(scope: Scope) -> Mapping[str, bytes]:
    """The seed's documents, and the scripts that run on the host."""
    documents = seed.documents(seed.redacted(scope.wanted_seed(None)), host_key=_REDACTED)
    scripts = [name for folder in scope.kind.scripts for name in assets.names(folder)]
    return {
        **{f"seed/{name}": text.encode() for name, text in documents.items()},
        **{name: assets.text(name).encode() for name in scripts},
    }


def _findings(look: Look) -> Iterator[Finding]:
    """The host as it is reached, then what apply would look at first."""
    scope, own = look.scope, look.scope.member.vm
    try:
        carrier = scope.carrier
    except VmproxyError as exc:
        yield failed("host" if scope.kind.local else "WinRM", exc)
        return
    try:
        yield from scope.kind.findings(own, carrier.examine())
        seen = look.carrier()
        if own.carrier.own is None:
            switch.check(own.carrier, seen)
            yield Finding("switch", ok=True, detail=own.carrier.switch)
        yield from _sizes(scope, seen)
        vm.destroy_plan(own.name, site=own.site, host=own.host, seen=seen)
        yield _image(scope, seen)
        yield Finding("VM name", ok=True, detail="free" if seen.vm is None else "ours")
        if seen.vm is None and own.carrier.own is None:
            yield _address_free(scope)
    except VmproxyError as exc:
        yield failed("host", exc)


def _image(scope: Scope, seen: CarrierSeen) -> Finding:
    """What the VM was made of, or would be."""
    base = scope.site.links.artifacts.base(scope.kind)
    made = seen.marker.made if seen.marker else base.made
    known = age(made)
    if known is None:
        return Finding("image", ok=True, detail=base.how or "its age is not known")
    return checked("image", ok=known < OLD_DAYS, detail=f"{days(made)} old", otherwise=_NEWER)


def _sizes(scope: Scope, seen: CarrierSeen) -> Iterator[Finding]:
    """Of another machine, for a VM that is still to be made."""
    if scope.kind.local or seen.vm is not None:
        return
    needed = scope.member.vm.size.memory
    yield enough("memory", seen.free_memory, needed, otherwise="stop a VM, or set vm.memory to less")
    yield enough(
        "disk",
        seen.free_disk,
        DISK_NEEDED,
        otherwise="free space on that drive, or set hyperv.directory to another one",
    )


def _address_free(scope: Scope) -> Finding:
    """Something that refuses or accepts a connection has the address; silence means free."""
    address = scope.member.vm.address.ip
    answer = scope.client.probe([Connection("tcp", address, 22)])[0]
    taken = bool(answer.ok) or answer.detail == "refused"
    next_step = "give the VM another address: hosts[].network.address" if taken else ""
    return Finding("VM address", not taken, f"{address} {'is taken' if taken else 'is free'}", next_step)


def _problems(look: Look) -> Iterator[str]:
    try:
        look.link()
    except VmproxyError as exc:
        yield exc.message


def _broken(look: Look, _target: Target, _answer: Answer) -> tuple[Hop, str] | None:
    return next((("vm", why) for why in _problems(look)), None)


VM = Phase(
    "vm",
    _plan,
    _removal,
    Scope.change_host,
    findings=_findings,
    problems=_problems,
    broken=_broken,
    after=_again,
    expected=_expected,
    files=_files,
)
