"""A guest's SSH connection whose far end is a shell on this machine."""

from __future__ import annotations

import subprocess
from typing import Any, cast

from tests.unit.guest.machine import Machine
from vmproxy.transport.ssh import Ssh


def connect(machine: Machine) -> Ssh:
    """The product's own Ssh, over a transport that runs each command in `machine`."""
    return Ssh(cast(Any, Transport(machine)), "VM a")


class Transport:
    """As much of paramiko's as Ssh uses."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.sessions: list[Channel] = []

    def open_session(self, timeout: float) -> Channel:
        self.sessions.append(Channel(self._machine))
        return self.sessions[-1]

    def is_active(self) -> bool:
        return True

    def close(self) -> None:
        for session in self.sessions:
            session.close()


class Channel:
    """One command, started by exec_command; its stdin breaks when it has ended, as over SSH."""

    closed = False
    _process: subprocess.Popen[bytes]

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def settimeout(self, seconds: float) -> None:
        """Nothing here is silent."""

    def exec_command(self, command: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            env=self._machine.environment,
        )

    def sendall(self, data: bytes) -> None:
        assert self._process.stdin is not None
        left = memoryview(data)
        try:
            while left:
                left = left[self._process.stdin.write(left) :]
        except OSError:
            self.closed = True
            raise

    def recv(self, most: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(most)

    def recv_stderr(self, most: int) -> bytes:
        assert self._process.stderr is not None
        return self._process.stderr.read(most)

    def recv_exit_status(self) -> int:
        return self._process.wait(30)

    def close(self) -> None:
        self.closed = True
        with self._process:
            self._process.kill()
