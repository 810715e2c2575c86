"""Runs of the product in a world of plain data, and every world that one may find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.values import route
from vmproxy import seed
from vmproxy.engine.links import GuestLink, Links, Login
from vmproxy.engine.run import HostResult, apply_host, destroy_host
from vmproxy.engine.site import SiteRun
from vmproxy.errors import Unreachable, VmproxyError
from vmproxy.hosts.memory import (
    MemoryCarrier,
    MemoryClient,
    MemoryClusterLink,
    MemoryContainers,
    MemoryGuest,
    MemoryGuestLink,
    MemoryVm,
    MemoryWorld,
)
from vmproxy.hosts.protocols import Delivery, Drivers, Kind
from vmproxy.image import Base
from vmproxy.model import names
from vmproxy.model.drift import ABSENT
from vmproxy.model.net import Route
from vmproxy.model.seen import (
    Entrance,
    FileSeen,
    FolderSeen,
    Marker,
    NameRule,
    NodeSeen,
    TokenSeen,
    UnitSeen,
)
from vmproxy.model.steps import Plan
from vmproxy.model.topology import Member, Topology, compile_site
from vmproxy.operations.plan import plan_host
from vmproxy.operations.status import HostStatus, status_host
from vmproxy.resources.kubeproxy import Program
from vmproxy.site.model import Site
from vmproxy.util.events import Report, Reporter

ADDRESS = "192.168.10.5"
VM = "vmproxy-a-win-01"
IMAGE = "a" * 64
FOREIGN = (route("10.1.0.0/16", "192.168.10.9"), route("0.0.0.0/0", "192.168.10.1"))
STRAY = route("10.9.0.0/16", "192.168.10.8")
RANGE = route("10.96.0.0/16", ADDRESS)
SPACES = (".cluster.local", ".96.10.in-addr.arpa")
DNS = ip_address("10.96.0.10")
THEIRS = NameRule((".corp.example", "."), (ip_address("192.168.10.2"),), "a VPN's", "theirs")


def topology(**host: object) -> Topology:
    network = {"address": f"{ADDRESS}/24", "gateway": "192.168.10.1"}
    entry = {"name": "win-01", "qemu": {}, "actsFor": "win-01", "network": network, **host}
    return compile_site(Site.model_validate({"name": "a", "dns": {}, "hosts": [entry]}))


class MemoryArtifacts:
    """Nothing is fetched or built; `image` is the hash of the one that is here, of that `recipe`. Without
    `cache` nothing is here, and only what `got` names was got."""

    def __init__(
        self,
        image: str = IMAGE,
        *,
        recipe: str = "debian-13-1",
        cache: bool = True,
        problem: VmproxyError | None = None,
    ) -> None:
        self._problem = problem
        self._image = image
        self._recipe = recipe
        self._cache = cache
        self.got: list[str] = []

    def program(self, version: str) -> Program:
        here = self._cache or "program" in self.got
        return Program(
            Path("/cache/kube-proxy"), "f" * 64 if here else None, version, here, "https://a.example"
        )

    def get_program(self, version: str, report: Report) -> None:
        report(f"kube-proxy {version}: in memory")
        self.got.append("program")

    def base(self, kind: Kind) -> Base:
        here = self._cache or "image" in self.got
        day = "2026-01-31" if here else ""
        return Base(self._recipe, self._image if here else None, "built", day, self._problem)

    def get_image(self, kind: Kind, report: Report) -> None:
        report(f"an image for {kind.name}: in memory")
        self.got.append("image")

    def fetched_by_host(self, kind: Kind) -> bool:
        return kind.fetches

    def user_key(self) -> str:
        return "ssh-ed25519 AAAAuser"

    def user_key_file(self) -> Path:
        return Path("/state/id_ed25519")

    def deliver(self, spec: seed.Seed, kind: Kind, report: Report) -> Delivery:
        report(f"a seed {spec.hash[:8]} for {kind.name}")
        return Delivery(lambda: Path("/cache/image.raw"), b"seed", "ssh-ed25519 AAAAhost")


def links(worlds: Mapping[str, MemoryWorld], artifacts: MemoryArtifacts | None = None) -> Links:
    """Each member's host is a world of its own, by its name; they share the cluster."""
    by_vm = {f"vmproxy-a-{name}": world for name, world in worlds.items()}

    @contextmanager
    def open_host(member: Member) -> Iterator[Drivers]:
        world = worlds[member.name]
        carrier = MemoryCarrier(world, member.vm.name, member.carrier)
        yield Drivers(carrier, MemoryClient(world), MemoryContainers(world, member.vm.name))

    @contextmanager
    def log_in(login: Login) -> Iterator[GuestLink]:
        try:
            login.open_socket().close()
        except OSError as exc:
            raise Unreachable(f"cannot reach {login.vm}: {exc.strerror}") from exc
        yield MemoryGuestLink(by_vm[login.vm], login.vm, login.mint, login.renewal)

    first = next(iter(worlds.values()))
    return Links(lambda: MemoryClusterLink(first), open_host, log_in, artifacts or MemoryArtifacts())


@dataclass
class Product:
    """The commands, each a run of its own."""

    world: MemoryWorld
    topology: Topology = field(default_factory=topology)
    artifacts: MemoryArtifacts = field(default_factory=MemoryArtifacts)

    def site(self) -> SiteRun:
        return SiteRun(self.topology, self.topology.members, links({"win-01": self.world}, self.artifacts))

    def plan(self) -> Plan:
        return plan_host(self.site(), self.topology.members[0], _quiet)

    def apply(self, *, yes: bool = True, new_image: bool = False) -> HostResult:
        member = self.topology.members[0]
        return _sound(apply_host(self.site(), member, _quiet, yes=yes, new_image=new_image))

    def status(self) -> HostStatus:
        return status_host(self.site(), self.topology.members[0], _quiet)

    def destroy(self) -> HostResult:
        return _sound(destroy_host(self.site(), self.topology.members[0], _quiet, yes=True))


def _sound(result: HostResult) -> HostResult:
    """What no run may ever do fails the test, although a run turns it into its error."""
    if result.error and isinstance(result.error.__cause__, AssertionError):
        raise result.error.__cause__
    return result


_quiet = Reporter(lambda _host, _event: None)


def made(**host: object) -> MemoryWorld:
    """A world in which all is as it should be."""
    world = MemoryWorld(routes=list(FOREIGN))
    result = Product(world, topology(**host)).apply()
    assert result.error is None, result.error
    return world


# What may have become of a good world, or how far its making got.

Change = Callable[[MemoryWorld], None]


def _vm(world: MemoryWorld) -> MemoryVm | None:
    return world.vms.get(VM)


def _guest(change: Callable[[MemoryGuest], None]) -> Change:
    def changed(world: MemoryWorld) -> None:
        if vm := _vm(world):
            change(vm.guest)

    return changed


def _of_vm(change: Callable[[MemoryVm], None]) -> Change:
    def changed(world: MemoryWorld) -> None:
        if vm := _vm(world):
            change(vm)

    return changed


def _without_vm(world: MemoryWorld) -> None:
    world.vms.pop(VM, None)
    world.routes = [item for item in world.routes if item != RANGE]


def _unit(name: str, **state: bool | tuple[str, ...]) -> Change:
    def change(guest: MemoryGuest) -> None:
        if name in guest.units:
            seen = guest.units[name]
            guest.units[name] = UnitSeen(**{**vars(seen), **state})

    return _guest(change)


def _first_file(guest: MemoryGuest, *, keep: bool, group: str = "root", kind: str = "file") -> None:
    for path in list(guest.files)[:3]:
        if keep:
            guest.files[path] = FileSeen("0" * 64, "0600", "root", group, kind)
        else:
            del guest.files[path]


def _off(vm: MemoryVm) -> None:
    vm.running = False


def _setting(name: str, value: object) -> Change:
    def change(vm: MemoryVm) -> None:
        vm.settings = {**vm.settings, name: value}

    return _of_vm(change)


def _lost(name: str) -> Change:
    return _of_vm(lambda vm: setattr(vm, name, None))


def _token(token: TokenSeen | None) -> Change:
    return _guest(lambda guest: setattr(guest, "token", token))


def _routes(*routes: Route) -> Change:
    def change(world: MemoryWorld) -> None:
        world.routes = [*FOREIGN, *routes]

    return change


def _object_gone(kind: str) -> Change:
    def change(world: MemoryWorld) -> None:
        for name in [name for name in world.cluster.objects if name.startswith(f"{kind}/")]:
            del world.cluster.objects[name]

    return change


def _of_object(kind: str, **parts: object) -> Change:
    def change(world: MemoryWorld) -> None:
        for name, item in world.cluster.objects.items():
            if name.startswith(f"{kind}/"):
                world.cluster.objects[name] = {**item, **parts}

    return change


def _renewal_account_gone(world: MemoryWorld) -> None:
    """Kubernetes removes its Secret with it."""
    for kind in ("serviceaccount", "secret"):
        world.cluster.objects.pop(f"{kind}/a-win-01-renewal", None)


def _renewal(**state: str) -> Change:
    def change(guest: MemoryGuest) -> None:
        if seen := guest.files.get(names.RENEWAL):
            guest.files[names.RENEWAL] = replace(seen, **state)

    return _guest(change)


def names_rule(comment: str = "vmproxy:a:win-01", **parts: object) -> NameRule:
    known = {"namespaces": SPACES, "servers": (DNS,), "comment": comment, "id": "{1}"}
    return NameRule(**{**known, **parts})  # type: ignore[arg-type]


def _rules(*rules: NameRule) -> Change:
    def change(world: MemoryWorld) -> None:
        world.rules = [THEIRS, *rules]

    return change


def _marker_routes(world: MemoryWorld) -> None:
    if (vm := _vm(world)) and vm.marker:
        known = vars(vm.marker) | {"routes": (RANGE, route("10.96.0.1/32", ADDRESS))}
        vm.marker = Marker(**known)


CHANGES: dict[str, Change] = {
    "no VM": _without_vm,
    "VM off": _of_vm(_off),
    "another size": _setting("cpus", 1),
    "another switch": _setting("switch", "elsewhere"),
    "disk lost": _lost("disk"),
    "seed lost": _lost("seed"),
    "files edited": _guest(lambda guest: _first_file(guest, keep=True)),
    "files gone": _guest(lambda guest: _first_file(guest, keep=False)),
    "kube-proxy stopped": _unit("vmproxy-kube-proxy.service", active=False),
    "pod routes not kept": _unit("vmproxy-routes.service", active=False),
    "kube-proxy disabled": _unit("vmproxy-kube-proxy.service", enabled=False),
    "kube-proxy started with older files": _unit("vmproxy-kube-proxy.service", stale=True),
    "kube-proxy hung": _guest(lambda guest: setattr(guest, "hung", True)),
    "rules flushed": _guest(lambda guest: setattr(guest, "flushed", True)),
    "sysctl changed": _guest(lambda guest: guest.sysctls.update({"net.ipv4.ip_forward": "0"})),
    "guard flushed": _guest(lambda guest: setattr(guest, "guard", None)),
    "guest route added": _guest(
        lambda guest: setattr(guest, "routes", (route("10.9.0.0/16", "192.168.10.8"),))
    ),
    "guest address left": _guest(lambda guest: setattr(guest, "added", (ip_interface("10.9.0.2/24"),))),
    "a link in a file's place": _guest(lambda guest: _first_file(guest, keep=True, kind="link")),
    "files of another group": _guest(lambda guest: _first_file(guest, keep=True, group="games")),
    "folder open": _guest(
        lambda guest: guest.folders.update({"/etc/vmproxy": FolderSeen("0777", "root", "root", "folder")})
    ),
    "folder is a link": _guest(
        lambda guest: guest.folders.update({"/etc/vmproxy": FolderSeen("0777", "root", "root", "link")})
    ),
    "token readable": _guest(
        lambda guest: guest.files.update({"/etc/vmproxy/token": FileSeen("0" * 64, "0644", "root")})
    ),
    "kube-proxy overridden": _unit("vmproxy-kube-proxy.service", drop_ins=("/run/x.d/override.conf",)),
    "token's service overridden": _unit("vmproxy-token.service", drop_ins=("/run/x.d/override.conf",)),
    "no default route": _guest(lambda guest: setattr(guest, "routes", guest.routes[1:])),
    "no token": _token(None),
    "expired token": _token(TokenSeen("somebody", "else", 1, 2)),
    "no route": _routes(),
    "route elsewhere": _routes(route("10.96.0.0/16", "192.168.10.77")),
    "route twice": _routes(RANGE, route("10.96.0.0/16", "192.168.10.77")),
    "trial route left": _marker_routes,
    "no rule for names": _rules(),
    "names of another server": _rules(names_rule(servers=(ip_address("10.96.0.99"),))),
    "names of less": _rules(names_rule(namespaces=SPACES[:1])),
    "two rules for names": _rules(names_rule(), names_rule(id="{2}")),
    "names in two rules": _rules(*(names_rule(namespaces=(one,), id=one) for one in SPACES)),
    "account gone": _object_gone("serviceaccount"),
    "role gone": _object_gone("role"),
    "rule widened": _of_object("clusterrole", rules=[{"verbs": ["*"]}]),
    "role aggregated": _of_object("clusterrole", aggregationRule={"clusterRoleSelectors": [{}]}),
    "binding in default gone": _object_gone("rolebinding/default"),
    "renewal token gone": _guest(lambda guest: guest.files.pop(names.RENEWAL, None) and None),
    "renewal token damaged": _renewal(sha256="0" * 64),
    "renewal token readable": _renewal(mode="0644"),
    "renewal account gone": _renewal_account_gone,
    "renewal Secret gone": _object_gone("secret"),
    "renewal Secret emptied": _of_object("secret", data={}),
    "renewal Secret of another type": _of_object("secret", type="Opaque"),
    "another signing key": lambda world: setattr(world.cluster, "key", world.cluster.key + 1),
    "leftovers": lambda world: setattr(world, "leftovers", ("/images/x.part",)),
}


@st.composite
def worlds(draw: st.DrawFn) -> MemoryWorld:
    """From nothing, or from a good world, with any of the changes one after the other."""
    world = made() if draw(st.booleans()) else MemoryWorld(routes=list(FOREIGN))
    for name in draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=5)):
        CHANGES[name](world)
    return world


# A host whose VM is on a switch of its own, behind NAT.

LAN, CONTROLLER = ip_interface("192.168.10.2/24"), ip_address("192.168.10.40")
INSIDE = "172.30.255.2"
NODE = NodeSeen("node-1", (ip_address("192.168.10.20"),), (ip_network("10.244.1.0/24"),))
BEHIND = (route("10.96.0.0/16", INSIDE), route("10.244.1.0/24", "192.168.10.20"))


def behind(internal: str = "172.30.255.0/29", *, nat: bool = True, **host: object) -> Topology:
    entry = {
        "qemu": None,
        "hyperv": {"endpoint": "https://win-01:5986", "auth": "kerberos"},
        "switch": {"internal": internal, "nat": nat},
        "network": {"podRoutes": "nodes"},
    }
    return topology(**{**entry, **host})


def windows() -> MemoryWorld:
    """With a network card, and nothing of vmproxy."""
    world = MemoryWorld(routes=list(FOREIGN), addresses=(LAN,), entrance=Entrance(LAN.ip, CONTROLLER))
    world.cluster.nodes = (NODE,)
    return world


def made_behind(**switch: Any) -> MemoryWorld:
    world = windows()
    result = Product(world, behind(**switch)).apply()
    assert result.error is None, result.error
    return world


def _switch(name: str, value: object) -> Change:
    def change(world: MemoryWorld) -> None:
        if world.own:
            world.own.settings[name] = value

    return change


def _without_switch(world: MemoryWorld) -> None:
    """By hand: the VM's adapter is on none then, and its routes have no interface."""
    world.own = None
    if vm := _vm(world):
        vm.settings = {**vm.settings, "switch": ""}
    world.routes = [item for item in world.routes if item.prefix != BEHIND[0].prefix]


def _pod_route(via: str | None) -> Change:
    def change(world: MemoryWorld) -> None:
        marked = BEHIND[1] in ((vm.marker.routes if vm.marker else ()) if (vm := _vm(world)) else ())
        world.routes = [item for item in world.routes if item.prefix != BEHIND[1].prefix]
        if via and marked:
            world.routes.append(route(str(BEHIND[1].prefix), via))

    return change


SWITCH_CHANGES: dict[str, Change] = {
    "switch gone": _without_switch,
    "address": _switch("address", ABSENT),
    "dnsRegistration": _switch("dnsRegistration", "on"),
    "metric": _switch("metric", 15),
    "nat": _switch("nat", ABSENT),
    "mapping": _switch("mapping", "tcp 2222 from 192.168.10.9 to 172.30.255.2:22"),
    "pod route gone": _pod_route(None),
    "pod route elsewhere": _pod_route("192.168.10.77"),
    "controller elsewhere": lambda world: setattr(
        world, "entrance", Entrance(LAN.ip, ip_address("192.168.10.41"))
    ),
}


ADDRESS_VALUE = ip_interface(f"{ADDRESS}/24")
