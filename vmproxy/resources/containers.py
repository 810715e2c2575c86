"""The way of the host's containers to the VM: what vmproxy sets of it, and what it only checks.

An HNS network belongs to whoever made it (containerd's CNI, Docker, flannel): vmproxy looks at it, lets the
host forward between its interfaces unless the VM is the containers' own gateway, and names the endpoints that
do not lead to the VM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vmproxy.errors import Conflict, NotReady
from vmproxy.model import names
from vmproxy.model.net import Network
from vmproxy.model.seen import AccessRule, ContainersSeen, GuestSeen, HnsEndpoint, HnsNetwork
from vmproxy.model.steps import ContainerStep, ResetForwarding, SetForwarding
from vmproxy.model.topology import Vm
from vmproxy.site.model import Containers

_KINDS = ("l2bridge", "transparent")
_NAMED = 10
_ROLE = "install the feature with its network service: Install-WindowsFeature Containers -Restart"
EXPERIMENTAL = (
    "containers.gateway: vm is experimental: it has never been seen on a real Windows host, and three things "
    "there may keep it from working; docs/containers.md says how to try each"
)
_MADE_BY = (
    "it is made by containerd's CNI plugin, Docker or flannel: start one of them, or look at what "
    "`vmproxy render` writes into containers/"
)


def check(vm: Vm, seen: ContainersSeen, *, host: str) -> HnsNetwork:
    """The network. Raises Conflict where it cannot be used, NotReady where it, or HNS, is missing."""
    asked = vm.containers
    assert asked is not None
    if seen.rival:
        raise Conflict(
            f"cannot attach the containers of {asked.network} on {host}: {seen.rival} runs there",
            hint="it answers for the same Services, at the containers' own adapters: stop it, or remove "
            "`containers` from the site file; the host itself needs only its routes",
        )
    if seen.networks is None:
        raise NotReady(f"cannot look at the containers on {host}: HNS is not there", hint=_ROLE)
    found = next((item for item in seen.networks if item.name == asked.network), None)
    if found is None:
        there = ", ".join(item.name for item in seen.networks) or "none"
        raise NotReady(
            f"cannot attach containers on {host}: there is no HNS network {asked.network}",
            details=[f"networks there: {there}"],
            hint=_MADE_BY,
        )
    _check_network(asked, found, host)
    if found.kind == "transparent" and vm.carrier.own is not None:
        raise Conflict(
            f"cannot attach the containers of {asked.network} on {host}: its type is transparent, and the VM "
            "cannot be their gateway from a switch of its own",
            hint="name an l2bridge network, or connect the VM to the containers' switch: switch.name",
        )
    if vm.inside is not None:
        _check_inside(vm, found, seen, host)
    return found


def _check_inside(vm: Vm, found: HnsNetwork, seen: ContainersSeen, host: str) -> None:
    """Whether the VM can take its address in the subnet."""
    assert vm.inside is not None
    cannot = f"cannot make the VM the gateway of {found.name} on {host}"
    if found.kind != "l2bridge":
        raise Conflict(
            f"{cannot}: its type is {found.kind}",
            hint="remove containers.gateway from the site file: it is for l2bridge networks, and in a "
            "transparent one the containers' gateway is the VM's own address",
        )
    taken = [item.alias for item in seen.interfaces if vm.inside.ip in item.addresses]
    taken += [item.name for item in seen.endpoints if item.address == vm.inside.ip]
    if taken:
        raise Conflict(
            f"{cannot}: {taken[0]} has the address {vm.inside.ip} that the VM is to have",
            hint="have whoever made that endpoint remove it, or set containers.gateway: host",
        )


def _check_network(asked: Containers, found: HnsNetwork, host: str) -> None:
    if found.kind not in _KINDS:
        raise Conflict(
            f"cannot attach the containers of {asked.network} on {host}: its type is {found.kind}",
            hint="only l2bridge and transparent networks need `containers`; those of a nat network use the "
            "host's own routes: remove it from the site file",
        )
    if asked.subnet not in found.subnets:
        there = ", ".join(map(str, found.subnets)) or "none"
        raise Conflict(
            f"cannot attach the containers of {asked.network} on {host}: its subnet is {there}, not "
            f"{asked.subnet}",
            hint="correct containers.subnet in the site file",
        )


def plan(vm: Vm, seen: ContainersSeen, marked: Sequence[str], *, host: str) -> tuple[ContainerStep, ...]:
    """Raises as `check`."""
    found = check(vm, seen, host=host)
    passed = [item.alias for item in seen.interfaces if not of_switch(vm, item.alias)]
    wanted = passed if found.kind == "l2bridge" and vm.inside is None else []
    kept = tuple(alias for alias in marked if alias in wanted)
    off = [item.alias for item in seen.interfaces if item.alias in wanted and not item.forwards]
    going = tuple(item for item in marked if item not in wanted and not of_switch(vm, item))
    steps: list[ContainerStep] = [*remove_plan(going, kept)]
    for index, alias in enumerate(off):
        steps.append(SetForwarding(alias, tuple(dict.fromkeys((*kept, *off[: index + 1])))))
    return tuple(steps)


def of_switch(vm: Vm, alias: str) -> bool:
    """Whether the VM's own switch needs forwarding on that interface anyway."""
    own = vm.carrier.own
    return own is not None and not own.nat and alias == names.switch_interface(own.name)


def remove_plan(going: Sequence[str], staying: tuple[str, ...] = ()) -> tuple[ContainerStep, ...]:
    """Turn forwarding off where vmproxy turned it on. The marker names those that are still to go."""
    return tuple(ResetForwarding(alias, (*staying, *going[index + 1 :])) for index, alias in enumerate(going))


def warnings(vm: Vm, ranges: Iterable[Network], seen: ContainersSeen) -> tuple[str, ...]:
    """What keeps containers from Services, and only those who made their network repair."""
    lacks = list(_lacks(vm, [item for item in ranges if item.version == 4], seen))
    more = len(lacks) - _NAMED
    return tuple(lacks[:_NAMED]) + ((f"{more} more endpoints lack a policy",) if more > 0 else ())


def _lacks(vm: Vm, ranges: Sequence[Network], seen: ContainersSeen) -> Iterator[str]:
    asked = vm.containers
    assert asked is not None
    found = next((item for item in seen.networks or () if item.name == asked.network), None)
    if found is None:
        return
    if (
        found.kind == "l2bridge"
        and vm.inside is None
        and not any(address in asked.subnet for item in seen.interfaces for address in item.addresses)
    ):
        yield (
            f"the host has no address in {asked.subnet}: the containers of {asked.network} have no gateway; "
            "whoever made the network attaches an endpoint of the host to it"
        )
    gateway = found.gateways.get(asked.subnet)
    if vm.inside is not None and gateway not in (None, vm.inside.ip):
        yield (
            f"the gateway of {asked.network} is {gateway}, not the VM at {vm.inside.ip}: whoever "
            "made the network makes it again with that one"
        )
    for endpoint in seen.endpoints:
        for lack in missing(vm, found, ranges, endpoint):
            yield f"endpoint {endpoint.name} ({endpoint.address}) of {asked.network}: {lack}"


def missing(vm: Vm, network: HnsNetwork, ranges: Iterable[Network], endpoint: HnsEndpoint) -> Iterator[str]:
    """Which policies one endpoint lacks, or which gateway."""
    asked = vm.containers
    assert asked is not None
    if network.kind == "transparent" or vm.inside is not None:
        gateway = vm.inside.ip if vm.inside else vm.address.ip
        if endpoint.gateway != gateway:
            yield f"its gateway is {endpoint.gateway or 'none'}, not the VM at {gateway}"
    else:
        for service_range in ranges:
            if not _within(service_range, endpoint.encapsulated):
                yield f"it lacks the policy SDNRoute (ROUTE) with NeedEncap for {service_range}"
            if endpoint.exceptions is not None and not _within(service_range, endpoint.exceptions):
                yield f"{service_range} is missing in the exceptions of its policy OutBoundNAT"
    if asked.isolate and not _isolated(asked.subnet, endpoint.rules):
        yield f"it lacks the ACL policies that block {asked.subnet} in both directions"


def experimental(vm: Vm) -> tuple[str, ...]:
    """What whoever uses it has to know each time."""
    return () if vm.inside is None else (EXPERIMENTAL,)


def without_gateway(vm: Vm, seen: GuestSeen) -> Iterator[str]:
    """Why containers do not get to the VM, seen from inside it."""
    if vm.containers and vm.inside and vm.inside not in seen.addresses:
        network = vm.containers.network
        yield f"the VM lacks its address {vm.inside}: the containers of {network} have no gateway"


def _within(network: Network, others: Iterable[Network]) -> bool:
    return any(network.version == item.version and network.subnet_of(item) for item in others)  # type: ignore[arg-type]


def _isolated(subnet: Network, rules: Sequence[AccessRule]) -> bool:
    blocked = {rule.direction for rule in rules if rule.action == "block" and _within(subnet, rule.remote)}
    return blocked == {"in", "out"}
