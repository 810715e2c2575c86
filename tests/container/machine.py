"""One machine while it is switched on: what QEMU's process is to the embedded host and to Hyper-V.

It lives as long as the machine has power: SIGKILL is a power failure, and a system that switches itself off
ends it. The monitor knows what a container can do; all else it refuses as QEMU refuses an unknown command.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.container import cgroup, port
from tests.container.commandline import Adapter, Machine, NotSupported
from tests.container.port import Port
from tests.undertaker import Undertaker

_ROOT = Path(__file__).resolve().parents[2]
_HELLO = {"QMP": {"version": {"qemu": {"major": 0, "minor": 0, "micro": 0}}, "capabilities": []}}
_LIVES_AND_DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", 'echo 0 > "$0"; exec "$@"']
"""In the cgroup whose file of processes comes next."""
_APART = ["unshare", "--mount", "--propagation=private", "--net", "--cgroup", "--pid", "--mount-proc"]
_APART += ["--fork", "--kill-child"]
Writer = asyncio.StreamWriter


class Power:
    """The container: switched on, off, and asked to switch itself off."""

    def __init__(self, machine: Machine, group: Path) -> None:
        self._machine = machine
        self._group = group
        self._ports: dict[str, Port] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def on(self, console: int) -> subprocess.Popen[bytes]:
        """Returns when the disk is opened and the network connected; `console` is the terminal's inner end.

        Raises NotSupported when the system does not get as far.
        """
        self._group.mkdir()
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(console, theirs.fileno())
        if not self.connect():
            raise NotSupported(f"{self._machine.name} does not boot in a container: see its console")
        return self._process

    @property
    def channel(self) -> socket.socket:
        """Readable when the system boots again."""
        assert self._channel is not None
        return self._channel

    def connect(self) -> bool:
        """Give a system that is about to boot its adapters; False when there is none any more."""
        assert self._process is not None
        if self.channel.recv(16) != b"ready\n":
            return False
        for number, adapter in enumerate(self._machine.adapters):
            if adapter.tap is not None:
                self._plug_in(number, adapter, adapter.tap)
        self.channel.sendall(b"connected\n")
        return True

    def cut(self) -> None:
        """The power cable is pulled out."""
        cgroup.end(self._group)
        if self._process:
            self._process.wait()
        if self._channel:
            self._channel.close()

    def button(self) -> None:
        """As systemd-nspawn's manual says: SIGRTMIN+4 to the first process switches off in good order."""
        init = self._init()
        if init is not None:
            os.kill(init, signal.SIGRTMIN + 4)

    def _plug_in(self, number: int, adapter: Adapter, tap: str) -> None:
        """Where the link is now; after a reboot it may be gone with the system that had its other end."""
        assert self._process is not None
        found = port.look(tap) or self._ports.get(tap)
        if found is None:
            raise NotSupported(f"there is no network device {tap}")
        self._ports[tap] = found
        port.connect(adapter, found, number=number, pid=_only_child(self._process.pid))

    def _spawn(self, console: int, channel: int) -> subprocess.Popen[bytes]:
        machine = self._machine
        cabled = [f"eth{number}" for number, adapter in enumerate(machine.adapters) if adapter.tap]
        wanted = {
            "name": machine.name,
            "disk": str(machine.disk.file),
            "format": machine.disk.format,
            "seed": str(machine.seed or ""),
            "adapters": " ".join(cabled),
        }
        boot = [sys.executable, "-m", "tests.container.boot", str(channel), json.dumps(wanted)]
        return subprocess.Popen(
            [*_LIVES_AND_DIES_WITH_US, self._group / "cgroup.procs", *_APART, *boot],
            stdin=console,
            stdout=console,
            stderr=console,
            start_new_session=True,
            cwd=_ROOT,
            pass_fds=(channel,),
        )

    def _init(self) -> int | None:
        """unshare → boot.py → systemd-nspawn → the system's first process."""
        pid = self._process.pid if self._process else None
        for name in ("python", "systemd-nspawn", "systemd"):
            pid = _child(pid, name) if pid else None
        return pid


@dataclass
class Console:
    """The serial port: everything goes to the log and to whoever is connected."""

    log: Path
    clients: set[Writer] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.outer, self.inner = pty.openpty()
        attributes = termios.tcgetattr(self.inner)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(self.inner, termios.TCSANOW, attributes)

    def pump(self) -> None:
        data = os.read(self.outer, 65536)
        with self.log.open("ab") as log:
            log.write(data)
        for client in self.clients:
            client.write(data)

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.clients.add(writer)
        try:
            while data := await reader.read(4096):
                os.write(self.outer, data)
        except OSError:
            return
        finally:
            self.clients.discard(writer)
            writer.close()


class Monitor:
    """QMP, as far as a container goes. `reset` is the reset button."""

    def __init__(self, power: Power, *, reset: Callable[[], None]) -> None:
        self._commands: Mapping[str, Callable[[], object]] = {
            "qmp_capabilities": dict,
            "query-status": lambda: {"status": "running", "running": True, "singlestep": False},
            "system_powerdown": power.button,
            "system_reset": reset,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        _tell(writer, _HELLO)
        text = ""
        try:
            while data := await reader.read(65536):
                asked, text = _whole(text + data.decode())
                for one in asked:
                    _tell(writer, self._answer(one))
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    def _answer(self, asked: Mapping[str, object]) -> dict[str, object]:
        name = str(asked["execute"])
        if name not in self._commands:
            text = f"The command {name} has not been found: this machine is a container"
            return _with_id(asked, {"error": {"class": "CommandNotFound", "desc": text}})
        return _with_id(asked, {"return": self._commands[name]() or {}})


def run(machine: Machine) -> int:
    """Until the machine is off. `-daemonize`: this process ends when the machine has begun to boot."""
    started = _daemonize() if machine.pidfile else _nothing
    try:
        return asyncio.run(_live(machine, started))
    except NotSupported as exc:
        started(str(exc))
        raise


async def _live(machine: Machine, started: Callable[[str], None]) -> int:
    group = cgroup.mount() / cgroup.name(machine.monitor)
    cgroup.end(group)
    console = Console(machine.console.log if machine.console else Path(os.devnull))
    power = Power(machine, group)
    reset = asyncio.Event()
    undertaker = Undertaker()
    undertaker.run("container", [sys.executable, str(Path(cgroup.__file__)), group])
    asyncio.get_running_loop().add_reader(console.outer, console.pump)
    try:
        process = power.on(console.inner)
        await _listen(machine, console, Monitor(power, reset=reset.set))
        if machine.pidfile:
            machine.pidfile.write_text(f"{os.getpid()}\n")
        started("")
        while await _lives(power, process, reset):
            power.cut()
            process = power.on(console.inner)
    finally:
        power.cut()
        undertaker.close()
    return 0


async def _listen(machine: Machine, console: Console, monitor: Monitor) -> None:
    machine.monitor.unlink(missing_ok=True)
    await asyncio.start_unix_server(monitor.serve, machine.monitor)
    if machine.console and machine.console.socket:
        await asyncio.start_unix_server(console.serve, machine.console.socket)


async def _lives(power: Power, process: subprocess.Popen[bytes], reset: asyncio.Event) -> bool:
    """Until the system has switched itself off (False), or the reset button was pushed (True)."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    loop.add_reader(power.channel, power.connect)
    waits = [asyncio.ensure_future(event.wait()) for event in (ended, reset)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    loop.remove_reader(descriptor)
    loop.remove_reader(power.channel)
    os.close(descriptor)
    again = reset.is_set()
    reset.clear()
    return again


def _daemonize() -> Callable[[str], None]:
    """Go on in a child. What this returns is called once: "" for a machine that runs, else why it does not.

    The parent ends then, and says the same.
    """
    waits, tells = os.pipe()
    if os.fork():
        os.close(tells)
        with os.fdopen(waits) as answer:
            said = answer.read()
        if said != "running":
            print(f"qemu-system-x86_64: {said or 'ended at once'}", file=sys.stderr, flush=True)
        os._exit(0 if said == "running" else 1)
    os.close(waits)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    def started(why_not: str) -> None:
        os.write(tells, (why_not or "running").encode())
        os.close(tells)

    return started


def _nothing(_why_not: str) -> None:
    """In the foreground nobody waits."""


def _child(pid: int, name: str) -> int | None:
    for child in _children(pid):
        if Path(f"/proc/{child}/comm").read_text().strip().startswith(name):
            return child
    return None


def _only_child(pid: int) -> int:
    (child,) = _children(pid)
    return child


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _whole(text: str) -> tuple[list[dict[str, object]], str]:
    """The objects that came whole, and the rest: clients need not end a command with a line."""
    found: list[dict[str, object]] = []
    while text := text.lstrip():
        try:
            one, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            break
        found.append(one)
        text = text[end:]
    return found, text


def _tell(writer: Writer, said: Mapping[str, object]) -> None:
    writer.write(json.dumps(said).encode() + b"\r\n")


def _with_id(asked: Mapping[str, object], answer: dict[str, object]) -> dict[str, object]:
    return {**answer, "id": asked["id"]} if "id" in asked else answer
