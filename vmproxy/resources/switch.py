"""The virtual switch that the VM is connected to: somebody else's, which is only checked, or the VM's own.

One of its own is an Internal switch, the only kind that takes no network card away from the host. It is ours
when its Notes have our mark; the host's NAT network of its name belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from vmproxy.errors import Conflict, UsageError
from vmproxy.model.drift import differences
from vmproxy.model.net import Network, overlap
from vmproxy.model.seen import CarrierSeen, ClientSeen, ClusterSeen
from vmproxy.model.steps import CreateSwitch, RemoveSwitch, SetSwitch, SwitchStep, SwitchWanted
from vmproxy.model.topology import Carrier, OwnSwitch


def check(carrier: Carrier, seen: CarrierSeen) -> None:
    """Of somebody else's switch. Raises UsageError when it is missing, Conflict when the host itself cannot
    use it, or still has a switch of ours that the site file does not want any more."""
    if seen.own is not None and seen.own.ours and carrier.own is None:
        raise Conflict(
            f"cannot connect the VM on {carrier.name} to {carrier.switch}: it still has a switch of its own",
            hint=f"run: vmproxy destroy --host {carrier.name} --yes; then: vmproxy apply",
        )
    if seen.switch is None:
        raise UsageError(
            f"cannot connect a VM on {carrier.name}: no switch named {carrier.switch}",
            hint="set hosts[].switch.name to an existing switch, or let vmproxy make one: switch.internal",
        )
    if not seen.switch.reachable:
        raise Conflict(
            f"cannot use switch {carrier.switch} on {carrier.name}: {seen.switch.why}",
            hint="choose a switch that the host itself has an adapter on",
        )


def wanted(own: OwnSwitch, seen: CarrierSeen, *, host: str) -> SwitchWanted:
    """Raises Conflict when it is not known how this machine gets to the host."""
    if not own.nat:
        return SwitchWanted(own, None)
    if seen.entrance is None:
        raise Conflict(
            f"cannot get to a VM behind the NAT of {host}: none of its addresses is known to lead there",
            hint="write an address of the host's own, or a name of it, in hyperv.endpoint",
        )
    return SwitchWanted(own, seen.entrance.controller)


def plan(
    want: SwitchWanted, seen: CarrierSeen, cluster: ClusterSeen, client: ClientSeen, *, host: str
) -> tuple[SwitchStep, ...]:
    """Raises Conflict when something of others is in the way."""
    _refuse_foreign(want.own, seen, host=host)
    _refuse_nats(want.own, seen, host=host)
    _refuse_overlaps(want.own, seen, cluster, client, host=host)
    if seen.own is None:
        return (CreateSwitch(want),)
    drift = differences(want.settings, seen.own.settings)
    return (SetSwitch(want, drift, cold=_moves(want.own, seen)),) if drift else ()


def destroy_plan(carrier: Carrier, name: str, seen: CarrierSeen) -> tuple[SwitchStep, ...]:
    """Only what is ours; `name` is that of the VM, which its own switch would have."""
    if seen.own is not None:
        return (RemoveSwitch(name),) if seen.own.ours else ()
    return (RemoveSwitch(name, nat=True),) if carrier.own and name in seen.nats else ()


def _moves(own: OwnSwitch, seen: CarrierSeen) -> bool:
    """Whether the VM that runs has an address elsewhere."""
    marker = seen.marker
    return bool(seen.vm and seen.vm.running and marker and marker.address.network != own.host.network)


def _refuse_foreign(own: OwnSwitch, seen: CarrierSeen, *, host: str) -> None:
    if seen.own is not None and not seen.own.ours:
        raise Conflict(
            f"cannot use switch {own.name} on {host}: it exists and was not made by vmproxy",
            hint=f"rename or remove that switch; vmproxy's has {own.mark} in its Notes",
        )
    if seen.own is not None and not seen.own.internal:
        raise Conflict(
            f"cannot use switch {own.name} on {host}: it is no longer an Internal switch",
            hint=f"Set-VMSwitch -Name {own.name} -SwitchType Internal, then run again",
        )


def _refuse_nats(own: OwnSwitch, seen: CarrierSeen, *, host: str) -> None:
    others = [f"{name}: {prefix}" for name, prefix in seen.nats.items() if name != own.name]
    if own.nat and others:
        raise Conflict(
            f"cannot make a NAT network on {host}: Windows allows one, and there is another",
            details=others,
            hint="if nobody needs it: Remove-NetNat NAME; else set switch.nat: false, or switch.name",
        )


def _refuse_overlaps(
    own: OwnSwitch, seen: CarrierSeen, cluster: ClusterSeen, client: ClientSeen, *, host: str
) -> None:
    network = own.host.network
    found = [
        f"{what} {taken}" for what, taken in _taken(seen, cluster, client, network) if overlap(taken, network)
    ]
    if found:
        raise Conflict(
            f"cannot make switch {own.name} on {host}: its network {network} overlaps others",
            details=list(dict.fromkeys(found)),
            hint="choose another network for hosts[].switch.internal",
        )


def _taken(
    seen: CarrierSeen, cluster: ClusterSeen, client: ClientSeen, network: Network
) -> Iterator[tuple[str, Network]]:
    """Networks that are others', and what they are. A route to a wider one is less specific, and in nobody's
    way."""
    mine = seen.own.addresses if seen.own else ()
    for address in client.addresses:
        if address not in mine:
            yield "the host's own network", address.network
    for route in client.routes:
        if route.prefix.prefixlen >= network.prefixlen:
            yield "the host's route to", route.prefix
    for cidr in cluster.service_cidrs:
        yield "the Service range", cidr
    for cidr in cluster.pod_cidrs:
        yield "the pod range", cidr
    for node in cluster.nodes:
        yield from (("the pod range", cidr) for cidr in node.pod_cidrs)
        yield from ((f"Node {node.name} at", ip_network(ip)) for ip in node.internal_ips)
