"""One host during one run: its places, opened when first needed, and its wanted state, made once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from vmproxy import binaries, image, seed
from vmproxy.cluster.api import Cluster
from vmproxy.engine.marking import Marking
from vmproxy.errors import NotReady, Unreachable, VmproxyError
from vmproxy.guest.connection import CloudInit, Guest
from vmproxy.hosts.kinds import kind_of
from vmproxy.hosts.protocols import CarrierDriver, ClientDriver, Connection, Delivery, Drivers
from vmproxy.image import Download
from vmproxy.model.mac import static_mac
from vmproxy.model.net import Interface, Route
from vmproxy.model.seen import CarrierSeen, ClusterSeen, GuestSeen, Marker, Unobservable
from vmproxy.model.steps import ClusterStep, GuestStep, RouteStep, VmStep, VmWanted, failing_at
from vmproxy.model.topology import Member, Topology, Vm
from vmproxy.resources import proxy, route
from vmproxy.resources.proxy import GuestWanted, Program, Tools
from vmproxy.seed import keys
from vmproxy.transport import ssh
from vmproxy.util import paths, wait

Report = Callable[[str], None]

CLOUD_INIT_SECONDS = 900.0
CONVERGE_SECONDS = 180.0
_GREETING_SECONDS = 5.0
_LOG_LINES = 15


class Machine:
    """Use as a context manager: what was opened is closed at its end."""

    def __init__(self, topology: Topology, member: Member, report: Report) -> None:
        self.topology = topology
        self.member = member
        self.kind = kind_of(member.carrier)
        self._report = report
        self._stack = ExitStack()
        self._guest: Guest | None = None
        self._marker: Marker | None = None
        self._mac_pool: tuple[str, str] | None = None

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @cached_property
    def drivers(self) -> Drivers:
        return self._stack.enter_context(self.kind.open(self.member.vm, self.member.client))

    @property
    def carrier(self) -> CarrierDriver:
        return self.drivers.carrier

    @property
    def client(self) -> ClientDriver:
        return self.drivers.client

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster.connect(self.topology.cluster)

    # What is wanted.

    @cached_property
    def image(self) -> image.Image:
        return image.resolve(self.topology.image, report=self._report)

    @cached_property
    def download(self) -> Download | None:
        """Where the host fetches the image itself, if it can use the published file as it is."""
        return image.download_of(self.topology.image) if self.kind.fetches else None

    @cached_property
    def seed(self) -> seed.Seed:
        public = keys.identity(self.topology.name, self.topology.ssh).public
        return seed.spec(self.member.vm, self.topology.cloud_init, user_key=public, mac=self._mac)

    def program(self, version: str) -> Program:
        binary = binaries.kube_proxy(self.topology.proxy, version, report=self._report)
        return Program(binary.path, binary.sha256, version)

    def wanted_vm(self) -> VmWanted:
        vm = self.member.vm
        settings = {
            "cpus": vm.size.cpus,
            "memory": vm.size.memory,
            "mac": self._mac,
            "switch": vm.carrier.switch,
            "vlan": vm.network.vlan,
            **self.kind.settings(vm.name),
        }
        return VmWanted(
            name=vm.name,
            site=vm.site,
            host=vm.host,
            address=vm.address,
            image=self.download.sha256 if self.download else self.image.sha256,
            seed=self.seed.hash,
            settings=settings,
        )

    def wanted_routes(self, cluster: ClusterSeen) -> tuple[Route, ...]:
        return route.wanted(cluster.service_cidrs, self.address.ip)

    def wanted_guest(self, cluster: ClusterSeen, guest: GuestSeen | Unobservable) -> GuestWanted:
        seen = guest if isinstance(guest, GuestSeen) else None
        return proxy.wanted(
            self._vm_as_it_is,
            self.topology.proxy,
            cluster,
            program=self.program(self.topology.proxy.version or cluster.version),
            tools=Tools(seen.kernel if seen else None, seen.nft if seen else None),
        )

    def warnings(self, wanted: GuestWanted, guest: GuestSeen | Unobservable) -> tuple[str, ...]:
        return proxy.warnings(wanted, guest)

    # What is seen.

    def observe_cluster(self) -> ClusterSeen:
        return self.cluster.observe((self.member.vm.account,))

    def note_carrier(self, seen: CarrierSeen) -> None:
        """The marker of the VM that is there says how to reach it; its MAC stays clear of the host's own."""
        self._marker = seen.marker
        self._mac_pool = seen.mac_pool

    def observe_guest(self, cluster: ClusterSeen | Unobservable) -> GuestSeen:
        """Without the cluster only what does not depend on it. Raises Unreachable for no answer."""
        guest = self.guest()
        if isinstance(cluster, Unobservable):
            return guest.observe(proxy.BARE_QUERY)
        return guest.observe(proxy.query(self.wanted_guest(cluster, Unobservable("not looked at yet"))))

    def guest(self) -> Guest:
        """The one SSH connection of this run. Raises Unreachable when nothing answers."""
        if self._guest is None:
            self._guest = self._log_in(self._open_ssh)
        return self._guest

    # What is done.

    def change_cluster(self, steps: tuple[ClusterStep, ...]) -> Iterator[ClusterStep]:
        """Each step that was done, as it is done; so do the other two."""
        for step in steps:
            self._report(f"{step.verb} {step.target}")
            with failing_at(step):
                done = self.cluster.do(step)
            if done:
                yield step

    def change_vm(self, steps: tuple[VmStep, ...]) -> Iterator[VmStep]:
        self.carrier.check(steps)
        for step in steps:
            self._report(f"{step.verb} {step.target}")
            with failing_at(step):
                self.carrier.do(step, self._deliver, self._marked(), self._report)
            yield step

    def change_routes(self, steps: tuple[RouteStep, ...]) -> Iterator[RouteStep]:
        marking = Marking(self.carrier, self.client, self._marker)
        for step in steps:
            self._report(f"{step.verb} {step.target}")
            with failing_at(step):
                marking.do(step)
            self._marker = marking.marker
            yield step

    def change_guest(self, steps: tuple[GuestStep, ...]) -> Iterator[GuestStep]:
        return self.guest().do(steps, self._report)

    def forget_guest(self) -> None:
        """The VM was changed: look at its marker again, and connect anew."""
        self._guest = None
        self.note_carrier(self.carrier.observe())

    def wait_for_boot(self) -> None:
        """Until the guest lets us in; cloud-init may still be at work."""
        started = time.monotonic()
        what = f"SSH of VM {self.member.vm.name} at {self.address.ip}"
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
        """One ClusterIP by way of the VM, from the host itself, before the whole range goes there."""
        address, port = cluster.canary
        self._report(f"trying {address}:{port} from {self.member.name} through the VM")
        marking = Marking(self.carrier, self.client, self._marker)
        answer = marking.trial(Connection("tcp", address, port), self.address.ip)
        if not answer.ok:
            raise NotReady(
                f"cannot route the Service range on {self.member.name}: {address}:{port} through the VM: "
                f"{answer.detail}",
                hint="the routes were not changed; look at: vmproxy logs " + self.member.name,
            )

    def ssh_command(self) -> list[str]:
        """The ssh client's command line to the guest, with the pinned host key."""
        marker = self._made_by_us()
        known_hosts = paths.state_dir("ssh", self.topology.name) / f"known_hosts-{self.member.name}"
        part = known_hosts.with_suffix(f".{os.getpid()}")
        part.write_text(f"{self.address.ip} {marker.host_key}\n")
        part.replace(known_hosts)
        options = {
            "IdentityFile": keys.identity(self.topology.name, self.topology.ssh).private,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [*self.carrier.ssh_command(), *words, f"root@{self.address.ip}"]

    def logs(self, which: Literal["proxy", "cloud-init", "console"], lines: int) -> str:
        self._made_by_us()
        if which == "console":
            return "\n".join(self.carrier.console(lines))
        return self.guest().logs(which, lines)

    def _made_by_us(self) -> Marker:
        if self._marker is None:
            raise VmproxyError(
                f"cannot look into VM {self.member.vm.name}: there is no such VM of vmproxy's",
                hint="run: vmproxy apply",
            )
        return self._marker

    @cached_property
    def _mac(self) -> str:
        return static_mac(self.member.vm.name, pool=self._mac_pool)

    @property
    def address(self) -> Interface:
        """Where the VM is now: the site file's address only once the VM was made with it."""
        return self._marker.address if self._marker else self.member.vm.address

    @property
    def _vm_as_it_is(self) -> Vm:
        vm = self.member.vm
        return replace(vm, network=vm.network.model_copy(update={"address": self.address}))

    def _mint(self) -> str:
        return self.cluster.mint(self.member.vm.account, seconds=self.topology.proxy.token_ttl)

    def _marked(self) -> tuple[Route, ...]:
        return self._marker.routes if self._marker else ()

    def _deliver(self) -> Delivery:
        host_key = seed.new_host_key()
        content = seed.build(self.seed, host_key=host_key)
        return Delivery(self._image_file, content, host_key.public, self.download)

    def _image_file(self) -> Path:
        """The image in the host's format, made when the host turns out to lack it."""
        if self.download is not None:
            return image.packed(self.download, report=self._report)
        if self.kind.image_format == "raw":
            return self.image.raw
        return image.vhdx(self.image, compressed=True, report=self._report)

    def _log_in(self, open_socket: Callable[[], socket.socket]) -> Guest:
        identity = keys.identity(self.topology.name, self.topology.ssh)
        connection = ssh.connect(
            open_socket,
            host_key=self._made_by_us().host_key,
            identity=identity.private,
            key=identity.openssh(),
            what=f"VM {self.member.vm.name}",
        )
        return Guest(
            self._stack.enter_context(connection),
            name=self.member.vm.name,
            mint=self._mint,
        )

    def _open_ssh(self) -> socket.socket:
        return self.carrier.open_guest(self.address.ip, 22)

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
