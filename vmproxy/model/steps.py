"""Every step that a run may take, as data: what a step changes is what it shows.

Each class has, beside what it takes to carry it out: `place`, where it is done; `verb` and `target`, how a
reader sees it; `why`; `drift`, the differences that it removes; `cold`, whether it interrupts a VM that
runs now and needs consent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from vmproxy.model import names
from vmproxy.model.drift import ABSENT, Drift, deep_differences, differences
from vmproxy.model.names import ObjectName
from vmproxy.model.net import Address, Interface, Network, Route
from vmproxy.model.seen import FileSeen, FolderSeen, Marker, NameRule, UnitSeen, VmSeen
from vmproxy.model.topology import OwnSwitch

Place = Literal["cluster", "host", "guest"]

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

# The VM's identity in the cluster.

_COMPARED = ("rules", "aggregationRule", "roleRef", "subjects", "automountServiceAccountToken", "type")
_WHY = "the VM reads the cluster with this identity"


@dataclass(frozen=True)
class CreateObject:
    """Make an object of the VM's identity."""

    object: Object = field(repr=False)
    place: ClassVar[Place] = "cluster"
    verb: ClassVar = "create"
    why: ClassVar = _WHY
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return object_key(self.object)

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.target, "present", ABSENT),)


@dataclass(frozen=True)
class UpdateObject:
    """Bring an object to what is wanted; `live` is the object as it is. A Secret is made anew."""

    object: Object = field(repr=False)
    live: Object = field(repr=False)
    place: ClassVar[Place] = "cluster"
    verb: ClassVar = "update"
    why: ClassVar = _WHY
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return object_key(self.object)

    @property
    def drift(self) -> tuple[Drift, ...]:
        found: list[Drift] = []
        for part in _COMPARED:
            if part in self.object:
                found += deep_differences(f"{self.target}: {part}", self.object[part], self.live.get(part))
        for part in ("labels", "annotations"):
            live = self.live["metadata"].get(part) or {}
            for name, value in self.object["metadata"].get(part, {}).items():
                if live.get(name) != value:
                    found.append(Drift(f"{self.target}: {part}.{name}", value, live.get(name, ABSENT)))
        if self.object["kind"] == "Secret" and not (self.live.get("data") or {}).get("token"):
            found.append(Drift(f"{self.target}: token", "one of its account", ABSENT))
        return tuple(found)


@dataclass(frozen=True)
class DeleteObject:
    """Remove that very object: `live` has its UID."""

    object: Object = field(repr=False)
    live: Object = field(repr=False)
    place: ClassVar[Place] = "cluster"
    verb: ClassVar = "delete"
    why: ClassVar = "nothing uses it then"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return object_key(self.object)

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.target, ABSENT, "present"),)


def object_name(item: Object) -> ObjectName:
    metadata = item["metadata"]
    return ObjectName(item["kind"], metadata["name"], metadata.get("namespace", ""))


def object_key(item: Object) -> str:
    return object_name(item).key


# The switch that vmproxy makes for a VM.


@dataclass(frozen=True)
class SwitchWanted:
    """`controller` is this machine's address as the host sees it, which is let in to the VM; None: there is
    no NAT, and it goes there by itself."""

    own: OwnSwitch
    controller: Address | None

    @property
    def settings(self) -> dict[str, Any]:
        """As a drift shows them. What is behind NAT needs no forwarding by the host's interface."""
        own = self.own
        return {
            "address": str(own.host),
            "dnsRegistration": "off",
            "metric": names.SWITCH_METRIC,
            **({} if own.nat else {"forwarding": "Enabled"}),
            "nat": str(own.host.network) if own.nat else ABSENT,
            "mapping": mapping(self.controller, own.vm) if self.controller else ABSENT,
        }


def mapping(
    source: Address | Network,
    vm: Address,
    *,
    protocol: str = "tcp",
    port: int = names.MAPPED_PORT,
    to: int = 22,
) -> str:
    """The static mapping that lets one machine in to a VM's SSH, for a reader."""
    return f"{protocol} {port} from {source} to {vm}:{to}"


_OWN_SWITCH = "the VM is on a switch of its own"


@dataclass(frozen=True)
class CreateSwitch:
    """Make the switch, with all that belongs to it."""

    switch: SwitchWanted
    place: ClassVar[Place] = "host"
    verb: ClassVar = "create"
    why: ClassVar = _OWN_SWITCH
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return f"switch {self.switch.own.name}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift("switch", "present", ABSENT),)


@dataclass(frozen=True)
class SetSwitch:
    """Bring what differs to what it should be. Cold where the VM that runs has to move with it."""

    switch: SwitchWanted
    drift: tuple[Drift, ...]
    cold: bool = False
    place: ClassVar[Place] = "host"
    verb: ClassVar = "set"
    why: ClassVar = _OWN_SWITCH

    @property
    def target(self) -> str:
        return f"switch {self.switch.own.name}"


@dataclass(frozen=True)
class RemoveSwitch:
    """Remove the switch with its NAT and the host's address. `nat`: only that is left of it."""

    name: str
    nat: bool = False
    place: ClassVar[Place] = "host"
    verb: ClassVar = "remove"
    why: ClassVar = "nothing uses it then"
    cold: ClassVar = True

    @property
    def target(self) -> str:
        return f"switch {self.name}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift("nat" if self.nat else "switch", ABSENT, "present"),)


# The VM on its host.


@dataclass(frozen=True)
class VmWanted:
    """`settings` by the names that the host reports them under; those in `hot` change while the VM runs,
    those in `fixed` never. `image` and `seed` are hashes; `recipe` and `made` are the image's, for the
    marker."""

    name: str
    site: str
    host: str
    address: Interface
    image: str
    seed: str
    settings: Mapping[str, Any]
    hot: frozenset[str]
    fixed: frozenset[str]
    recipe: str = ""
    made: str = ""


def new_marker(vm: VmWanted, host_key: str, before: Marker | None) -> Marker:
    """Of a VM that is made. What was set on the host for the one before it stays known as ours."""
    return Marker(
        site=vm.site,
        host=vm.host,
        address=vm.address,
        seed=vm.seed,
        image=vm.image,
        host_key=host_key,
        routes=before.routes if before else (),
        recipe=vm.recipe,
        made=vm.made,
        forwarding=before.forwarding if before else (),
        cni=before.cni if before else (),
    )


@dataclass(frozen=True)
class CreateVm:
    """Make the VM from its image and a new seed, in place of `before`; None: there is none."""

    vm: VmWanted
    before: VmSeen | None = None
    place: ClassVar[Place] = "host"

    @property
    def verb(self) -> str:
        return "recreate" if self.before else "create"

    @property
    def target(self) -> str:
        return f"vm {self.vm.name}"

    @property
    def why(self) -> str:
        if self.before is None:
            return "there is no VM of that name"
        if all(item.field in self.vm.fixed for item in self.drift):
            return "no VM changes that"
        return "its disk or seed is not the wanted one, and both are used at the first boot only"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return made_of(self.vm, self.before) if self.before else (Drift("vm", "present", ABSENT),)

    @property
    def cold(self) -> bool:
        return self.before is not None and self.before.running


@dataclass(frozen=True)
class StartVm:
    """Start the VM; cold when it runs now and a step before this one stops it."""

    name: str
    cold: bool = False
    place: ClassVar[Place] = "host"
    verb: ClassVar = "start"
    why: ClassVar = "it must run"
    drift: ClassVar = (Drift("state", "running", "stopped"),)

    @property
    def target(self) -> str:
        return f"vm {self.name}"


@dataclass(frozen=True)
class SetVm:
    """Change what a VM takes while it runs."""

    vm: VmWanted
    drift: tuple[Drift, ...]
    place: ClassVar[Place] = "host"
    verb: ClassVar = "set"
    why: ClassVar = "it changes while the VM runs"
    cold: ClassVar = False

    @property
    def settings(self) -> dict[str, Any]:
        """Those that differ, as they should be."""
        return {item.field: self.vm.settings[item.field] for item in self.drift}

    @property
    def target(self) -> str:
        return f"vm {self.vm.name}"


@dataclass(frozen=True)
class ReconfigureVm:
    """Change what a VM takes only while it is off: stop it, change it, start it."""

    vm: VmWanted
    drift: tuple[Drift, ...]
    cold: bool
    place: ClassVar[Place] = "host"
    verb: ClassVar = "reconfigure"
    why: ClassVar = "it changes only while the VM is off: stopped, set, started"

    @property
    def settings(self) -> dict[str, Any]:
        """Those that differ, as they should be."""
        return {item.field: self.vm.settings[item.field] for item in self.drift}

    @property
    def target(self) -> str:
        return f"vm {self.vm.name}"


@dataclass(frozen=True)
class DeleteVm:
    """Remove the VM with its files; `leftovers` are files of ours where there is no VM."""

    name: str
    leftovers: tuple[str, ...] = ()
    place: ClassVar[Place] = "host"
    verb: ClassVar = "delete"
    cold: ClassVar = True

    @property
    def target(self) -> str:
        return self.name

    @property
    def why(self) -> str:
        return "files that an earlier run left" if self.leftovers else "with its disk and seed"

    @property
    def drift(self) -> tuple[Drift, ...]:
        if self.leftovers:
            return tuple(Drift(path, ABSENT, "present") for path in self.leftovers)
        return (Drift("vm", ABSENT, "present"),)


def made_of(wanted: VmWanted, vm: VmSeen) -> tuple[Drift, ...]:
    """What only a new VM changes: its disk, its seed and what no VM ever changes."""
    assert vm.marker is not None
    seed = vm.seed if vm.seed is None else vm.marker.seed
    seen = {"disk": vm.disk or ABSENT, "seed": seed or ABSENT}
    fixed = {name: value for name, value in wanted.settings.items() if name in wanted.fixed}
    return differences({"disk": wanted.image, "seed": wanted.seed, **fixed}, {**vm.settings, **seen})


# The routes of the machine whose traffic goes through the VM.


@dataclass(frozen=True)
class SetRoute:
    """Set a route in place of `before`. `routes` are those that the marker names afterwards. Cold when a step
    before this one takes it away, for a VM that stops."""

    route: Route
    before: tuple[Route, ...]
    routes: tuple[Route, ...]
    cold: bool = False
    why: str = "Service traffic goes through the VM"
    place: ClassVar[Place] = "host"

    @property
    def verb(self) -> str:
        return "replace" if self.before else "add"

    @property
    def target(self) -> str:
        return f"route {self.route.prefix}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        """A prefix may have several routes: the one with the lower metric counts, whoever set it."""
        seen = ", ".join(
            " ".join(filter(None, (str(item.via or "on-link"), item.flaw))) for item in self.before
        )
        return (Drift(self.target, str(self.route.via), seen or ABSENT),)


@dataclass(frozen=True)
class RemoveRoute:
    """Take a route away. `routes` are those that the marker names afterwards."""

    route: Route
    routes: tuple[Route, ...]
    why: str
    cold: bool = False
    place: ClassVar[Place] = "host"
    verb: ClassVar = "remove"

    @property
    def target(self) -> str:
        return f"route {self.route.prefix}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.target, ABSENT, str(self.route.via or "")),)


@dataclass(frozen=True)
class MarkRoutes:
    """Let the marker name `routes` in place of `before`; the routes themselves are as they should be."""

    routes: tuple[Route, ...]
    before: tuple[Route, ...]
    place: ClassVar[Place] = "host"
    verb: ClassVar = "mark"
    target: ClassVar = "routes"
    why: ClassVar = "so that they are known as ours"
    cold: ClassVar = False

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift("marker: routes", _routes(self.routes), _routes(self.before)),)


def _routes(routes: tuple[Route, ...]) -> str:
    return ", ".join(f"{route.prefix} via {route.via or ''}" for route in routes) or ABSENT


# The way of the host's containers to the VM.


@dataclass(frozen=True)
class SetForwarding:
    """Let the host forward packets that arrive at this interface. `marked`: the interfaces that the marker
    names afterwards."""

    alias: str
    marked: tuple[str, ...]
    place: ClassVar[Place] = "host"
    verb: ClassVar = "set"
    why: ClassVar = "the host is the way between its containers and the VM"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return f"forwarding on {self.alias}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.target, "Enabled", "Disabled"),)


@dataclass(frozen=True)
class ResetForwarding:
    """Turn forwarding off again where vmproxy turned it on; an interface that is gone has none."""

    alias: str
    marked: tuple[str, ...]
    place: ClassVar[Place] = "host"
    verb: ClassVar = "reset"
    why: ClassVar = "no containers use it any more"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return f"forwarding on {self.alias}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.target, "Disabled", "as vmproxy set it"),)


@dataclass(frozen=True)
class CniFile:
    """Where a CNI configuration of ours is on its host, and the labels in it that say so."""

    path: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class WriteCni:
    """Write a CNI configuration; `before` is the SHA-256 of the one that is there, None for none. `marked`:
    the paths that the marker names afterwards."""

    file: CniFile
    content: bytes = field(repr=False)
    before: str | None
    marked: tuple[str, ...]
    place: ClassVar[Place] = "host"
    verb: ClassVar = "write"
    why: ClassVar = "new containers get the policies that lead to the VM"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return self.file.path

    @property
    def drift(self) -> tuple[Drift, ...]:
        if self.before is None:
            return (Drift(self.target, "present", ABSENT),)
        field, wanted = f"{self.target}: sha256", hashlib.sha256(self.content).hexdigest()
        return differences({field: wanted}, {field: self.before})


@dataclass(frozen=True)
class RemoveCni:
    """Remove a CNI configuration that vmproxy wrote, if it is still ours."""

    file: CniFile
    marked: tuple[str, ...]
    place: ClassVar[Place] = "host"
    verb: ClassVar = "remove"
    why: ClassVar = "nothing behind it leads to the VM any more"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return self.file.path

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.target, ABSENT, "as vmproxy wrote it"),)


# The rules by which that machine's resolver asks the cluster's DNS.


@dataclass(frozen=True)
class SetNames:
    """Make a rule in place of `before`, rules of ours that are not as they should be."""

    rule: NameRule
    before: tuple[NameRule, ...] = ()
    place: ClassVar[Place] = "host"
    why: ClassVar = "names of Services are asked of the cluster's DNS"
    cold: ClassVar = False

    @property
    def verb(self) -> str:
        return "replace" if self.before else "add"

    @property
    def target(self) -> str:
        return _names(self.rule)

    @property
    def drift(self) -> tuple[Drift, ...]:
        if not self.before:
            return (Drift(self.target, _servers(self.rule), ABSENT),)
        wanted = {"namespaces": sorted(self.rule.namespaces), "servers": _servers(self.rule), "rules": 1}
        seen = {
            "rules": len(self.before),
            "namespaces": sorted(name for rule in self.before for name in rule.namespaces),
            "servers": "; ".join(dict.fromkeys(map(_servers, self.before))),
        }
        return tuple(
            Drift(f"{self.target}: {item.field}", item.wanted, item.seen)
            for item in differences(wanted, seen)
        )


@dataclass(frozen=True)
class RemoveNames:
    """Take a rule of ours away."""

    rule: NameRule
    why: str
    place: ClassVar[Place] = "host"
    verb: ClassVar = "remove"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return _names(self.rule)

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(f"{self.target} {self.rule.id}".strip(), ABSENT, _servers(self.rule)),)


def _names(rule: NameRule) -> str:
    more = len(rule.namespaces) - 1
    return f"names {rule.namespaces[0] if rule.namespaces else ''}" + (
        f" and {more} more" if more > 0 else ""
    )


def _servers(rule: NameRule) -> str:
    return ", ".join(map(str, rule.servers)) or "no server"


# Inside the guest.


@dataclass(frozen=True)
class Follow:
    """What has to follow a changed file: units restarted, setup.py run for a part, a new token."""

    restart: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    reload: bool = False
    renew: bool = False


@dataclass(frozen=True)
class ManagedFile:
    """Exactly one of `content` and `source` (a large file on this machine, a program of that `version`)."""

    sha256: str
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    content: bytes | None = field(default=None, repr=False)
    source: Path | None = None
    version: str | None = None
    follow: Follow = Follow()

    @classmethod
    def of(cls, content: str | bytes, *, mode: str = "0644", follow: Follow = Follow()) -> ManagedFile:
        data = content.encode() if isinstance(content, str) else content
        return cls(hashlib.sha256(data).hexdigest(), mode, content=data, follow=follow)


@dataclass(frozen=True)
class PushFile:
    """Write a file, whole or not at all; `before` None: it does not exist."""

    path: str
    file: ManagedFile
    before: FileSeen | None
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "push"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return self.path

    @property
    def why(self) -> str:
        follow = self.file.follow
        parts = [f"restarts {unit}" for unit in follow.restart] + [
            f"loads the {part}" for part in follow.setup
        ]
        return "; ".join(["it is not as it should be", *parts])

    @property
    def drift(self) -> tuple[Drift, ...]:
        if self.before is None:
            return (Drift(self.path, "present", ABSENT),)
        if self.before.kind != "file":
            return (Drift(f"{self.path}: kind", "file", self.before.kind),)
        pairs = {
            "sha256": (self.file.sha256, self.before.sha256),
            "mode": (self.file.mode, self.before.mode),
            "owner": (self.file.owner, self.before.owner),
            "group": (self.file.group, self.before.group),
        }
        return tuple(
            Drift(f"{self.path}: {name}", *pair) for name, pair in pairs.items() if pair[0] != pair[1]
        )


@dataclass(frozen=True)
class SetAccess:
    """Give a folder of vmproxy's, or the token, back to root, with that mode. What is in a folder's place and
    is none, as a link, goes."""

    path: str
    mode: str
    before: FileSeen | FolderSeen
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "protect"
    why: ClassVar = "only root may change what root runs"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return self.path

    @property
    def drift(self) -> tuple[Drift, ...]:
        before = self.before
        if isinstance(before, FolderSeen) and before.kind != "folder":
            return (Drift(f"{self.path}: kind", "folder", before.kind),)
        pairs = {
            "mode": (self.mode, before.mode),
            "owner": ("root", before.owner),
            "group": ("root", before.group),
        }
        return tuple(
            Drift(f"{self.path}: {name}", *pair) for name, pair in pairs.items() if pair[0] != pair[1]
        )


@dataclass(frozen=True)
class RemoveDropIns:
    """Remove what changes a unit of vmproxy's from beside its file; one that runs is restarted."""

    unit: str
    paths: tuple[str, ...]
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "remove"
    why: ClassVar = "the unit is to run as its own file says"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return f"drop-ins of {self.unit}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(f"{self.unit}: drop-ins", ABSENT, ", ".join(self.paths)),)


@dataclass(frozen=True)
class SetSysctl:
    """Set a kernel setting; `before` None: the kernel does not have it."""

    name: str
    value: str
    before: str | None
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "set"
    why: ClassVar = "a one-armed router needs it"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return f"sysctl {self.name}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(self.name, self.value, ABSENT if self.before is None else self.before),)


@dataclass(frozen=True)
class LoadGuard:
    """Load the guard table again; `missing`: there is none, else it was changed."""

    missing: bool
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "load"
    target: ClassVar = "guard table"
    why: ClassVar = "it drops what kube-proxy does not know, and all input but SSH"
    cold: ClassVar = False

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift("guard table", "as in guard.nft", ABSENT if self.missing else "changed"),)


@dataclass(frozen=True)
class SetGuestRoute:
    """Bring one of the guest's routes to `via`; None: it goes, or does not exist."""

    prefix: Network
    via: Address | None
    before: Address | None
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "load"
    why: ClassVar = "how the VM reaches endpoints"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return f"guest route {self.prefix}"

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift(f"route {self.prefix}", str(self.via or ABSENT), str(self.before or ABSENT)),)


@dataclass(frozen=True)
class SetGuestAddress:
    """Add an address to the guest's interface, beside its own; not `wanted`: take one of ours away."""

    address: Interface
    wanted: bool
    place: ClassVar[Place] = "guest"
    cold: ClassVar = False

    @property
    def verb(self) -> str:
        return "add" if self.wanted else "remove"

    @property
    def target(self) -> str:
        return f"guest address {self.address}"

    @property
    def why(self) -> str:
        return "it is the containers' gateway" if self.wanted else "no containers use it any more"

    @property
    def drift(self) -> tuple[Drift, ...]:
        wanted, seen = ("present", ABSENT) if self.wanted else (ABSENT, "present")
        return (Drift(f"address {self.address}", wanted, seen),)


@dataclass(frozen=True)
class RenewToken:
    """Give the VM a new token: it has none, or one that is no good, as `why` says."""

    why: str
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "renew"
    target: ClassVar = "token"
    cold: ClassVar = False

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift("token", "valid", self.why),)


@dataclass(frozen=True)
class GiveRenewal:
    """Give the VM the token that renews its own: it has none, or one that is no good, as `why` says."""

    why: str
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "push"
    target: ClassVar = "renewal token"
    cold: ClassVar = False

    @property
    def drift(self) -> tuple[Drift, ...]:
        return (Drift("renewal token", "valid", self.why),)


@dataclass(frozen=True)
class StartUnit:
    """Enable and restart a unit. `restarted`: a pushed file starts it anyway, it is only enabled."""

    unit: str
    before: UnitSeen | None
    restarted: bool
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "start"
    why: ClassVar = "it must run, now and after a restart of the VM"
    cold: ClassVar = False

    @property
    def target(self) -> str:
        return self.unit

    @property
    def drift(self) -> tuple[Drift, ...]:
        found = []
        if self.before is None or not self.before.enabled:
            found.append(Drift(f"{self.unit}: enabled", "yes", "no"))
        if not self.restarted and (self.before is None or not self.before.active):
            found.append(Drift(f"{self.unit}: active", "yes", "no"))
        elif not self.restarted and self.before and self.before.stale:
            found.append(Drift(f"{self.unit}: started with", "the files as they are", "older ones"))
        return tuple(found)


@dataclass(frozen=True)
class RestartProxy:
    """Start kube-proxy again, which runs and is not as it should be: as `drift` says."""

    drift: tuple[Drift, ...]
    place: ClassVar[Place] = "guest"
    verb: ClassVar = "restart"
    target: ClassVar = names.PROXY_UNIT
    why: ClassVar = "it runs, and does not do its work"
    cold: ClassVar = False


ClusterStep = CreateObject | UpdateObject | DeleteObject
SwitchStep = CreateSwitch | SetSwitch | RemoveSwitch
VmStep = CreateVm | StartVm | SetVm | ReconfigureVm | DeleteVm
RouteStep = SetRoute | RemoveRoute | MarkRoutes
ContainerStep = SetForwarding | ResetForwarding | WriteCni | RemoveCni
NameStep = SetNames | RemoveNames
HostStep = SwitchStep | VmStep | RouteStep | ContainerStep | NameStep
GuestStep = (
    PushFile
    | SetAccess
    | RemoveDropIns
    | SetSysctl
    | LoadGuard
    | SetGuestRoute
    | SetGuestAddress
    | RenewToken
    | GiveRenewal
    | StartUnit
    | RestartProxy
)
Step = ClusterStep | HostStep | GuestStep


@contextmanager
def failing_at(step: Step) -> Iterator[None]:
    """An error inside carries the step that failed."""
    try:
        yield
    except Exception as exc:
        exc.step = step  # type: ignore[attr-defined]
        raise


@dataclass(frozen=True)
class Plan:
    """Ordered steps; none means in sync.

    `unseen` names what could not be observed yet and when it will be.
    `warnings` are findings that no step of ours repairs.
    """

    steps: tuple[Step, ...] = ()
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def in_sync(self) -> bool:
        return not self.steps and not self.unseen
