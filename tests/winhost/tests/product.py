"""The product's Hyper-V place against an emulated host, driven as reconcile drives it, without a cluster."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path

from tests import names
from tests.opened import HostSeen, Opened, opened, route_plan, route_removal
from tests.values import route as route_to
from tests.winhost import state
from tests.winhost.host import Machine, Version, WinHost
from tests.winhost.state import Language
from tests.winhost.tests.conftest import SOON
from tests.winhost.tests.guests import efi_disk
from tests.winhost.warm import Pool
from vmproxy.hosts.hyperv.kind import HYPERV
from vmproxy.hosts.protocols import Delivery
from vmproxy.image import Download
from vmproxy.model.steps import RouteStep, VmStep, VmWanted
from vmproxy.model.topology import compile_site
from vmproxy.resources import vm
from vmproxy.site.model import Hyperv, Site
from vmproxy.transport.powershell import PowerShell
from vmproxy.transport.winrm import Login, WinRM
from vmproxy.util import netns

MIB = 1 << 20
NAME = "vmproxy-plant-a-win-01"
DIRECTORY = r"C:\ProgramData\vmproxy"
IMAGE, SEED = "a" * 64, "b" * 64
ADDRESS, VIA = "192.168.77.2", "192.168.77.5"
ROUTES = (route_to("10.96.0.0/16", VIA),)


@contextmanager
def network() -> Iterator[tuple[str, str]]:
    """The host's namespace and the switch's, with a bridge between them; somebody has the VM's address."""
    host, switch = (names.namespace(f"p-{role}") for role in ("host", "switch"))
    with ExitStack() as stack:
        for name in (host, switch):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip("-n", host, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "br0", "up", "type", "bridge")
        _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "host0", "netns", switch)
        _ip("-n", switch, "link", "set", "host0", "master", "br0", "up")
        _ip("-n", host, "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        _ip("-n", host, "link", "set", "eth0", "up")
        _ip("-n", host, "route", "add", "default", "via", "192.168.77.1")
        _ip("-n", switch, "address", "add", f"{VIA}/24", "dev", "br0")
        yield host, switch


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@dataclass
class Windows:
    """One emulated host, and what is wanted on it."""

    winhost: WinHost
    file: Path
    said: list[str] = field(default_factory=list)
    download: Download | None = None
    switch: str = "External"
    directory: str = DIRECTORY
    own: dict[str, object] | None = None
    """The VM has a switch of its own, as the site file says it."""

    @property
    def state(self) -> state.Host:
        return self.winhost.state

    @property
    def site(self) -> Site:
        host = {
            "name": "win-01",
            "hyperv": {"endpoint": self.winhost.endpoint, "auth": "kerberos", "directory": self.directory},
            "switch": self.own or {"name": self.switch},
            "network": {} if self.own else {"address": f"{VIA}/24", "gateway": "192.168.77.1"},
        }
        return Site.model_validate({"name": "plant-a", "hosts": [host]})

    @contextmanager
    def place(self) -> Iterator[Opened]:
        member = compile_site(self.site).members[0]
        with opened(member, self.connect, self.deliver) as place:
            yield place

    @contextmanager
    def connect(
        self, _about: Hyperv | None = None, _name: str = NAME, *, idle: float = 60.0
    ) -> Iterator[PowerShell]:
        login = Login("ntlm", "Administrator", self.winhost.password)
        with (
            WinRM(self.winhost.endpoint, login, ca=str(self.winhost.ca), limits=SOON) as winrm,
            winrm.powershell(idle=idle) as shell,
        ):
            yield shell

    def deliver(self) -> Delivery:
        return Delivery(lambda: self.file, b"seed" * 512, "ssh-ed25519 AAAA", self.download)

    def wanted(self, place: Opened, **changes: object) -> VmWanted:
        own = {"cpus": 2, "memory": 256 * MIB, "mac": "00:15:5d:01:02:03", "switch": "External", "vlan": 0}
        settings = {**own, **HYPERV.settings(NAME), **changes}
        address = ip_interface(f"{VIA}/24")
        return VmWanted(NAME, "plant-a", "win-01", address, IMAGE, SEED, settings, HYPERV.hot, HYPERV.fixed)

    def plan(
        self, place: Opened, seen: HostSeen, *, starts: bool, **changes: object
    ) -> tuple[VmStep | RouteStep, ...]:
        """As reconcile does it: the VM first, then the routes. `starts` False leaves the VM off."""
        todo = vm.plan(self.wanted(place, **changes), seen)
        todo = todo if starts else tuple(action for action in todo if action.verb != "start")
        return todo or route_plan(ROUTES, seen)

    def converge(self, place: Opened, *, starts: bool = False, **changes: object) -> list[str]:
        """The verbs that it took until nothing was left to do."""
        done: list[str] = []
        for _ in range(4):
            todo = self.plan(place, place.observe(), starts=starts, **changes)
            if not todo:
                return done
            self.apply(place, todo)
            done += [action.verb for action in todo]
        raise AssertionError([drift for action in todo for drift in action.drift])

    def apply(self, place: Opened, steps: Sequence[VmStep | RouteStep]) -> None:
        place.carry_out(steps, self.said.append)

    def run(self, *, starts: bool = False, **changes: object) -> list[str]:
        """One apply as a user's: the lock, and all that it takes."""
        with self.place() as place, place.lock(self.said.append):
            return self.converge(place, starts=starts, **changes)

    def destroy(self) -> None:
        with self.place() as place, place.lock(self.said.append):
            self.remove(place)

    def remove(self, place: Opened) -> None:
        """What destroy does."""
        seen = place.observe()
        routes = route_removal(ROUTES, seen)
        self.apply(place, (*routes, *vm.destroy_plan(NAME, site="plant-a", host="win-01", seen=seen)))

    def powershell(self, script: str) -> list[object]:
        """What another administrator does on the host; what it prints."""
        lines: list[object] = []
        with self.connect() as shell:
            shell.call(f"param($Data, $Session) {script}", each=lines.append)
        return lines

    def allowed(self, path: str) -> set[str]:
        """Whom rules of its own give something on that file or folder, by name or SID."""
        emulation = self.winhost.emulation
        assert emulation is not None
        return {rule["identity"] for rule in emulation.stores.acls.rules(path)}

    def routes(self) -> str:
        """The kernel's, as they really are."""
        assert self.state.namespace is not None
        words = netns.run_in(self.state.namespace, ["ip", "-4", "route", "show"])
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def files(self) -> list[str]:
        folder = self.state.local(DIRECTORY)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextmanager
def windows(
    work: Path, *, version: Version = "2022", language: Language = "en-US", name: str = "WIN-01"
) -> Iterator[Windows]:
    with ExitStack() as stack:
        namespace, switches = stack.enter_context(network())
        about = Machine(
            name=name,
            version=version,
            namespace=namespace,
            switch_namespace=switches,
            bridges={"External": "br0"},
            language=language,
        )
        winhost = stack.enter_context(WinHost(about, powershells=Pool(keep=True)))
        disk = efi_disk(work / "image.vhdx", work)
        packed = work / "image.vhdx.gz"
        packed.write_bytes(gzip.compress(disk.read_bytes(), mtime=0))
        yield Windows(winhost, packed)
        assert winhost.state.mistakes == []
