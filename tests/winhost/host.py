"""One emulated Windows host with everything: accounts, drive, WinRM, PowerShell."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.winhost import auth, programs
from tests.winhost.auth import Account, Directory
from tests.winhost.certificates import Authority, Pair
from tests.winhost.cmd import Cmd
from tests.winhost.faults import Switchboard
from tests.winhost.server import Listener
from tests.winhost.state import Host, Language
from tests.winhost.warm import Pool
from tests.winhost.wsman import Quotas, Service
from vmproxy.util import netns

if TYPE_CHECKING:
    from tests.winhost.emulation import Emulation
    from tests.winhost.hns import Hns

Version = Literal["2016", "2019", "2022", "2025"]
BUILDS = {"2016": "14393", "2019": "17763", "2022": "20348", "2025": "26100"}
_FOLDERS = (
    "ProgramData/Microsoft/Windows/Hyper-V",
    "Program Files",
    "Users/Public/Documents/Hyper-V/Virtual Hard Disks",
    "Windows/System32/drivers/etc",
    "Windows/Temp",
)


@dataclass(frozen=True)
class Machine:
    """What the emulated machine is."""

    name: str = "WIN-01"
    version: Version = "2022"
    domain: str | None = None
    namespace: str | None = None
    """The network namespace that is the host; None: this machine's own."""
    listen_namespace: str | None = None
    """Where WinRM listens on 127.0.0.1; None: on this machine's own."""
    switch_namespace: str | None = None
    """The network namespace with the bridges of its virtual switches."""
    bridges: Mapping[str, str] = field(default_factory=dict)
    """External switches that exist from the start: name, and bridge in `switch_namespace`."""
    dns: tuple[str, ...] = ()
    """The DNS servers of its port on the external switch."""
    language: Language = "en-US"
    cmdlets: bool = True
    """Hyper-V, routes and all else behind PowerShell; without it the host starts at once."""
    port: int = 0
    """Of https, with http before it; 0: any free ones."""


@dataclass
class WinHost:
    """Starts in its `with` block, and leaves nothing behind."""

    machine: Machine = field(default_factory=Machine)
    accounts: list[Account] = field(default_factory=list)
    quotas: Quotas = field(default_factory=Quotas)
    switchboard: Switchboard = field(default_factory=Switchboard)
    environment: dict[str, str] = field(default_factory=dict)
    """Of every process on the host; parts of the emulation add theirs."""
    started: list[str] = field(default_factory=list)
    """Every program that ran, by name."""
    emulation: Emulation | None = None
    powershells: Pool = field(default_factory=Pool)
    """powershell.exe's processes that wait for another command."""

    def __enter__(self) -> WinHost:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="winhost-")))
            self._prepare()
            if self.machine.cmdlets:
                self._emulate(stack)
            stack.callback(self.powershells.close)
            self._listen(stack)
            self._reap(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def administrator(self) -> Account:
        return self.accounts[0]

    @property
    def password(self) -> str:
        return self.administrator.password

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.https.port}"

    @property
    def http_endpoint(self) -> str:
        return f"http://localhost:{self.http.port}"

    @property
    def ca(self) -> Path:
        return self.authority.certificate

    @property
    def messages(self) -> list[str]:
        """The operation of every message that came, in order."""
        return self.switchboard.messages

    @property
    def processes(self) -> int:
        """How many times powershell.exe was started."""
        return self.started.count("powershell.exe")

    @property
    def drive(self) -> Path:
        """The folder that is drive C:."""
        return self.folder / "C"

    @property
    def state(self) -> Host:
        """What cmdlets look at and change."""
        assert self.emulation is not None, "this host was started without cmdlets"
        return self.emulation.state

    @property
    def hns(self) -> Hns:
        """Those who make container networks, and containers on them."""
        from tests.winhost.hns import Hns  # noqa: PLC0415  # as below

        return Hns(self.state)

    def reboot(self) -> None:
        """Connections drop and every process dies; what is on the disk stays."""
        for listener in (self.http, self.https):
            listener.hang_up()
        self.service.end()
        self.powershells.end()
        if self.emulation is not None:
            self.emulation.reboot()

    def client(self, name: str, account: Account) -> Pair:
        """A client certificate that is mapped to the account."""
        account.certificate = name
        return self.authority.client(name)

    def _prepare(self) -> None:
        if not self.accounts:
            self.accounts.append(Account("Administrator", secrets.token_urlsafe(12) + "-1"))
        for folder in _FOLDERS:
            (self.drive / folder).mkdir(parents=True)
        for account in self.accounts:
            (self.drive / "Users" / account.name / "AppData/Local/Temp").mkdir(parents=True)
        (self.folder / "t").mkdir()
        programs.install(self.folder / "programs", self.machine.version)
        self.environment = {**self._environment(), **self.environment}
        self.authority = Authority(self.folder / "pki")
        self.certificate = self.authority.server("localhost", self.machine.name.lower(), "127.0.0.1")
        self.directory = Directory(self.machine.name, self.accounts, domain=self.machine.domain)
        self.service = Service(self.machine.name, self._may_open, self._interpreter, self.quotas)

    def _environment(self) -> dict[str, str]:
        return {
            "WINPS_DRIVE_C": str(self.drive),
            "WINPS_VERSION": f"5.1.{BUILDS[self.machine.version]}.1",
            "COMPUTERNAME": self.machine.name,
            "SystemDrive": "C:",
            "SystemRoot": r"C:\Windows",
            "windir": r"C:\Windows",
            "ProgramData": r"C:\ProgramData",
            "ALLUSERSPROFILE": r"C:\ProgramData",
            "ProgramFiles": r"C:\Program Files",
            "PUBLIC": r"C:\Users\Public",
            "CommonProgramFiles": r"C:\Program Files\Common Files",
            "ProgramFiles(x86)": r"C:\Program Files (x86)",
            "ComSpec": r"C:\Windows\system32\cmd.exe",
            "PATHEXT": ".COM;.EXE;.BAT;.CMD;.VBS;.VBE;.JS;.JSE;.WSF;.WSH;.MSC",
            "WINPS_FIRST_USE": "1",  # every start tells of its progress on stderr, as a user's first does
            "DOTNET_JITMinOpts": "1",  # a process lives for a second: not worth optimised code
            "OS": "Windows_NT",
            "PROCESSOR_ARCHITECTURE": "AMD64",
            "NUMBER_OF_PROCESSORS": str(os.cpu_count() or 1),
            "PATH": str(self.folder / "programs"),
            "TMPDIR": str(self.folder / "t"),
        }

    def _emulate(self, stack: ExitStack) -> None:
        from tests.winhost.emulation import emulating  # noqa: PLC0415  # half a second, only where needed

        machine = self.machine
        state = Host(
            version=machine.version,
            name=machine.name,
            language=machine.language,
            namespace=machine.namespace,
            switch_namespace=machine.switch_namespace,
            bridges=dict(machine.bridges),
            dns=machine.dns,
            drives={"C": self.drive},
            folder=self.folder,
        )
        self.emulation = stack.enter_context(emulating(state, self.accounts))
        self.environment |= self.emulation.environment

    def _interpreter(self, account: Account, variables: Mapping[str, str]) -> Cmd:
        home = rf"C:\Users\{account.name}"
        own = {
            "USERNAME": account.name,
            "USERDOMAIN": self.machine.domain or self.machine.name,
            "USERPROFILE": home,
            "HOMEDRIVE": "C:",
            "HOMEPATH": home[2:],
            "APPDATA": home + r"\AppData\Roaming",
            "LOCALAPPDATA": home + r"\AppData\Local",
            "TEMP": home + r"\AppData\Local\Temp",
            "TMP": home + r"\AppData\Local\Temp",
            "WINPS_ADMIN": "1" if account.administrator else "0",
        }
        environment = {**self.environment, **own}
        return Cmd(environment, dict(variables), self.machine.namespace, self.started, pool=self.powershells)

    def _may_open(self, account: Account) -> bool:
        """WinRM's RootSDDL: administrators only, and a local one counts as such only unfiltered."""
        if self.emulation is None or self.machine.domain:
            return account.administrator
        return account.administrator and self.emulation.full_token(account)

    def _listen(self, stack: ExitStack) -> None:
        tls = auth.tls(self.certificate.certificate, self.certificate.key, self.authority.certificate)
        parts = (self.directory, self.service, self.switchboard)
        port = self.machine.port
        self.http = Listener(self._socket(port and port - 1), *parts)
        self.https = Listener(self._socket(port), *parts, tls=tls, certificate=self.certificate.der())
        stack.callback(self.service.end)
        for listener in (self.http, self.https):
            listener.start()
            stack.callback(listener.close)

    def _socket(self, port: int) -> socket.socket:
        inside = self.machine.listen_namespace
        opened = netns.open_socket(inside, "tcp") if inside else socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("127.0.0.1", port))
        return opened

    def _reap(self, stack: ExitStack) -> None:
        """End shells whose time is over, also when no message comes any more."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.25):
                self.service.expire()

        reaper = threading.Thread(target=work, name="shell expiry", daemon=True)
        reaper.start()
        stack.callback(reaper.join)
        stack.callback(over.set)
