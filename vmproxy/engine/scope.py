"""One member of a site during one run: what it is connected to, what is seen of it, what is wanted."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, assert_never

from vmproxy import seed
from vmproxy.engine.links import GuestLink, Login
from vmproxy.engine.marking import Marking
from vmproxy.engine.site import Once, SiteRun
from vmproxy.errors import Conflict, Forbidden, NotReady, Unreachable, UsageError, VmproxyError
from vmproxy.hosts.kinds import kind_of
from vmproxy.hosts.protocols import (
    Answer,
    CarrierDriver,
    ClientDriver,
    Connection,
    ContainersDriver,
    Drivers,
)
from vmproxy.image import Base
from vmproxy.model import names
from vmproxy.model.mac import static_mac
from vmproxy.model.names import PROGRAM
from vmproxy.model.net import Interface, Route, addresses
from vmproxy.model.seen import (
    CarrierSeen,
    ClientSeen,
    CloudInit,
    ClusterSeen,
    ContainersSeen,
    DnsSeen,
    GuestSeen,
    Marker,
    NameRule,
    Unobservable,
)
from vmproxy.model.steps import (
    ClusterStep,
    CreateVm,
    GuestStep,
    HostStep,
    NameStep,
    PushFile,
    RemoveNames,
    RemoveRoute,
    RouteStep,
    SetNames,
    SetRoute,
    Step,
    SwitchStep,
    VmStep,
    VmWanted,
    failing_at,
    made_of,
)
from vmproxy.model.topology import Member, Vm
from vmproxy.resources import clientnames, cni, guestroutes, identity, kubeproxy, route
from vmproxy.resources import guest as inside
from vmproxy.resources.guest import GuestWanted
from vmproxy.resources.kubeproxy import Program, Tools
from vmproxy.util import events, paths, wait
from vmproxy.util.events import Reporter

_API = "default/kubernetes"
CLOUD_INIT_SECONDS = 900.0
CONVERGE_SECONDS = 180.0
_GREETING_SECONDS = 5.0
_LOG_LINES = 15
_HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?")
"""One line in OpenSSH's form."""


@dataclass(frozen=True)
class World:
    """One look at everything that belongs to a member. `containers` None: the site file has none. `booted`:
    its guest was waited for in this run. `interrupted`: a step before this one stops or moves the VM while it
    is in use."""

    cluster: ClusterSeen
    carrier: CarrierSeen
    client: ClientSeen
    guest: GuestSeen | Unobservable
    containers: ContainersSeen | None = None
    booted: bool = False
    interrupted: bool = False

    @property
    def marked(self) -> tuple[Route, ...]:
        """The routes that the VM's marker names."""
        return self.carrier.marker.routes if self.carrier.marker else ()

    def with_routes(self, steps: Iterable[Step]) -> World:
        """When the steps about routes among these are done."""
        routed = [step for step in steps if isinstance(step, RouteStep)]
        there, carrier = list(self.client.routes), self.carrier
        for step in routed:
            if isinstance(step, RemoveRoute | SetRoute):
                gone = (step.route,) if isinstance(step, RemoveRoute) else step.before
                there = [item for item in there if item not in gone]
            if isinstance(step, SetRoute):
                there.append(step.route)
            if carrier.marker is not None:
                carrier = _with_marker(carrier, replace(carrier.marker, routes=step.routes))
        return replace(self, carrier=carrier, client=replace(self.client, routes=tuple(there)))


class Scope:
    """Use as a context manager: what was opened is closed at its end. `new_image`: a VM is made of the image
    that is here now, also when nothing else asks for a new VM."""

    def __init__(self, site: SiteRun, member: Member, report: Reporter, *, new_image: bool = False) -> None:
        self._new_image = new_image
        self.site = site
        self.member = member
        self.kind = kind_of(member.carrier)
        self._report = report
        self._stack = ExitStack()
        self._drivers = Once(self._open_host)
        self._guest: GuestLink | None = None
        self._carrier_seen: CarrierSeen | None = None
        self._seeds: dict[str, seed.Seed] = {}
        self.warned: list[str] = []
        """What steps that were done left behind, and why."""

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open_host(self) -> Drivers:
        return self._stack.enter_context(self.site.links.open_host(self.member))

    @property
    def carrier(self) -> CarrierDriver:
        """Its host is opened once: raises the same error each time."""
        return self._drivers().carrier

    @property
    def client(self) -> ClientDriver:
        """As `carrier`."""
        return self._drivers().client

    @property
    def containers(self) -> ContainersDriver:
        """As `carrier`. Raises UsageError for a kind of host that has none."""
        driver = self._drivers().containers
        if driver is None:
            raise UsageError(
                f"cannot look into containers of {self.member.name}: only Windows hosts have them",
                hint="choose a Windows host with --host",
            )
        return driver

    # What is seen.

    def look(self) -> World:
        """At the cluster, and at the host and its guest at the same time."""
        with ThreadPoolExecutor(1) as pool:
            cluster = pool.submit(self.cluster_seen)
            carrier, client = self.look_at_carrier(), self.client.observe()
            containers = self.look_at_containers()
            guest = self._look_inside(carrier, cluster.result)
            return World(cluster.result(), carrier, client, guest, containers)

    def cluster_seen(self) -> ClusterSeen:
        """What the run's members share as the first look found it, and this one's identity as it is now."""
        shared = self.site.cluster_seen()
        return replace(shared, identity=self.site.cluster.identity(self.member.vm.account))

    def look_at_carrier(self) -> CarrierSeen:
        self._carrier_seen = self.carrier.observe()
        return self._carrier_seen

    def look_at_containers(self) -> ContainersSeen | None:
        """None: the site file has none."""
        vm = self.member.vm
        if vm.containers is None:
            return None
        return self.containers.observe(vm.containers, vm.address.network, cni.file(vm))

    def look_at_guest(self, cluster: ClusterSeen | Unobservable) -> GuestSeen:
        """Without the cluster only what does not depend on it. Raises Unreachable for no answer."""
        if isinstance(cluster, Unobservable):
            return self.guest().observe(inside.BARE_QUERY)
        return self.guest().observe(inside.query(cluster))

    def guest(self) -> GuestLink:
        """The one SSH connection of this run. Raises Unreachable when nothing answers."""
        if self._guest is None:
            self._guest = self._log_in(self._open_ssh)
        return self._guest

    def _look_inside(
        self, carrier: CarrierSeen, cluster: Callable[[], ClusterSeen]
    ) -> GuestSeen | Unobservable:
        if why := without_guest(carrier):
            return Unobservable(why)
        try:
            return self.look_at_guest(cluster())
        except (Forbidden, Unreachable) as exc:
            return Unobservable(exc.message)

    # What is wanted, from what was seen.

    def wanted_vm(self, seen: CarrierSeen) -> VmWanted:
        """Made of the image that it was made of, while that has the same recipe. Raises VmproxyError when a
        new VM is needed and cannot be made of the site's image."""
        fresh = self.site.links.artifacts.base(self.kind)
        wanted = self._made_from(fresh, seen)
        kept = replace(wanted, image=seen.marker.image) if seen.marker and seen.vm else None
        if kept is None or seen.vm is None or self._new_image or not _same_recipe(fresh, seen.marker):
            return self._possible(wanted, fresh)
        return self._possible(wanted, fresh) if made_of(kept, seen.vm) else kept

    @staticmethod
    def _possible(wanted: VmWanted, fresh: Base) -> VmWanted:
        if fresh.problem is not None:
            raise fresh.problem
        return wanted

    def _made_from(self, base: Base, seen: CarrierSeen) -> VmWanted:
        vm = self.member.vm
        settings = {
            "cpus": vm.size.cpus,
            "memory": vm.size.memory,
            "mac": self._mac(seen),
            "switch": vm.carrier.switch,
            "vlan": vm.network.vlan,
            **self.kind.settings(vm.name),
        }
        return VmWanted(
            name=vm.name,
            site=vm.site,
            host=vm.host,
            address=vm.address,
            image=base.name,
            seed=self.wanted_seed(seen).hash,
            settings=settings,
            hot=self.kind.hot,
            fixed=self.kind.fixed,
            recipe=base.recipe,
            made=base.made,
        )

    def wanted_seed(self, seen: CarrierSeen | None) -> seed.Seed:
        """One for each MAC address in a run, which plans several times: of the user's cloud-config as it
        was at first."""
        mac = self._mac(seen)
        if mac not in self._seeds:
            key, cloud_init = self.site.links.artifacts.user_key(), self.site.topology.cloud_init
            self._seeds[mac] = seed.spec(self.member.vm, cloud_init, user_key=key, mac=mac)
        return self._seeds[mac]

    def wanted_guest(self, world: World) -> GuestWanted:
        cluster, spec = world.cluster, self.wanted_seed(world.carrier)
        seen = world.guest if isinstance(world.guest, GuestSeen) else None
        settings = self.site.topology.proxy
        return inside.wanted(
            self._vm_as_made(world, spec),
            settings,
            cluster,
            world.client.addresses,
            program=self._program(kubeproxy.version(settings, cluster, seen), seen),
            tools=Tools(seen.kernel if seen else None, seen.nft if seen else None),
            seeded=seed.written(spec),
        )

    def _program(self, version: str, seen: GuestSeen | None) -> Program:
        """Where its hash is not known here, the guest's own is right while it says it is that version."""
        program = self.site.links.artifacts.program(version)
        there = seen.files.get(PROGRAM) if seen else None
        if program.sha256 is None and seen and there and seen.proxy.version in (None, version):
            return replace(program, sha256=there.sha256)
        return program

    def missing(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """What the steps need and is not here, and how it is got."""
        found = []
        base = self.site.links.artifacts.base(self.kind)
        if base.sha256 is None and any(isinstance(step, CreateVm) for step in steps):
            found.append(f"image: {base.how} when it is applied")
        for version in self._programs_in(steps):
            program = self.site.links.artifacts.program(version)
            if not program.here:
                found.append(f"kube-proxy {version}: fetched from {program.origin} when it is applied")
        return tuple(found)

    def obtain(self, steps: Sequence[Step]) -> bool:
        """Have here what the steps need; whether anything was missing, so that it is known better now."""
        missing, artifacts = self.missing(steps), self.site.links.artifacts
        if missing and any(isinstance(step, CreateVm) for step in steps):
            artifacts.get_image(self.kind, self._report)
        for version in self._programs_in(steps) if missing else ():
            artifacts.get_program(version, self._report)
        return bool(missing)

    def _programs_in(self, steps: Sequence[Step]) -> list[str]:
        """A new VM needs one too, before its guest can be looked at."""
        pushed = [step.file for step in steps if isinstance(step, PushFile)]
        found = [file.version for file in pushed if file.source is not None and file.version is not None]
        if not found and any(isinstance(step, CreateVm) for step in steps):
            found.append(self.site.topology.proxy.version or self.site.cluster_seen().version)
        return found

    def wanted_routes(
        self, cluster: ClusterSeen, client: ClientSeen, marker: Marker | None
    ) -> tuple[Route, ...]:
        """The client's: Service ranges by way of the VM, and what it is the VM's way to."""
        services = route.wanted(cluster.service_cidrs, self.address(marker).ip)
        return (*services, *guestroutes.on_host(self.member.vm, cluster, client.addresses))

    def routes_away(self, world: World, *, cold: bool) -> tuple[RouteStep, ...]:
        """For a VM that is about to stop or move."""
        wanted = self.wanted_routes(world.cluster, world.client, world.carrier.marker)
        why = "the VM behind it is about to stop or move; set again afterwards"
        return route.remove_plan(wanted, world.marked, world.client, why=why, cold=cold)

    def wanted_names(self, cluster: ClusterSeen) -> tuple[NameRule, ...]:
        """None where the site file does not ask for them. Raises VmproxyError when the cluster's DNS was not
        found."""
        if isinstance(cluster.dns, Unobservable):
            raise VmproxyError(
                f"cannot give {self.member.client.name} the cluster's names: {cluster.dns.because}"
            )
        if cluster.dns is None:
            return ()
        return clientnames.wanted(cluster.dns, cluster.service_cidrs, comment=self.comment)

    @property
    def comment(self) -> str:
        """By which rules of ours are known in the client's resolver."""
        return names.mark(self.member.vm.site, self.member.vm.host)

    def address(self, marker: Marker | None) -> Interface:
        """Where the VM is now: the site file's address only once the VM was made with it."""
        return marker.address if marker else self.member.vm.address

    def _vm_as_made(self, world: World, spec: seed.Seed) -> Vm:
        """With the network that it has until it is made anew: where its seed is not `spec`, the wanted one,
        the gateway and the name servers that it uses now."""
        vm, marker = self.member.vm, world.carrier.marker
        network: dict[str, object] = {"address": self.address(marker)}
        if marker and isinstance(world.guest, GuestSeen) and marker.seed != spec.hash:
            network["gateway"] = guestroutes.gateway(world.guest) or vm.gateway
            network["dns"] = tuple(addresses(world.guest.dns))
        return replace(vm, network=vm.network.model_copy(update=network))

    def _mac(self, seen: CarrierSeen | None) -> str:
        """Clear of the addresses that the host gives away itself."""
        return static_mac(self.member.vm.name, pool=seen.mac_pool if seen else None)

    # What is done. Each yields a step when it is done.

    def change_cluster(self, steps: Sequence[ClusterStep]) -> Iterator[ClusterStep]:
        for step in steps:
            self._report.send(events.Step(step.place, step.verb, step.target))
            with failing_at(step):
                done = self.site.cluster.do(step, self._warn)
            if done:
                yield step

    def _warn(self, text: str) -> None:
        self._report(text)
        self.warned.append(text)

    def change_host(self, steps: Sequence[HostStep]) -> Iterator[HostStep]:
        """The switch, the VM, and what leads to it; the marker stays true at every moment."""
        seen = self._seen()
        marking = Marking(self._drivers(), seen.marker)
        self.carrier.check([step for step in steps if isinstance(step, VmStep)])
        for step in steps:
            self._report.send(events.Step(step.place, step.verb, step.target))
            with failing_at(step):
                if isinstance(step, VmStep):
                    self._change_vm(step, seen, marking.marker)
                elif isinstance(step, SwitchStep):
                    self.carrier.change_switch(step)
                elif isinstance(step, NameStep):
                    self._change_names(step)
                else:
                    marking.do(step)
            self._carrier_seen = _with_marker(seen, marking.marker)
            yield step

    def change_guest(self, steps: Sequence[GuestStep]) -> Iterator[GuestStep]:
        return self.guest().do(steps, self._report)

    def _change_names(self, step: NameStep) -> None:
        match step:
            case SetNames():
                self.client.set_names(step.rule, step.before)
            case RemoveNames():
                self.client.remove_names(step.rule)
            case _:
                assert_never(step)

    def _change_vm(self, step: VmStep, seen: CarrierSeen, marker: Marker | None) -> None:
        artifacts, spec = self.site.links.artifacts, self.wanted_seed(seen)
        self.carrier.do(
            step,
            lambda: artifacts.deliver(spec, self.kind, self._report),
            marker,
            self._report,
        )

    def look_at_host(self, world: World) -> World:
        """The host as it is now; the rest as it was."""
        carrier, client = self.look_at_carrier(), self.client.observe()
        return replace(world, carrier=carrier, client=client, containers=self.look_at_containers())

    def forget_guest(self) -> CarrierSeen:
        """The VM or its switch was changed: read its marker again, and open a new connection."""
        self._guest = None
        return self.look_at_carrier()

    # What is waited for.

    def wait_for_boot(self) -> None:
        """Until the guest lets us in; cloud-init may still be at work."""
        started = time.monotonic()
        what = f"SSH of VM {self.member.vm.name} at {self._address_now.ip}"
        self._report(f"waiting for {what}")
        try:
            seconds = self.member.vm.size.boot_timeout
            greeted = wait.until(what, self.banner, timeout=seconds, every=0.25)
            self._guest = self._log_in(lambda: greeted)
        except VmproxyError as exc:
            raise self._boot_failed(exc) from exc
        self._report(f"SSH answered after {time.monotonic() - started:.0f} s")

    def wait_converged(self, cluster: ClusterSeen) -> None:
        self._report("waiting for kube-proxy to converge")
        self.guest().wait_converged(cluster.canary, CONVERGE_SECONDS, self._report)

    def try_route(self, cluster: ClusterSeen) -> None:
        """One ClusterIP by way of the VM, from the client itself, before the whole range goes there."""
        address, port = cluster.canary
        name = self.member.client.name
        self._report(f"trying {address}:{port} from {name} through the VM")
        marking = Marking(self._drivers(), self._seen().marker)
        answer = marking.trial(Connection("tcp", address, port), self._address_now.ip)
        if not answer.ok:
            raise NotReady(
                f"cannot route the Service range on {name}: {address}:{port} through the VM: {answer.detail}",
                hint="the routes were not changed; look at: vmproxy logs " + self.member.name,
            )

    def ask_through(self, cluster: ClusterSeen) -> Answer:
        """A real request from the client to the canary, on the way that its traffic takes now."""
        address, port = cluster.canary
        return self.client.probe([Connection("tcp", address, port)])[0]

    def try_names(self, dns: DnsSeen) -> None:
        """Whether the cluster's DNS answers the client, before names are asked of it."""
        name = self.member.client.name
        self._report(f"asking {dns.server} from {name}")
        ask = clientnames.question(dns.name(_API))
        answer = self.client.probe([Connection("udp", dns.server, clientnames.PORT, ask)])[0]
        if not answer.ok:
            raise NotReady(
                f"cannot give {name} the cluster's names: its DNS at {dns.server} does not answer: "
                f"{answer.detail}",
                hint="do the pods behind that Service run? run: vmproxy verify --host " + self.member.name,
            )

    def check_answer(self, cluster: ClusterSeen) -> None:
        """Raises NotReady when nothing answers though all is as it should be."""
        answer = self.ask_through(cluster)
        if not answer.ok:
            address, port = cluster.canary
            raise NotReady(
                f"cannot reach Services from {self.member.client.name}: all is in sync, but "
                f"{address}:{port} does not answer through the VM: {answer.detail}",
                hint=f"run: vmproxy verify --host {self.member.name}",
            )

    def wait_for_cloud_init(self) -> None:
        """Raises NotReady with cloud-init's own words when it ends with an error."""

        def probe() -> CloudInit | str:
            seen = self.guest().cloud_init()
            return seen if seen.ended else "it still runs"

        self._report("waiting for cloud-init to end")
        seen = wait.until("cloud-init", probe, timeout=CLOUD_INIT_SECONDS, every=1.0)
        if seen.errors:
            raise NotReady(
                f"cannot use VM {self.member.vm.name}: cloud-init ended with errors",
                details=seen.errors,
                hint="look at: vmproxy logs " + self.member.name,
            )

    def ssh_command(self) -> list[str]:
        """The ssh client's command line to the guest, with the pinned host key."""
        marker, state = self._made_by_us(), paths.state_dir("ssh", self.site.topology.name)
        known_hosts = state / f"known_hosts-{self.member.name}"
        part = known_hosts.with_suffix(f".{os.getpid()}")
        part.write_text(f"{marker.address.ip} {marker.host_key}\n")
        part.replace(known_hosts)
        options = {
            "IdentityFile": self.site.links.artifacts.user_key_file(),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "ForwardAgent": "no",
            "ControlMaster": "no",
            "ControlPath": "none",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={_quoted(value)}")]
        return [*self.carrier.ssh_command(marker.address.ip), *words, f"root@{marker.address.ip}"]

    def logs(self, which: Literal["proxy", "cloud-init", "console"], lines: int) -> str:
        self._made_by_us()
        if which == "console":
            return "\n".join(self.carrier.console(lines))
        return self.guest().logs(which, lines)

    def _seen(self) -> CarrierSeen:
        return self._carrier_seen or self.look_at_carrier()

    @property
    def _address_now(self) -> Interface:
        return self.address(self._seen().marker)

    def _made_by_us(self) -> Marker:
        marker = self._seen().marker
        if marker is None:
            raise VmproxyError(
                f"cannot look into VM {self.member.vm.name}: there is no such VM of vmproxy's",
                hint="run: vmproxy apply",
            )
        self._refuse_damaged(marker)
        self._refuse_anothers(marker)
        return marker

    def _refuse_damaged(self, marker: Marker) -> None:
        if not _HOST_KEY.fullmatch(marker.host_key):
            raise Conflict(
                f"cannot use VM {self.member.vm.name}: its marker is damaged: it has no SSH host key",
                hint="remove that VM on the host, then run apply",
            )

    def _refuse_anothers(self, marker: Marker) -> None:
        """Whoever may write the marker on one host must not lead us to another host's VM."""
        own = self.member.carrier.own
        if own is not None and own.nat:
            return  # it is reached by its own host only
        for other in self.site.topology.members:
            behind = other.carrier.own is not None and other.carrier.own.nat
            if behind or other.name == self.member.name:
                continue
            if other.vm.address.ip == marker.address.ip:
                raise Conflict(
                    f"cannot use VM {self.member.vm.name}: its marker names the address {marker.address.ip}, "
                    f"which is that of host {other.name}",
                    hint="if the site file gave that address away: run destroy for this host first, or "
                    "remove its VM there, then run apply",
                )

    def _mint(self) -> str:
        seconds = self.site.topology.proxy.token_ttl
        return self.site.cluster.mint(self.member.vm.account, seconds=seconds)

    def _renewal(self) -> str:
        return self.site.cluster.renewal(identity.secret(self.member.vm))

    def _log_in(self, open_socket: Callable[[], socket.socket]) -> GuestLink:
        key = self._made_by_us().host_key
        login = Login(self.member.vm.name, open_socket, key, self._mint, self._renewal)
        return self._stack.enter_context(self.site.links.log_in(login))

    def _open_ssh(self) -> socket.socket:
        return self.carrier.open_guest(self._address_now.ip, 22)

    def banner(self) -> socket.socket | str:
        """A connection whose other end has greeted, still to be read; or why there is none yet.

        Raises Unreachable when the VM has ended.
        """
        if died := self.carrier.died():
            raise Unreachable(f"cannot start VM {self.member.vm.name}: {died}")
        try:
            channel = self._open_ssh()
        except OSError as exc:
            return f"{exc.strerror or exc}"
        try:
            channel.settimeout(_GREETING_SECONDS)
            if channel.recv(4, socket.MSG_PEEK) == b"SSH-":
                return channel
            why = "something else than SSH answers"
        except OSError as exc:
            why = f"{exc.strerror or exc}"
        channel.close()
        return why

    def _boot_failed(self, cause: VmproxyError) -> VmproxyError:
        try:
            lines = self.carrier.symptoms()
            lines += [f"console: {line}" for line in self.carrier.console(_LOG_LINES)]
        except VmproxyError as exc:
            lines = [exc.message]
        return NotReady(
            cause.message,
            hint=cause.hint or "does the image take a NoCloud seed (cloud-init), and is the address free?",
            details=[*cause.details, *lines],
        )


def without_guest(seen: CarrierSeen) -> str | None:
    """Why there is no guest of ours to ask; None: there is one."""
    if seen.vm is None:
        return "there is no VM yet"
    if not seen.vm.running:
        return "the VM is stopped"
    return None if seen.vm.marker else "the VM was not made by vmproxy"


def _quoted(value: object) -> str:
    """As ssh reads the value of an option: a path may have a space in it."""
    text = str(value).replace("%", "%%") if isinstance(value, Path) else str(value)
    return f'"{text}"' if " " in text else text


def _same_recipe(fresh: Base, marker: Marker | None) -> bool:
    """A marker without a recipe is older than recipes are."""
    if marker is None:
        return False
    if marker.recipe == fresh.recipe:
        return True
    return not marker.recipe and fresh.sha256 in (None, marker.image)


def _with_marker(seen: CarrierSeen, marker: Marker | None) -> CarrierSeen:
    return replace(seen, vm=replace(seen.vm, marker=marker)) if seen.vm else seen
