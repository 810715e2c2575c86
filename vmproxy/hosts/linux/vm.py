"""One QEMU virtual machine: its folder, its process, its serial console.

The folder holds vm.json (definition and marker), disk-<image hash>.raw, seed-<seed hash>.iso,
efivars.fd, console.log, and while it runs qemu.pid and qmp.sock. QEMU keeps running after vmproxy ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from vmproxy.errors import NotReady, ToolFailed, VmproxyError
from vmproxy.hosts.linux.accel import accelerator
from vmproxy.model.seen import Marker
from vmproxy.util import netns, wait
from vmproxy.util.run import run

FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_SHUTDOWN_SECONDS = 90.0
ONLY_OWNER = "owner only"


@dataclass(frozen=True)
class Definition:
    """The content of vm.json: the settings for the next start, and the marker."""

    settings: Mapping[str, Any]
    marker: Marker


class _Settings(BaseModel):
    """Those that QEMU is started with; others may follow."""

    cpus: int
    memory: int
    mac: str
    switch: str
    vlan: int


_HASH = re.compile("[0-9a-f]{1,64}")


def _read(text: bytes) -> Definition:
    """Raises ValueError for what vmproxy did not write: the file may have been edited."""
    try:
        found = TypeAdapter(Definition).validate_json(text, strict=True)
        _Settings.model_validate(found.settings, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from exc
    for name, value in (("seed", found.marker.seed), ("image", found.marker.image)):
        if not _HASH.fullmatch(value):
            raise ValueError(f"marker.{name} is not a hash")
    return found


class QemuVm:
    """`switch_namespace` contains the bridge; QEMU runs in it, with its tap."""

    def __init__(self, name: str, *, folder: Path, switch_namespace: str) -> None:
        self.name = name
        self.folder = folder
        self._namespace = switch_namespace
        self.tap = "vmp" + sha256(name.encode()).hexdigest()[:10]

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    def disk(self, image: str) -> Path:
        return self.folder / f"disk-{image}.raw"

    def seed(self, seed: str) -> Path:
        return self.folder / f"seed-{seed}.iso"

    def access(self) -> str:
        """Who may enter the folder: disk and seed are in it, and the seed has a private key."""
        found = self.folder.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return ONLY_OWNER
        return f"{found.st_mode & 0o7777:04o} of user {found.st_uid}"

    def protect(self) -> None:
        os.chown(self.folder, os.geteuid(), -1)
        self.folder.chmod(0o700)

    def definition(self) -> Definition | None:
        """None: no VM. Raises VmproxyError if the file is damaged."""
        path = self.folder / "vm.json"
        try:
            return _read(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as exc:
            hint = f"remove the folder {self.folder} and run apply again"
            raise VmproxyError(f"cannot read {path}: {exc}", hint=hint) from exc

    def define(self, definition: Definition) -> None:
        path = self.folder / "vm.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(definition), indent=2, default=str))
        part.replace(path)

    def create(self, definition: Definition, *, image: Path, seed: bytes) -> None:
        """Create the disk and seed. The definition is written last: without it there is no VM."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        needed = image.stat().st_blocks * 512
        if shutil.disk_usage(self.folder).free < needed:
            raise VmproxyError(
                f"cannot create the disk of {self.name}: {needed >> 20} MiB are needed in {self.folder}",
                hint="free disk space and run apply again",
            )
        run(["cp", "--sparse=always", "--reflink=auto", image, self.disk(definition.marker.image)])
        seed_file = self.seed(definition.marker.seed)
        seed_file.touch(mode=0o600)
        seed_file.write_bytes(seed)
        shutil.copyfile(_VARIABLES, self.folder / "efivars.fd")
        self.define(definition)

    def pid(self) -> int | None:
        """The process that runs this VM; ignores the id of an ended process."""
        try:
            pid = int((self.folder / "qemu.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if self._words(pid) else None

    def running_settings(self) -> dict[str, Any]:
        """CPUs, memory and MAC with which the running process was started; empty if it does not run."""
        pid = self.pid()
        words = self._words(pid) if pid else []
        if not words:
            return {}
        after = dict(pairwise(words))
        return {
            "cpus": int(after["-smp"]),
            "memory": int(after["-m"].removesuffix("M")) << 20,
            "mac": after["-device"].rpartition("mac=")[2],
        }

    def start(self) -> None:
        """Start QEMU. Raises ToolFailed with QEMU's message."""
        definition = self.definition()
        if definition is None or self.pid() is not None:
            return
        self.check_memory(int(definition.settings["memory"]))
        self.console_log.write_bytes(b"")
        self._connect(str(definition.settings["switch"]), int(definition.settings["vlan"]))
        try:
            run(netns.run_in(self._namespace, self._command(definition)), timeout=60)
        except ToolFailed as exc:
            self._disconnect()
            raise ToolFailed(f"cannot start VM {self.name}: {exc.message}", details=exc.details) from exc

    def check_memory(self, needed: int) -> None:
        """Raises VmproxyError if this machine lacks `needed` bytes, counting those that this VM uses now."""
        free = free_memory() + int(self.running_settings().get("memory", 0))
        if free < needed:
            raise VmproxyError(
                f"cannot start VM {self.name}: it needs {needed >> 20} MiB of memory, "
                f"{free >> 20} MiB are free",
                hint="stop another program, or reduce vm.memory",
            )

    def stop(self, *, at_once: bool = False) -> None:
        """Shut down through the guest; after 90 s, or `at_once`, turn it off."""
        pid = self.pid()
        if pid is not None:
            if not at_once and self._ask("system_powerdown"):
                at_once = not _ended(pid, _SHUTDOWN_SECONDS, self)
            if at_once:
                os.kill(pid, signal.SIGKILL)
                _ended(pid, 10.0, self)
        self._disconnect()
        for name in ("qemu.pid", "qmp.sock"):
            (self.folder / name).unlink(missing_ok=True)

    def delete(self) -> None:
        self.stop(at_once=True)
        (self.folder / "vm.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect_to(self, switch: str, vlan: int) -> None:
        """Move the running VM's adapter to another bridge or VLAN."""
        run(["ip", "-n", self._namespace, "link", "set", self.tap, "master", switch])
        self._set_vlan(switch, vlan)

    def connected_to(self) -> dict[str, Any]:
        """The adapter's current bridge and VLAN; empty if there is no adapter."""
        shown = run(["ip", "-n", self._namespace, "-j", "link", "show", "dev", self.tap], ok=(0, 1)).stdout
        links = json.loads(shown or "[]")
        if not links:
            return {}
        return {"switch": links[0].get("master", ""), "vlan": self._vlan()}

    def _connect(self, switch: str, vlan: int) -> None:
        self._disconnect()
        run(["ip", "-n", self._namespace, "tuntap", "add", self.tap, "mode", "tap"])
        run(["ip", "-n", self._namespace, "link", "set", self.tap, "master", switch, "up"])
        self._set_vlan(switch, vlan)

    def _disconnect(self) -> None:
        """Exit code 1: there is none; 2: the kernel has just removed it."""
        run(["ip", "-n", self._namespace, "link", "del", self.tap], ok=(0, 1, 2))

    def _set_vlan(self, switch: str, vlan: int) -> None:
        if vlan == self._vlan():
            return
        bridge = ["bridge", "-n", self._namespace]
        if vlan:
            self._filter_vlans(switch)
        for old in {self._vlan() or 1} - {vlan}:
            run([*bridge, "vlan", "del", "dev", self.tap, "vid", str(old)], ok=(0, 2, 255))
        run([*bridge, "vlan", "add", "dev", self.tap, "vid", str(vlan or 1), "pvid", "untagged"])

    def _filter_vlans(self, switch: str) -> None:
        try:
            run(["ip", "-n", self._namespace, "link", "set", switch, "type", "bridge", "vlan_filtering", "1"])
        except ToolFailed as exc:
            raise VmproxyError(
                f"cannot put VM {self.name} into a VLAN: this kernel's bridges do not support VLANs",
                hint="set network.vlan: 0, or use a kernel with CONFIG_BRIDGE_VLAN_FILTERING",
                details=exc.details,
            ) from exc

    def _vlan(self) -> int:
        """The adapter's untagged VLAN; 0 for the bridge's own VLAN 1."""
        shown = run(["bridge", "-n", self._namespace, "-j", "vlan", "show", "dev", self.tap], ok=(0, 255))
        ports = json.loads(shown.stdout or "[]")
        for entry in (vlan for port in ports for vlan in port.get("vlans", [])):
            if "PVID" in entry.get("flags", []):
                return 0 if entry["vlan"] == 1 else int(entry["vlan"])
        return 0

    def _command(self, definition: Definition) -> list[str]:
        settings, marker = definition.settings, definition.marker
        accel, cpu = accelerator()
        readonly = "if=pflash,format=raw,readonly=on"
        return [
            "qemu-system-x86_64",
            *("-name", self.name, "-machine", "q35", "-accel", accel, "-cpu", cpu),
            *("-smp", str(settings["cpus"]), "-m", f"{int(settings['memory']) >> 20}M"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc"),
            *("-drive", f"{readonly},file={FIRMWARE}"),
            *("-drive", f"if=pflash,format=raw,file={self.folder / 'efivars.fd'}"),
            *("-drive", f"if=virtio,format=raw,cache=unsafe,file={self.disk(marker.image)}"),
            *("-drive", f"if=virtio,format=raw,readonly=on,file={self.seed(marker.seed)}"),
            *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
            *("-netdev", f"tap,id=net0,ifname={self.tap},script=no,downscript=no"),
            *("-chardev", f"file,id=com1,path={self.console_log}", "-serial", "chardev:com1"),
            *("-qmp", f"unix:{self.folder / 'qmp.sock'},server=on,wait=off"),
            *("-pidfile", str(self.folder / "qemu.pid"), "-daemonize"),
            *("-device", "virtio-rng-pci,rng=rng0"),
            *("-device", f"virtio-net-pci,netdev=net0,mac={settings['mac']}"),
        ]

    def _words(self, pid: int) -> list[str]:
        """The command line of `pid` if it is this VM's QEMU, else empty."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return []
        mine = str(self.folder / "qemu.pid")
        return words if mine in words and not _is_zombie(pid) else []

    def _ask(self, command: str) -> bool:
        """Send one QMP command; False if QEMU no longer listens."""
        from qemu.qmp.legacy import QEMUMonitorProtocol  # noqa: PLC0415 (slow import, used only to stop)
        from qemu.qmp.protocol import ConnectError  # noqa: PLC0415

        monitor = QEMUMonitorProtocol(str(self.folder / "qmp.sock"))
        try:
            monitor.connect(negotiate=True)
            monitor.cmd(command)
        except (OSError, ConnectError):
            return False
        finally:
            monitor.close()
        return True


def _ended(pid: int, timeout: float, vm: QemuVm) -> bool:
    def probe() -> bool | str:
        return True if vm.pid() is None else f"process {pid} still runs"

    try:
        return wait.until(f"shutdown of VM {vm.name}", probe, timeout=timeout, every=0.2)
    except NotReady:
        return False


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free_memory() -> int:
    """Bytes of memory that are still available on this machine (MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
