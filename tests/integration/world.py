"""A lab and a site in it, driven through the command line as a user drives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from tests import hypervisors
from tests.hypervisors import Tier
from tests.preloaded import Ran, run
from vmproxy import lab
from vmproxy.lab.cluster import ControlPlane, apply_objects
from vmproxy.lab.network import Network
from vmproxy.util import netns, wait

SECONDS = 1500
RESTART_SECONDS = 900
"""A guest's in software emulation took 248 and 292 s beside other work."""
SITE = "it"
"""The site's name, whatever the lab's: tests name what is made for it."""


SSH_OPTIONS = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=2", "-o", "KexAlgorithms=curve25519-sha256"),
)
"""A guest that is switched off meanwhile is noticed; the client's first choice of keys takes it 0.1 s."""
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_EXPIRED = """import base64, json
path = "/etc/vmproxy/token"
part = open(path).read().split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
claims |= {name: claims[name] - 7 * 86400 for name in ("iat", "nbf", "exp")}
text = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
with open(path, "w") as file:
    file.write("e30." + text + ".x")
"""
LOOKING = frozenset({"plan", "status", "verify", "doctor", "render", "logs"})
"""Commands that change nothing."""


@dataclass
class World:
    """A lab of that name, and a site file and keys of the test's own in `folder`.

    `tier`: what runs its VM.
    `failed`: a test failed since, so that nobody knows in which state it is.
    """

    status: lab.LabStatus
    name: str
    folder: Path
    tier: Tier = field(default="vm", kw_only=True)
    failed: bool = field(default=False, kw_only=True)
    _synced: dict[str, Any] | None = field(default=None, init=False)

    @property
    def clean(self) -> bool:
        """Nothing was done since all was in sync with what the site file says now."""
        return self._synced is not None and self._synced == self.site()

    @clean.setter
    def clean(self, value: bool) -> None:
        self._synced = self.site() if value else None

    @property
    def site_file(self) -> Path:
        return self.folder / "vmproxy.yaml"

    @property
    def controller(self) -> str | None:
        """The network namespace that vmproxy runs in; None: this process's."""
        return None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def vm_folder(self) -> Path:
        return self.state / "vmproxy/qemu" / self.name / f"vmproxy-{SITE}-win-01"

    @property
    def ssh_key(self) -> Path:
        return self.state / "vmproxy/ssh" / SITE / "id_ed25519"

    def vmproxy(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Ran:
        if words[0] not in LOOKING:
            self.clean = False
        whole = {**os.environ, **self._own(), **(env or {})}
        ran = run(self._words(words), env=whole, namespace=self.controller, stdin=stdin, timeout=SECONDS)
        assert ran.code is not None, f"{words} did not end within {SECONDS} s: {ran.err}"
        assert "Traceback" not in ran.err, ran.err
        return ran

    def start(self, *words: str) -> subprocess.Popen[str]:
        """It hears Ctrl-C as one started in a terminal does, also when these tests run in the background."""
        self.clean = False
        command = ["env", "--default-signal=INT", *self.command(*words)]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def start_until(self, said: str, *words: str) -> subprocess.Popen[str]:
        """A command that goes on; returns when it has said that on stderr."""
        process = self.start(*words)
        assert process.stderr is not None
        for line in process.stderr:
            if said in line:
                return process
        raise AssertionError(f"{words} ended with {process.wait()} without saying {said!r}")

    def command(self, *words: str) -> list[str]:
        """A command line for a process from nothing."""
        settings = [f"{name}={value}" for name, value in self._own().items()]
        command = ["env", *settings, sys.executable, "-m", "vmproxy", *self._words(words)]
        return netns.run_in(self.controller, command) if self.controller else command

    def _words(self, words: Sequence[str]) -> list[str]:
        verb, *rest = words
        return [verb, "-f", str(self.site_file), *rest]

    def _own(self) -> dict[str, str]:
        """Keys of its own, and what carries its VM behind QEMU's name."""
        own = {"XDG_STATE_HOME": str(self.state)}
        return {**own, "PATH": hypervisors.path("container")} if self.tier == "container" else own

    def apply(self, *words: str) -> Ran:
        """An apply that must succeed."""
        ran = self.vmproxy("apply", *words)
        assert ran.code == 0, ran.err
        return ran

    def drift(self) -> list[str]:
        """The fields that the plan names now."""
        ran = self.vmproxy("plan", "-o", "json")
        assert ran.code == 0, ran.err
        (host,) = ran.json["hosts"]
        found = [drift["field"] for action in host["actions"] for drift in action["drift"]]
        self.clean = not found
        return found

    def in_sync(self) -> bool:
        return self.vmproxy("plan", "--exit-code").code == 0

    def guest(self, command: str, *, stdin: str = "") -> str:
        """A command that changes something in the VM."""
        self.clean = False
        return self.look(command, stdin=stdin)

    def look(self, command: str, *, stdin: str = "") -> str:
        """A command in the VM that changes nothing.

        By the ssh client itself: `vmproxy ssh`, which looks at the host first, has tests of its own.
        """
        address = self.site()["hosts"][0]["network"]["address"].partition("/")[0]
        words = ["ssh", "-i", str(self.ssh_key), *SSH_OPTIONS]
        inside = netns.run_in(self.status.namespaces["host"], [*words, f"root@{address}", command])
        done = subprocess.run(
            inside, text=True, input=stdin, capture_output=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def journal(self) -> str:
        """The end of the guest's, for the report of a test that failed; or why there is none."""
        try:
            return self.look("journalctl -n 80 --no-pager -o short-monotonic")
        except (AssertionError, subprocess.SubprocessError, OSError, KeyError, IndexError) as exc:
            return f"none: {exc!r}"

    def restart(self) -> None:
        """The guest's, until SSH answers again; a container's takes less than a look at it."""
        boot = self.look(_BOOT_ID)
        self.guest("sync; systemd-run -q sh -c 'sleep 1; systemctl reboot'")

        def booted() -> bool | str:
            try:
                return self.look(_BOOT_ID) != boot or "not restarted yet"
            except AssertionError as exc:
                return str(exc)

        wait.until("the guest's restart", booted, timeout=RESTART_SECONDS)

    def expire_token(self) -> None:
        """kube-proxy's, as after a week off: its time is over, and the API server refuses it."""
        self.guest("python3 -I -", stdin=_EXPIRED)

    def in_namespace(self, role: str, *command: str) -> str:
        """A command that changes something there."""
        self.clean = False
        return self.look_in(role, *command)

    def look_in(self, role: str, *command: str) -> str:
        """A command that changes nothing there."""
        words = netns.run_in(self.status.namespaces[role], command)
        return subprocess.run(words, text=True, capture_output=True, check=True, timeout=60).stdout

    def change(self, **top: Any) -> None:
        """Set top-level keys of the site file; a value of None takes the key away."""
        site = self.site()
        for key, value in top.items():
            if value is None:
                site.pop(key, None)
            else:
                site[key] = value
        self.write(site)

    def change_host(self, **keys: Any) -> None:
        site = self.site()
        (host,) = site["hosts"]
        for key, value in keys.items():
            if value is None:
                host.pop(key, None)
            else:
                host[key] = value
        self.write(site)

    def change_network(self, **keys: Any) -> None:
        network = {**self.site()["hosts"][0]["network"], **keys}
        self.change_host(network={key: value for key, value in network.items() if value is not None})

    def site(self) -> dict[str, Any]:
        loaded: dict[str, Any] = YAML(typ="safe").load(self.site_file)
        return loaded

    def write(self, site: dict[str, Any]) -> None:
        with self.site_file.open("w") as file:
            YAML().dump(site, file)

    def original(self) -> dict[str, Any]:
        """The site file as the lab wrote it, under the tests' name."""
        loaded: dict[str, Any] = YAML(typ="safe").load(self.status.site)
        return {**loaded, "name": SITE}

    def reset(self) -> None:
        self.write(self.original())

    def settle(self, **host: Any) -> None:
        """In sync with the site file, with those keys of the host set in it: by an apply, unless it is.

        From nothing where a test failed, so that one failure is not the next test's too.
        """
        if host:
            self.change_host(**host)
        if self.failed:
            wanted = self.site()
            self.reset()
            self.vmproxy("destroy", "--yes")
            self.write(wanted)
            self.failed = False
        if not self.clean:
            self.apply("--yes")
            self.clean = True

    def control(self) -> ControlPlane:
        assert self.status.kubeconfig is not None
        return ControlPlane(self.status.kubeconfig.parent, Network(self.name), self.status.binaries)

    def api(self) -> httpx.Client:
        return self.control().api()

    def create(self, *objects: dict[str, Any]) -> None:
        self.clean = False
        with self.api() as api:
            apply_objects(api, list(objects))

    def delete(self, path: str) -> None:
        self.clean = False
        with self.api() as api:
            api.delete(path).raise_for_status()

    def delete_service(self, name: str) -> None:
        """With the EndpointSlice that was made beside it: nobody else removes that."""
        self.delete(f"/api/v1/namespaces/demo/services/{name}")
        self.delete(f"/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices/{name}-lab")

    def cluster_ip(self, service: str, namespace: str = "demo") -> str:
        with self.api() as api:
            answer = api.get(f"/api/v1/namespaces/{namespace}/services/{service}").raise_for_status()
        address: str = answer.json()["spec"]["clusterIP"]
        return address

    def curl(self, service: str, path: str = "/hostname", role: str = "host") -> str:
        url = f"http://{self.cluster_ip(service)}{path}"
        return self.look_in(role, "curl", "-sS", "-m", "10", url).strip()

    def end_lost_sessions(self) -> None:
        """What the host does with a killed controller's sessions when their time is over, at once."""

    def has_vm(self) -> bool:
        """Whether anything of the VM is on its host."""
        return self.vm_folder.exists()

    def started(self) -> str:
        """When the VM was switched on: the same as long as it was not interrupted."""
        return (self.vm_folder / "qemu.pid").read_text()

    def kill_vm(self) -> None:
        self.clean = False
        pid = int((self.vm_folder / "qemu.pid").read_text())
        os.kill(pid, signal.SIGKILL)

    def remove_disk(self) -> None:
        """The disk of a VM that does not run."""
        self.clean = False
        (disk,) = self.vm_folder.glob("disk-*.raw")
        disk.unlink()

    def remove_vm(self) -> None:
        """The definition of a VM that does not run."""
        (self.vm_folder / "vm.json").unlink()


def bring_up(name: str, folder: Path, *, tier: Tier = "vm") -> World:
    status = lab.up(name=name, report=print)
    world = World(status, name, folder, tier=tier)
    world.reset()
    return world
