"""Many questions to one PowerShell process of an emulated host, for tests of its cmdlets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import names
from tests.winhost import modules, powershell, programs, system
from tests.winhost.engine import serving
from tests.winhost.net import resolver
from tests.winhost.presence import require
from tests.winhost.state import Host
from vmproxy.util import netns

_ASK = """
$ErrorActionPreference = 'Stop'
foreach ($Question in (ConvertFrom-Json ([Console]::In.ReadToEnd()))) {
    try {
        $Said = @{ value = @(. ([ScriptBlock]::Create($Question))) }
    } catch {
        $Category = $_.CategoryInfo
        $Said = @{ error = @{
            message = $_.Exception.Message; type = $_.Exception.GetType().FullName
            id = $_.FullyQualifiedErrorId; category = "$($Category.Category)"; target = "$($_.TargetObject)"
        } }
    }
    [Console]::Out.WriteLine('#' + (ConvertTo-Json -InputObject $Said -Depth 6 -Compress))
}
"""


@dataclass(frozen=True)
class Failure:
    """An error that ended a question."""

    message: str
    type: str
    id: str
    category: str
    target: str


@dataclass
class Windows:
    """A host with its engine, its programs and its stores, without WinRM."""

    host: Host
    folder: Path
    stores: system.Stores
    environment: dict[str, str] = field(default_factory=dict)

    def ask(self, *questions: str) -> list[Any]:
        """Each question's output: one value, a list of several, None for none; or its Failure."""
        done = subprocess.run(
            self._command(),
            input=json.dumps(questions).encode(),
            env=self.environment,
            capture_output=True,
            timeout=120,
            check=False,
        )
        lines = [line[1:] for line in done.stdout.decode().splitlines() if line.startswith("#")]
        assert len(lines) == len(questions), (done.stdout, done.stderr)
        assert self.host.mistakes == []
        return [_answer(json.loads(line)) for line in lines]

    def _command(self) -> list[str]:
        script = self.folder / "ask.ps1"
        script.write_text(_ASK)
        return self.inside([str(powershell.program()), "-NoProfile", "-NonInteractive", "-File", str(script)])

    def inside(self, command: list[str]) -> list[str]:
        """The command in the host's network."""
        if self.host.namespace is None:
            return command
        # The host's PATH does not have the machine's programs.
        return [str(shutil.which("ip")), *netns.run_in(self.host.namespace, command)[1:]]


def _answer(said: Mapping[str, Any]) -> Any:
    if "error" in said:
        return Failure(**said["error"])
    value = said["value"]
    return value[0] if len(value) == 1 else value or None


@contextmanager
def windows(folder: Path, **facts: Any) -> Iterator[Windows]:
    """A host with drive C: in the folder; `facts` are those of `Host`."""
    require()
    drive = folder / "C"
    for name in ("Windows/Temp", "ProgramData", "Users/Administrator"):
        (drive / name).mkdir(parents=True)
    host = Host(drives={"C": drive}, folder=folder, **facts)
    (folder / "stores").mkdir()
    stores = system.install(host, folder / "stores")
    environment = {
        "PSModulePath": modules.module_path(host.version),
        "DOTNET_JITMinOpts": "1",
        "WINPS_DRIVE_C": str(drive),
        "PATH": str(programs.install(folder / "programs", host.version)),
        "COMPUTERNAME": host.name,
        "USERNAME": "Administrator",
        "USERDOMAIN": host.name,
        "USERPROFILE": r"C:\Users\Administrator",
        **stores.environment,
    }
    with resolver.serving(host, stores.registry), serving(host, folder / "engine") as socket:
        environment["WINHOST_ENGINE"] = str(socket)
        yield Windows(host, folder, stores, environment)


@contextmanager
def namespace() -> Iterator[str]:
    """A network namespace like a lab's host: eth0 with an address and a gateway, a neighbour on its cable.

    The tests that ask for it are not run where it can not be made.
    """
    require(None if os.geteuid() == 0 else "network namespaces need root")
    name = names.namespace(f"n{uuid.uuid4().hex[:4]}")
    peer = peer_of(name)
    with ExitStack() as stack:
        for one in (name, peer):
            _ip("netns", "add", one)
            stack.callback(_ip, "netns", "del", one)
            _ip("-n", one, "link", "set", "lo", "up")
        _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer)
        for one, address in ((name, "192.168.100.10"), (peer, "192.168.100.5")):
            _ip("-n", one, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", one, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", "192.168.100.1")
        yield name


def peer_of(name: str) -> str:
    """The namespace of the neighbour."""
    head, _, mark = name.rpartition("-")
    return f"{head}-peer-{mark}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)
