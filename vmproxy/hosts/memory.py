"""A whole world over plain data: a host, the guest of its VM, and the cluster. No I/O.

It shows what a run does to a host without one: `moment` is called before and after each effect, and may
end the run there by raising. What no run may ever do is an AssertionError here.
"""

from __future__ import annotations

import hashlib
import json
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from threading import Lock
from typing import Any, assert_never

from vmproxy.errors import Busy, Conflict, NotReady, Unreachable
from vmproxy.hosts.protocols import Answer, Connection, Delivery, Resolved
from vmproxy.model import names
from vmproxy.model.drift import ABSENT
from vmproxy.model.net import Address, Interface, Network, Route, overlap
from vmproxy.model.seen import (
    CanarySeen,
    CarrierSeen,
    ClientSeen,
    CloudInit,
    ClusterSeen,
    CniSeen,
    ContainersSeen,
    DnsSeen,
    Endpoint,
    EndpointSeen,
    Entrance,
    FileSeen,
    FolderSeen,
    Grant,
    GuestQuery,
    GuestSeen,
    InterfaceSeen,
    Marker,
    NameRule,
    NodeSeen,
    OwnSwitchSeen,
    PodRoutesSeen,
    ProxySeen,
    Reach,
    ServiceSeen,
    SwitchSeen,
    TokenSeen,
    UnitSeen,
    Unobservable,
    VmSeen,
)
from vmproxy.model.steps import (
    ClusterStep,
    CniFile,
    CreateObject,
    CreateSwitch,
    CreateVm,
    DeleteObject,
    DeleteVm,
    Follow,
    GiveRenewal,
    GuestStep,
    LoadGuard,
    Object,
    PushFile,
    ReconfigureVm,
    RemoveDropIns,
    RemoveSwitch,
    RenewToken,
    RestartProxy,
    SetAccess,
    SetGuestAddress,
    SetGuestRoute,
    SetSwitch,
    SetSysctl,
    SetVm,
    StartUnit,
    StartVm,
    SwitchStep,
    SwitchWanted,
    UpdateObject,
    VmStep,
    mapping,
    new_marker,
    object_key,
)
from vmproxy.model.topology import Carrier
from vmproxy.site.model import Containers
from vmproxy.util.events import Report

NOW = 1_800_000_000.0
_LIFE = 86400
_NEW_UNIT = UnitSeen(active=False, enabled=False, stale=False)
_API = IPv4Address("10.96.0.1")
_DNS = DnsSeen("cluster.local", IPv4Address("10.96.0.10"))
_MOST_NAMESPACES = 50
"""That a rule of Windows may have."""


@dataclass
class MemoryGuest:
    """The VM from inside. `answers`: kube-proxy has what it needs and runs."""

    files: dict[str, FileSeen] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    units: dict[str, UnitSeen] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    guard: str | None = None
    routes: tuple[Route, ...] = ()
    added: tuple[Interface, ...] = ()
    token: TokenSeen | None = None
    hung: bool = False
    flushed: bool = False
    folders: dict[str, FolderSeen] = field(default_factory=dict)
    pod_routes: PodRoutesSeen | None = None

    @property
    def answers(self) -> bool:
        unit = self.units.get(names.PROXY_UNIT)
        runs = unit and unit.active and self.token and names.PROGRAM in self.files
        return bool(runs) and not self.hung and not self.flushed

    def protect(self, path: str, mode: str) -> None:
        if path in self.files:
            self.files[path] = replace(self.files[path], mode=mode, owner="root", group="root")
        else:
            self.folders[path] = FolderSeen(mode, "root", "root", "folder")

    def boot(self) -> None:
        """What is enabled runs again, with the files as they are."""
        for name, unit in self.units.items():
            self.units[name] = replace(unit, active=unit.enabled, stale=False)
        self.hung = self.flushed = False
        self.added = ()
        if self.units.get(names.SETUP_UNIT, _NEW_UNIT).active and names.ADDRESSES in self.content:
            self.add_addresses()
        self.pod_routes = None
        if self.units.get(names.ROUTES_UNIT, _NEW_UNIT).active:
            self.keep_pod_routes()

    def add_addresses(self) -> None:
        self.added = tuple(map(ip_interface, json.loads(self.content[names.ADDRESSES])))

    def keep_pod_routes(self) -> None:
        """It runs with the configuration as it is."""
        mode = str(json.loads(self.content[names.POD_ROUTES_CONFIG])["mode"])
        self.pod_routes = PodRoutesSeen(mode, listed=True, routes=0, failed=0, api="", since=NOW)


@dataclass
class MemoryVm:
    marker: Marker | None
    settings: Mapping[str, Any]
    disk: str | None
    seed: str | None
    running: bool = False
    guest: MemoryGuest = field(default_factory=MemoryGuest)


@dataclass
class MemorySwitch:
    """The switch that has the VM's name, with its NAT."""

    settings: dict[str, Any] = field(default_factory=dict)
    ours: bool = True


@dataclass
class MemoryCluster:
    """Objects by "kind/name"; `nodes` are as a look finds them; `tenants` is others' in the namespace,
    `grants` theirs to vmproxy's accounts. `dns` None: nobody asks for it. `fills`: a Secret of an account
    gets its token; `key` signs it. `uids`: how many were given to objects."""

    objects: dict[str, Object] = field(default_factory=dict)
    service_cidrs: tuple[Network, ...] = (ip_network("10.96.0.0/16"),)
    nodes: tuple[NodeSeen, ...] = ()
    tenants: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    dns: DnsSeen | Unobservable | None = _DNS
    reachable: bool = True
    fills: bool = True
    key: int = 1
    uids: int = 0
    minted: int = 0
    lists: int = 0

    def takes(self, token: str) -> bool:
        """Whether the token with that SHA-256 is in a Secret, and signed with the key."""
        known = [text for text in map(_token, tuple(self.objects.values())) if text.endswith(f" {self.key}")]
        return token in map(_sha256, known)


@dataclass
class MemoryWorld:
    """`vms` are those of the one host, by name; `routes`, `rules` and so on those of its client; `moment` as
    above.

    `consent`: a VM that runs may be stopped. `cut`: nothing of the client's gets through the VM. `own` is the
    one switch that has its VM's name, `nats` are NAT networks of others, `entrance` how the host is reached.
    """

    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    vms: dict[str, MemoryVm] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    addresses: tuple[Interface, ...] = ()
    rules: list[NameRule] = field(default_factory=list)
    policy: str | None = None
    serves_dns: bool = False
    leftovers: tuple[str, ...] = ()
    containers: ContainersSeen = field(default_factory=lambda: ContainersSeen(None))
    lost: frozenset[str] = frozenset()
    """Containers whose packets do not get to the host."""
    cni: dict[str, bytes] = field(default_factory=dict)
    consent: bool = True
    cut: bool = False
    own: MemorySwitch | None = None
    nats: dict[str, str] = field(default_factory=dict)
    entrance: Entrance | None = None
    moment: Callable[[str], None] = field(default=lambda _what: None)
    changing: Lock = field(default_factory=Lock)

    def joined(self, vm: MemoryVm) -> bool:
        """Whether the host and that VM reach each other."""
        network = vm.marker.address.network if vm.marker else None
        if network is None or not str(vm.settings.get("switch")).startswith("vmproxy-"):
            return vm.settings.get("switch") != ""
        host = f"{network[1]}/{network.prefixlen}"
        nat = self.own is not None and self.own.settings.get("nat") in (ABSENT, str(network))
        return self.own is not None and nat and self.own.settings.get("address") == host

    @contextmanager
    def effect(self, what: str) -> Iterator[None]:
        self.moment(f"before {what}")
        yield
        self.moment(f"after {what}")


class MemoryCarrier:
    """One VM of the world's host."""

    def __init__(self, world: MemoryWorld, vm: str, carrier: Carrier) -> None:
        self._world = world
        self._name = vm
        self._switch = carrier.switch
        self._own = carrier.own

    @contextmanager
    def lock(self, report: Report) -> Iterator[None]:
        if not self._world.changing.acquire(timeout=5.0):
            report("another vmproxy works on it")
            raise Busy(f"cannot change the host of {self._name}: another vmproxy works on it")
        try:
            yield
        finally:
            self._world.changing.release()

    def observe(self) -> CarrierSeen:
        vm = self._world.vms.get(self._name)
        own = self._world.own
        nat = own.settings.get("nat", ABSENT) if own and own.ours else ABSENT
        return CarrierSeen(
            vm=self._seen(vm) if vm else None,
            switch=SwitchSeen(self._switch) if own or not self._own else None,
            leftovers=() if vm else self._world.leftovers,
            own=self._seen_switch(own) if own else None,
            nats={**self._world.nats, **({self._name: nat} if nat != ABSENT else {})},
            entrance=self._world.entrance,
        )

    @staticmethod
    def _seen_switch(own: MemorySwitch) -> OwnSwitchSeen:
        address = own.settings.get("address", ABSENT)
        addresses = () if address == ABSENT else (ip_interface(address),)
        return OwnSwitchSeen(own.ours, internal=True, settings=dict(own.settings), addresses=addresses)

    def check(self, steps: Sequence[VmStep]) -> None:
        """Everything has room here."""

    def do(
        self, step: VmStep, deliver: Callable[[], Delivery], marker: Marker | None, report: Report
    ) -> None:
        report(f"{step.verb} in memory")
        with self._world.effect(f"{step.verb} vm"):
            match step:
                case CreateVm():
                    self._create(step, deliver(), marker)
                case StartVm():
                    self._start()
                case SetVm():
                    self._vm.settings = {**self._vm.settings, **step.settings}
                case ReconfigureVm():
                    self._stop()
                    self._vm.settings = {**self._vm.settings, **step.settings}
                    self._start()
                case DeleteVm():
                    left = [rule for rule in self._world.rules if rule.comment.startswith("vmproxy:a:")]
                    assert not left, "the VM behind the cluster's names was removed"
                    self._delete()
                case _:
                    assert_never(step)

    def change_switch(self, step: SwitchStep) -> None:
        match step:
            case CreateSwitch(switch):
                with self._world.effect("create switch"):
                    assert self._world.own is None
                    self._world.own = MemorySwitch()
                self._set_switch(switch, switch.settings)
            case SetSwitch(switch, drift):
                self._set_switch(switch, {item.field: item.wanted for item in drift})
            case RemoveSwitch(name):
                with self._world.effect("remove switch"):
                    assert name not in self._world.vms, "the switch of a VM was removed"
                    assert self._world.own is None or self._world.own.ours, "another's switch was removed"
                    self._world.own = None
            case _:
                assert_never(step)

    def _set_switch(self, switch: SwitchWanted, settings: Mapping[str, Any]) -> None:
        """Piece by piece: each may be the last."""
        own, world = self._world.own, self._world
        assert own is not None
        assert own.ours, "another's switch was changed"
        for name, value in settings.items():
            with world.effect(f"set switch's {name}"):
                moves = name == "address" and not self._stays(switch.own.host)
                assert not moves, "the switch of a VM behind a route was moved"
                own.settings[name] = value

    def _stays(self, host: Interface) -> bool:
        """Whether no route leads to a VM that is on another network than the host is then."""
        vm = self._world.vms.get(self._name)
        near = vm is None or vm.marker is None or vm.marker.address.network == host.network
        return near or not self._led_here()

    def mark(self, marker: Marker) -> None:
        with self._world.effect("mark"):
            self._vm.marker = marker

    def open_guest(self, address: Address, port: int) -> socket.socket:
        """Its other end has greeted as an SSH server does."""
        if not self._vm.running or not self._lets_in():
            raise ConnectionRefusedError(111, f"nothing answers at {address}:{port}")
        here, there = socket.socketpair()
        with there:
            there.sendall(b"SSH-2.0-memory\r\n")
        return here

    def console(self, lines: int) -> list[str]:
        return ["in memory"][:lines]

    def died(self) -> str | None:
        return None if self._vm.running else "it is off"

    def ssh_command(self, _address: Address) -> list[str]:
        return ["ssh"]

    def symptoms(self) -> list[str]:
        return []

    def examine(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    @property
    def _vm(self) -> MemoryVm:
        return self._world.vms[self._name]

    def _lets_in(self) -> bool:
        """Behind NAT by the static mapping only."""
        own, marker, entrance = self._world.own, self._vm.marker, self._world.entrance
        if self._own is None or not self._own.nat:
            return self._world.joined(self._vm)
        assert marker is not None
        assert entrance is not None
        mapped = mapping(entrance.controller, marker.address.ip)
        return self._world.joined(self._vm) and own is not None and own.settings.get("mapping") == mapped

    def _seen(self, vm: MemoryVm) -> VmSeen:
        return VmSeen(self._name, vm.running, vm.settings, vm.marker, vm.disk, vm.seed)

    def _create(self, step: CreateVm, delivery: Delivery, before: Marker | None) -> None:
        if self._name in self._world.vms:
            self._delete()
        wanted = step.vm
        marker = new_marker(wanted, delivery.host_key, before)
        self._world.vms[self._name] = MemoryVm(marker, wanted.settings, wanted.image, wanted.seed)

    def _delete(self) -> None:
        if self._name in self._world.vms:
            assert self._vm.marker is not None, "a VM that vmproxy did not make was removed"
            self._stop()
            del self._world.vms[self._name]
        self._world.leftovers = ()

    def _start(self) -> None:
        assert self._own is None or self._world.own, "a VM was started without its switch"
        self._vm.running = True
        self._vm.guest.boot()

    def _stop(self) -> None:
        if self._vm.running:
            assert self._world.consent, "a running VM was interrupted without consent"
            assert not self._led_here(), "the VM behind a route was stopped"
        self._vm.running = False

    def _led_here(self) -> list[Route]:
        marker = self._vm.marker
        return [item for item in self._world.routes if marker and item.via == marker.address.ip]


class MemoryClient:
    """The world's routes; what goes through a VM is answered when its kube-proxy answers."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    def observe(self) -> ClientSeen:
        world, own = self._world, self._world.own
        address = own.settings.get("address", ABSENT) if own else ABSENT
        on_switch = () if address == ABSENT else (ip_interface(address),)
        addresses = (*world.addresses, *on_switch)
        return ClientSeen(tuple(world.routes), addresses, tuple(world.rules), world.policy, world.serves_dns)

    def set_route(self, route: Route, before: Sequence[Route]) -> None:
        served = route.prefix in self._world.cluster.service_cidrs
        assert not served or self._answers(route.via), f"{route} was set, and nothing answers behind it"
        assert self._marked(route), f"{route} was set before the marker names it"
        with self._world.effect("set route"):
            kept = [item for item in self._world.routes if item not in before]
            self._world.routes = [*kept, route]

    def remove_route(self, route: Route) -> None:
        with self._world.effect("remove route"):
            self._world.routes = [item for item in self._world.routes if item != route]

    def set_names(self, rule: NameRule, before: Sequence[NameRule]) -> None:
        assert all(self._answers(self._way(server)) for server in rule.servers), f"nothing answers: {rule}"
        assert len(rule.namespaces) <= _MOST_NAMESPACES, f"too many namespaces: {rule}"
        for item in before:
            self.remove_names(item)
        with self._world.effect("set names"):
            self._world.rules.append(replace(rule, id=str(uuid.uuid4())))

    def remove_names(self, rule: NameRule) -> None:
        assert rule.comment.startswith("vmproxy:a:"), f"a rule of others was removed: {rule}"
        with self._world.effect("remove names"):
            self._world.rules = [item for item in self._world.rules if item.id != rule.id]

    def resolve(self, names: Sequence[str]) -> list[Resolved]:
        """Every name is the API server's here."""
        return [Resolved(name, {"memory": self._look_up(name)}) for name in names]

    def _look_up(self, name: str) -> tuple[Address, ...] | str:
        rules = () if self._world.policy else self._world.rules
        fitting = [rule for rule in rules for space in rule.namespaces if f".{name}".endswith(space)]
        asked = [server for rule in fitting for server in rule.servers if self._answers(self._way(server))]
        return (_API,) if asked else "no such name in memory"

    def probe(self, connections: Sequence[Connection]) -> list[Answer]:
        return [self._answer(self._way(item.address)) for item in connections]

    def trial(self, connection: Connection, route: Route) -> Answer:
        assert self._marked(route), f"{route} was tried before the marker names it"
        with self._world.effect("trial"):
            self._world.routes.append(route)
        try:
            return self._answer(self._way(connection.address))
        finally:
            self._world.routes = [item for item in self._world.routes if item != route]

    def _way(self, address: Address) -> Address | None:
        matching = [item for item in self._world.routes if address in item.prefix]
        return max(matching, key=lambda item: item.prefix.prefixlen).via if matching else None

    def _answer(self, via: Address | None) -> Answer:
        ok = self._answers(via)
        return Answer(ok, "answered in memory" if ok else "no answer in memory", via)

    def _answers(self, via: Address | None) -> bool:
        return not self._world.cut and any(
            vm.running and vm.guest.answers and self._world.joined(vm)
            for vm in self._world.vms.values()
            if vm.marker and vm.marker.address.ip == via
        )

    def _marked(self, route: Route) -> bool:
        return any(vm.marker and route in vm.marker.routes for vm in self._world.vms.values())


class MemoryContainers:
    """What the world's host has of containers."""

    def __init__(self, world: MemoryWorld, vm: str) -> None:
        self._world = world
        self._on_switch = names.switch_interface(vm)

    def observe(self, asked: Containers, network: Network, cni: CniFile | None) -> ContainersSeen:
        assert not overlap(asked.subnet, network) or asked.subnet == network
        seen = replace(self._world.containers, interfaces=tuple(self._interfaces(network)))
        if cni is None:
            return seen
        content = self._world.cni.get(cni.path)
        sha256 = None if content is None else hashlib.sha256(content).hexdigest()
        there = CniSeen(sha256, content is not None and _ours(content, cni))
        return replace(seen, cni=there)

    def _interfaces(self, network: Network) -> Iterator[InterfaceSeen]:
        """Also the host's on its VM's own switch."""
        yield from self._world.containers.interfaces
        own = self._world.own.settings if self._world.own else {}
        address = own.get("address", ABSENT)
        if address != ABSENT and ip_interface(address).ip in network:
            forwards = own.get("forwarding") == "Enabled"
            yield InterfaceSeen(self._on_switch, (ip_interface(address).ip,), forwards)

    def write_cni(self, file: CniFile, content: bytes) -> None:
        assert any(vm.marker and file.path in vm.marker.cni for vm in self._world.vms.values())
        assert _ours(self._world.cni.get(file.path, content), file)
        with self._world.effect("write CNI configuration"):
            self._world.cni[file.path] = content

    def remove_cni(self, file: CniFile) -> None:
        assert _ours(self._world.cni.get(file.path, b"{}"), file) or file.path not in self._world.cni
        with self._world.effect("remove CNI configuration"):
            self._world.cni.pop(file.path, None)

    def set_forwarding(self, alias: str, *, on: bool) -> None:
        assert self._marked(alias), f"forwarding on {alias} was changed while no marker names it"
        with self._world.effect("set forwarding"):
            seen, own = self._world.containers, self._world.own
            if alias == self._on_switch:
                assert own is not None or not on, "there is no such interface"
                if own is not None:
                    own.settings["forwarding"] = "Enabled" if on else "Disabled"
            changed = [
                replace(item, forwards=on) if item.alias == alias else item for item in seen.interfaces
            ]
            self._world.containers = replace(seen, interfaces=tuple(changed))

    def probe(self, container: str, connections: Sequence[Connection]) -> list[Answer]:
        """By way of the host, or of a VM that has an address in their subnet."""
        forwards = all(item.forwards for item in self._world.containers.interfaces)
        direct = any(vm.running and vm.guest.added for vm in self._world.vms.values())
        answers = MemoryClient(self._world).probe(connections)
        passes = (forwards or direct) and container not in self._world.lost
        return [replace(item, ok=item.ok and passes, container=container) for item in answers]

    def _marked(self, alias: str) -> bool:
        return any(vm.marker and alias in vm.marker.forwarding for vm in self._world.vms.values())


def _ours(content: bytes, file: CniFile) -> bool:
    known = json.loads(content)
    return all(known.get(name) == value for name, value in file.labels.items())


class MemoryGuestLink:
    """A log-in to the guest of a VM: over when the VM is not what it was."""

    def __init__(
        self,
        world: MemoryWorld,
        vm: str,
        mint: Callable[[], str],
        renewal: Callable[[], str],
    ) -> None:
        self._world = world
        self._name = vm
        self._mint = mint
        self._renewal = renewal

    def run(self, command: str) -> str:
        return f"{command}: in memory"

    def observe(self, query: GuestQuery) -> GuestSeen:
        guest, marker = self._guest, self._world.vms[self._name].marker
        return GuestSeen(
            files={path: seen for path, seen in guest.files.items() if path in query.files},
            units={name: guest.units.get(name, _NEW_UNIT) for name in query.units},
            sysctls={name: value for name, value in guest.sysctls.items() if name in query.sysctls},
            guard=guest.guard,
            routes=guest.routes,
            token=guest.token,
            proxy=ProxySeen(
                guest.answers or guest.flushed, "nftables", NOW, NOW - 1, failures=0, denied=0, age=3600.0
            ),
            kernel="6.12",
            writes_rules=True,
            nft="1.1.3",
            now=NOW,
            canary=CanarySeen(guest.answers, 200 if guest.answers else 0) if query.canary else None,
            renewal=self._renewal_status(guest) if query.api else 0,
            folders=guest.folders,
            addresses=(*((marker.address,) if marker else ()), *guest.added),
            added=guest.added,
            pod_routes=guest.pod_routes,
        )

    def _renewal_status(self, guest: MemoryGuest) -> int:
        there = guest.files.get(names.RENEWAL)
        if there is None:
            return 0
        return 200 if self._world.cluster.takes(there.sha256) else 401

    def do(self, steps: Sequence[GuestStep], report: Report) -> Iterator[GuestStep]:
        """Each step by itself, what follows from all of them at the end, as in the real guest."""
        follows: list[Follow] = []
        for step in steps:
            report(f"{step.verb} in memory")
            with self._world.effect(f"{step.verb} in guest"):
                follows.append(self._do(step))
        with self._world.effect("what follows"):
            self._follow(follows)
        yield from steps

    def wait_converged(self, canary: tuple[Address, int], seconds: float, report: Report) -> None:
        report(f"converged for {canary[0]} within {seconds:.0f} s")
        if not self._guest.answers:
            raise Unreachable(f"cannot route through VM {self._name}: kube-proxy does not answer")

    def cloud_init(self) -> CloudInit:
        return CloudInit(ended=True)

    def reach(self, endpoints: Sequence[Endpoint]) -> list[Reach]:
        return [Reach(None, silent=False, refused=False, via=None) for _ in endpoints]

    def rule_present(self, address: Address, port: int, protocol: str) -> bool:
        return self._guest.answers and (address, port, protocol) == (_API, 443, "tcp")

    def logs(self, which: str, lines: int) -> str:
        return "\n".join([f"{which}: in memory"][:lines])

    @property
    def _guest(self) -> MemoryGuest:
        vm = self._world.vms.get(self._name)
        if vm is None or not vm.running:
            raise Unreachable(f"cannot continue in VM {self._name}: the connection ended")
        return vm.guest

    def _do(self, step: GuestStep) -> Follow:
        guest, follow = self._guest, Follow()
        match step:
            case PushFile(path, file):
                guest.files[path] = FileSeen(file.sha256, file.mode, file.owner)
                guest.content[path] = file.content or b""
                guest.units = {name: replace(unit, stale=unit.active) for name, unit in guest.units.items()}
                follow = file.follow
            case SetAccess(path, mode):
                guest.protect(path, mode)
            case RemoveDropIns(unit):
                guest.units[unit] = replace(guest.units[unit], drop_ins=())
                follow = Follow(restart=(unit,) if unit in names.RUNNING_UNITS else ())
            case SetSysctl(name, value):
                guest.sysctls[name] = value
            case LoadGuard():
                follow = Follow(setup=("guard",))
            case SetGuestAddress():
                follow = Follow(setup=("addresses",))
            case SetGuestRoute():
                follow = Follow(setup=("routes",))
            case RenewToken():
                follow = Follow(renew=True)
            case GiveRenewal():
                guest.files[names.RENEWAL] = FileSeen(_sha256(self._renewal()), "0600", "root")
            case RestartProxy():
                follow = Follow(restart=(names.PROXY_UNIT,))
            case StartUnit(unit):
                guest.units[unit] = replace(guest.units.get(unit, _NEW_UNIT), enabled=True)
                follow = Follow(restart=(unit,))
            case _:
                assert_never(step)
        return follow

    def _follow(self, follows: Sequence[Follow]) -> None:
        guest = self._guest
        setup = {part for follow in follows for part in follow.setup}
        if "guard" in setup:
            guest.guard = guest.files[names.GUARD].sha256
        if "addresses" in setup:
            guest.add_addresses()
        if "routes" in setup:
            guest.routes = _listed(guest.content[names.ROUTES])
        if any(follow.renew for follow in follows):
            guest.token = self._new_token()
            guest.files[names.TOKEN] = FileSeen("", "0600", "root")
        restarted = {unit for follow in follows for unit in follow.restart}
        if names.PROXY_UNIT in restarted:
            guest.hung = guest.flushed = False
        if names.ROUTES_UNIT in restarted:
            guest.keep_pod_routes()
        for unit in guest.units.keys() | restarted:
            seen = guest.units.get(unit, _NEW_UNIT)
            guest.units[unit] = replace(seen, active=seen.active or unit in restarted, stale=False)

    def _new_token(self) -> TokenSeen:
        """The memory cluster's token is its claims."""
        subject, uid = self._mint().split()
        return TokenSeen(subject, uid, int(NOW), int(NOW) + _LIFE)


class MemoryClusterLink:
    """The Kubernetes API; counts the lists that are asked of it."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    def observe(self) -> ClusterSeen:
        cluster = self._cluster
        cluster.lists += 3  # nodes, ServiceCIDRs, ServiceAccounts
        return ClusterSeen(
            version="v1.36.3",
            server="https://192.168.10.4:6443",
            ca="-----BEGIN CERTIFICATE-----\n",
            service_cidrs=cluster.service_cidrs,
            pod_cidrs=(),
            nodes=cluster.nodes,
            canary=(_API, 443),
            accounts=self._accounts(),
            dns=cluster.dns,
        )

    def identity(self, account: str) -> dict[str, Any]:
        objects = self._cluster.objects
        found = {name.key: objects[name.key] for name in names.identity(account) if name.key in objects}
        key = names.key("Secret", names.renewal(account))
        if key in found:
            found[key] = {**found[key], "data": self._sealed(found[key], account)}
        return found

    def do(self, step: ClusterStep, warn: Callable[[str], None]) -> bool:
        objects = self._cluster.objects
        with self._world.effect(f"{step.verb} object"):
            match step:
                case CreateObject():
                    if step.target in objects and step.object["kind"] == "Namespace":
                        return False  # another host's run was first
                    if step.target in objects:
                        raise Conflict(f"cannot create {step.target}: it exists")
                    self._create(step.object)
                case UpdateObject() if step.object["kind"] == "Secret":
                    self._delete(step.target)
                    self._create(step.object)
                case UpdateObject():
                    objects[step.target] = _live(step.object, step.live["metadata"]["uid"])
                case DeleteObject():
                    if step.object["kind"] == "Namespace" and self._accounts():
                        return False  # other hosts' runs still use it
                    if step.object["kind"] == "Namespace" and self._cluster.tenants:
                        warn(f"namespace {names.NAMESPACE} stays: {', '.join(self._cluster.tenants)}")
                        return False
                    self._delete(step.target)
                case _:
                    assert_never(step)
        return True

    def mint(self, account: str, *, seconds: int) -> str:
        assert seconds > 0
        self._cluster.minted += 1
        item = self._cluster.objects[names.key("ServiceAccount", account)]
        return f"system:serviceaccount:{names.NAMESPACE}:{account} {item['metadata']['uid']}"

    def renewal(self, secret: Object) -> str:
        cluster, key = self._cluster, object_key(secret)
        if not cluster.takes(_sha256(_token(cluster.objects[key]))):
            with self._world.effect("delete object"):
                self._delete(key)
            with self._world.effect("create object"):
                self._create(secret)
        return _token(cluster.objects[key])

    def services(self) -> list[ServiceSeen]:
        """The API server's own, behind the canary."""
        self._cluster.lists += 2  # Services, EndpointSlices
        server = EndpointSeen(IPv4Address("192.168.10.4"), ready=True, ports={(443, "tcp"): 6443}, node=None)
        return [ServiceSeen("default/kubernetes", _API, ((443, "tcp"),), (server,))]

    def grants(self) -> tuple[Grant, ...]:
        self._cluster.lists += 3  # ClusterRoleBindings, RoleBindings, Secrets
        return self._cluster.grants

    def missing_rights(self, _account: str) -> tuple[str, ...]:
        return ()

    def _accounts(self) -> tuple[str, ...]:
        prefix = names.key("ServiceAccount", "")
        return tuple(name.removeprefix(prefix) for name in self._cluster.objects if name.startswith(prefix))

    def _create(self, item: Object) -> None:
        """A Secret with an account's token is filled by the cluster, if at all."""
        cluster = self._cluster
        cluster.uids += 1
        live = _live(item, cluster.uids)
        if item["kind"] == "Secret":
            if not cluster.fills:
                raise NotReady(f"a token in {object_key(item)}: timed out in memory")
            owner = item["metadata"]["annotations"][names.ACCOUNT_OF_SECRET]
            uid = cluster.objects[names.key("ServiceAccount", owner)]["metadata"]["uid"]
            live["data"] = {"token": f"{owner} {uid} {cluster.uids} {cluster.key}"}
        cluster.objects[object_key(item)] = live

    def _sealed(self, secret: Object, account: str) -> dict[str, str]:
        """As ClusterSeen.identity says."""
        owner = self._cluster.objects.get(names.key("ServiceAccount", names.renewal(account)))
        words = _token(secret).split()
        mine = owner is not None and len(words) > 1 and words[1] == owner["metadata"]["uid"]
        return {"token": _sha256(_token(secret))} if mine else {}

    def _delete(self, target: str) -> None:
        """It may already be gone."""
        live = self._cluster.objects.pop(target, None)
        label, value = names.MANAGED_BY
        labels = live["metadata"].get("labels") or {} if live else {label: value}
        assert labels.get(label) == value, f"{target} was not made by vmproxy"

    @property
    def _cluster(self) -> MemoryCluster:
        if not self._world.cluster.reachable:
            raise Unreachable("cannot reach the API server: no answer in memory")
        return self._world.cluster


def _live(item: Object, uid: object) -> Object:
    """As the API gives it back."""
    assert object_key(item)
    return {**item, "metadata": {**item["metadata"], "uid": str(uid)}}


def _token(item: Object) -> str:
    """In a Secret, as its owner's name and UID, a number and the key; empty: there is none."""
    return str((item.get("data") or {}).get("token", ""))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _listed(content: bytes) -> tuple[Route, ...]:
    return tuple(
        Route(ip_network(item["prefix"]), ip_address(item["via"]) if item["via"] else None)
        for item in json.loads(content)
    )
