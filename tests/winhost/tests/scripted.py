"""One powershell.exe for many tests: scripts go in, what they give comes out as values."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.winhost import engine, modules, powershell
from tests.winhost.hyperv import model
from tests.winhost.hyperv.model import VM, Adapter
from tests.winhost.state import Host

_LOOP = r"""
while ($line = [Console]::In.ReadLine()) {
    $text = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($line))
    $found = @()
    try { & ([scriptblock]::Create($text)) 2>&1 3>&1 | ForEach-Object { $found += , $_ } }
    catch { $found += , $_; $ended = $true }
    $said = foreach ($one in $found) {
        if ($one -is [Management.Automation.ErrorRecord]) {
            @{ error = "$one"; id = $one.FullyQualifiedErrorId; category = [string] $one.CategoryInfo.Category
               type = $one.Exception.GetType().FullName; target = "$($one.TargetObject)" }
        } elseif ($one -is [Management.Automation.WarningRecord]) { @{ warning = $one.Message } }
        else { @{ value = $one } }
    }
    $json = ConvertTo-Json -InputObject @{ said = @($said); ended = [bool] $ended } -Depth 9 -Compress
    [Console]::Out.WriteLine('#' + [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($json)))
    $ended = $false
}
"""


_FOLDERS = (
    "ProgramData/Microsoft/Windows/Hyper-V",
    "Users/Public/Documents/Hyper-V/Virtual Hard Disks",
    "d",
)


@dataclass
class Said:
    """What a script gave: values, and errors as they came; `ended` when an error ended it."""

    values: list[Any]
    errors: list[dict[str, str]]
    warnings: list[str]
    ended: bool

    @property
    def error(self) -> dict[str, str]:
        (one,) = self.errors
        return one


@dataclass
class Session:
    """A powershell.exe and its host."""

    host: Host
    process: subprocess.Popen[bytes]

    def say(self, script: str) -> Said:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(script.encode()) + b"\r\n")
        self.process.stdin.flush()
        written = iter(self.process.stdout.readline, b"")
        line = next((one for one in written if one.startswith(b"#")), None)
        assert line, "powershell.exe ended"
        answer = json.loads(base64.b64decode(line[1:]))
        said = answer["said"]
        return Said(
            [one["value"] for one in said if "value" in one],
            [one for one in said if "error" in one],
            [one["warning"] for one in said if "warning" in one],
            answer["ended"],
        )

    def __call__(self, script: str) -> list[Any]:
        """The values of a script that has no errors."""
        said = self.say(script)
        assert not said.errors, said.errors
        return said.values

    def one(self, script: str) -> Any:
        (value,) = self(script)
        return value

    def reset(self, host: Host) -> None:
        """Another host, under the same process."""
        self.host.__dict__.clear()
        self.host.__dict__.update(host.__dict__)


@dataclass
class Pretence:
    """Power for machines that nothing boots; `heart` is what they say of themselves."""

    heart: str = "OkApplicationsUnknown"
    connected: list[Adapter] = field(default_factory=list)
    unplugged: list[str] = field(default_factory=list)

    def start(self, host: Host, vm: VM) -> None:
        model.assign_macs(host, vm)
        vm.state, vm.started = "Running", time.monotonic()

    def stop(self, host: Host, vm: VM, *, force: bool, turn_off: bool) -> None:
        vm.state, vm.started = "Off", None

    def reset(self, host: Host, vm: VM) -> None:
        vm.started = time.monotonic()

    def plug(self, host: Host, vm: VM, adapter: Adapter) -> None:
        self.connected.append(adapter)

    def unplug(self, host: Host, vm: VM, adapter: Adapter) -> None:
        self.unplugged.append(adapter.name)

    def connect(self, host: Host, vm: VM, adapter: Adapter) -> None:
        self.connected.append(adapter)

    def heartbeat(self, host: Host, vm: VM) -> str:
        return self.heart

    def addresses(self, host: Host, vm: VM, adapter: Adapter) -> Sequence[str]:
        return []


def new_host(folder: Path, **facts: Any) -> Host:
    """A host with a drive C and one external switch, whose machines are a pretence."""
    shutil.rmtree(folder / "C", ignore_errors=True)
    for name in _FOLDERS:
        (folder / "C" / name).mkdir(parents=True)
    host = Host(bridges={"External": "br0"}, drives={"C": folder / "C"}, folder=folder, **facts)
    model.hyperv(host).power = Pretence()
    return host


@contextmanager
def session(version: str = "2022", **facts: Any) -> Iterator[Session]:
    """A powershell.exe of a Windows version; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="winhost-") as name:
        folder = Path(name)
        host = new_host(folder, version=version, **facts)
        with engine.serving(host, folder / "engine") as socket:
            environment = {
                "HOME": name,
                "TMPDIR": name,
                "DOTNET_EnableDiagnostics": "0",
                "PATH": "",
                "PSModulePath": modules.installed(host),
                "WINHOST_ENGINE": str(socket),
                "WINPS_DRIVE_C": str(folder / "C"),
                "COMPUTERNAME": host.name,
                "LANG": os.environ.get("LANG", "C.UTF-8"),
            }
            command = [str(powershell.program()), "-NoProfile", "-NonInteractive", "-Command", _LOOP]
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
            )
            try:
                yield Session(host, process)
            finally:
                process.kill()
                process.communicate()
