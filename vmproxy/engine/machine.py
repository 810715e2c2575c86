"""One host during one run: its places, opened when first needed, and its wanted state, made once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Literal

from vmproxy import binaries, image, seed
from vmproxy.cluster.api import Cluster
from vmproxy.errors import NotReady, Unreachable, VmproxyError
from vmproxy.guest.connection import CloudInit, Guest
from vmproxy.hosts.hyperv.host import HypervHost
from vmproxy.hosts.linux.host import QemuHost
from vmproxy.hosts.protocols import Connection, Delivery, HostPlace
from vmproxy.image import Download
from vmproxy.model.mac import static_mac
from vmproxy.model.net import Interface, Route
from vmproxy.model.seen import ClusterSeen, GuestSeen, HostSeen, Marker, Unobservable
from vmproxy.model.steps import ClusterStep, GuestStep, HostStep, VmWanted, failing_at
from vmproxy.resources import proxy, route
from vmproxy.resources.proxy import GuestWanted, Program, Tools
from vmproxy.seed import keys
from vmproxy.site.model import Host, Site
from vmproxy.transport import ssh
from vmproxy.util import paths, wait

Report = Callable[[str], None]

CLOUD_INIT_SECONDS = 900.0
CONVERGE_SECONDS = 180.0
_GREETING_SECONDS = 5.0
_LOG_LINES = 15


class Machine:
    """Use as a context manager: what was opened is closed at its end."""

    def __init__(self, site: Site, host: Host, report: Report) -> None:
        self.site = site
        self.host = host
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
    def place(self) -> HostPlace:
        if self.host.hyperv is not None:
            return self._stack.enter_context(HypervHost(self.site, self.host, deliver=self._deliver))
        return self._stack.enter_context(QemuHost(self.site, self.host, deliver=self._deliver))

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster.connect(self.site.cluster)

    # What is wanted.

    @cached_property
    def image(self) -> image.Image:
        return image.resolve(self.site.image, report=self._report)

    @cached_property
    def download(self) -> Download | None:
        """Where the host fetches the image itself, if it can use the published file as it is."""
        return image.download_of(self.site.image) if self.host.hyperv else None

    @cached_property
    def seed(self) -> seed.Seed:
        public = keys.identity(self.site).public
        return seed.spec(self.site, self.host, user_key=public, mac=self._mac)

    def program(self, version: str) -> Program:
        binary = binaries.kube_proxy(self.site.proxy, version, report=self._report)
        return Program(binary.path, binary.sha256, version)

    def wanted_vm(self) -> VmWanted:
        size = self.site.vm_size(self.host)
        settings = {
            "cpus": size.cpus,
            "memory": size.memory,
            "mac": self._mac,
            "switch": self.host.switch.name,
            "vlan": self.host.network.vlan,
            **self.place.settings(),
        }
        return VmWanted(
            name=self.site.vm_name(self.host),
            site=self.site.name,
            host=self.host.name,
            address=self.host.network.address,
            image=self.download.sha256 if self.download else self.image.sha256,
            seed=self.seed.hash,
            settings=settings,
        )

    def wanted_routes(self, cluster: ClusterSeen) -> tuple[Route, ...]:
        return route.wanted(cluster.service_cidrs, self.address.ip)

    def wanted_guest(self, cluster: ClusterSeen, guest: GuestSeen | Unobservable) -> GuestWanted:
        seen = guest if isinstance(guest, GuestSeen) else None
        return proxy.wanted(
            self.site,
            self._host_as_it_is,
            cluster,
            program=self.program(self.site.proxy.version or cluster.version),
            tools=Tools(seen.kernel if seen else None, seen.nft if seen else None),
        )

    def warnings(self, wanted: GuestWanted, guest: GuestSeen | Unobservable) -> tuple[str, ...]:
        return proxy.warnings(wanted, guest)

    # What is seen.

    def observe_cluster(self) -> ClusterSeen:
        return self.cluster.observe(self.site, self.host)

    def note_host(self, seen: HostSeen) -> None:
        """The marker of the VM that is there says how to reach it; its MAC stays clear of the host's own."""
        self._marker = seen.vm.marker if seen.vm else None
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

    def change_host(self, steps: tuple[HostStep, ...]) -> Iterator[HostStep]:
        self.place.check(steps)
        for step in steps:
            self._report(f"{step.verb} {step.target}")
            with failing_at(step):
                self.place.do(step, self._report)
            yield step

    def change_guest(self, steps: tuple[GuestStep, ...]) -> Iterator[GuestStep]:
        return self.guest().do(steps, self._report)

    def forget_guest(self) -> None:
        """The VM was changed: look at its marker again, and connect anew."""
        self._guest = None
        self.note_host(self.place.observe())

    def wait_for_boot(self) -> None:
        """Until the guest lets us in; cloud-init may still be at work."""
        started = time.monotonic()
        what = f"SSH of VM {self.site.vm_name(self.host)} at {self.address.ip}"
        self._report(f"waiting for {what}")
        try:
            seconds = self.site.vm_size(self.host).boot_timeout
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
        self._report(f"trying {address}:{port} from {self.host.name} through the VM")
        answer = self.place.trial(Connection("tcp", address, port), self.address.ip)
        if not answer.ok:
            raise NotReady(
                f"cannot route the Service range on {self.host.name}: {address}:{port} through the VM: "
                f"{answer.detail}",
                hint="the routes were not changed; look at: vmproxy logs " + self.host.name,
            )

    def ssh_command(self) -> list[str]:
        """The ssh client's command line to the guest, with the pinned host key."""
        marker = self._made_by_us()
        known_hosts = paths.state_dir("ssh", self.site.name) / f"known_hosts-{self.host.name}"
        part = known_hosts.with_suffix(f".{os.getpid()}")
        part.write_text(f"{self.address.ip} {marker.host_key}\n")
        part.replace(known_hosts)
        options = {
            "IdentityFile": keys.identity(self.site).private,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [*self.place.ssh_command(), *words, f"root@{self.address.ip}"]

    def logs(self, which: Literal["proxy", "cloud-init", "console"], lines: int) -> str:
        self._made_by_us()
        if which == "console":
            return "\n".join(self.place.console(lines))
        return self.guest().logs(which, lines)

    def _made_by_us(self) -> Marker:
        if self._marker is None:
            raise VmproxyError(
                f"cannot look into VM {self.site.vm_name(self.host)}: there is no such VM of vmproxy's",
                hint="run: vmproxy apply",
            )
        return self._marker

    @cached_property
    def _mac(self) -> str:
        return static_mac(self.site.vm_name(self.host), pool=self._mac_pool)

    @property
    def address(self) -> Interface:
        """Where the VM is now: the site file's address only once the VM was made with it."""
        return self._marker.address if self._marker else self.host.network.address

    @property
    def _host_as_it_is(self) -> Host:
        network = self.host.network.model_copy(update={"address": self.address})
        return self.host.model_copy(update={"network": network})

    def _deliver(self) -> Delivery:
        host_key = seed.new_host_key()
        content = seed.build(self.seed, host_key=host_key)
        return Delivery(self._image_file, content, host_key.public, self.download)

    def _image_file(self) -> Path:
        """The image in the host's format, made when the host turns out to lack it."""
        if self.download is not None:
            return image.packed(self.download, report=self._report)
        if self.place.image_format() == "raw":
            return self.image.raw
        return image.vhdx(self.image, compressed=True, report=self._report)

    def _log_in(self, open_socket: Callable[[], socket.socket]) -> Guest:
        identity = keys.identity(self.site)
        connection = ssh.connect(
            open_socket,
            host_key=self._made_by_us().host_key,
            identity=identity.private,
            key=identity.openssh(),
            what=f"VM {self.site.vm_name(self.host)}",
        )
        return Guest(
            self._stack.enter_context(connection),
            name=self.site.vm_name(self.host),
            mint=lambda: self.cluster.mint(self.site, self.host),
        )

    def _open_ssh(self) -> socket.socket:
        return self.place.open_guest(self.address.ip, 22)

    def banner(self) -> socket.socket | str:
        """A connection whose other end has greeted, still to be read; or why there is none yet.

        Raises Unreachable when the VM has ended.
        """
        if died := self.place.died():
            raise Unreachable(f"cannot start VM {self.site.vm_name(self.host)}: {died}")
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
            lines = self.place.symptoms()
            lines += [f"console: {line}" for line in self.place.console(_LOG_LINES)]
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
                f"cannot use VM {self.site.vm_name(self.host)}: cloud-init ended with errors",
                details=seen.errors,
                hint="look at: vmproxy logs " + self.host.name,
            )
