"""A guest in a folder: the scripts of templates/guest with their paths below it, among fake programs."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from vmproxy.util import assets

OWNER = pwd.getpwuid(os.getuid()).pw_name
NOBODY_LISTENS = 1
PYTHON = os.path.realpath(sys.executable)
_ABSOLUTE = r'(?m)^([A-Z_]+ = ")/'
_INSIDE = """#!{python} -IS
import os, re, sys
if "-c" not in sys.argv:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
def stay_inside(event, args):
    writes = event == "os.mkdir" or event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
    if writes and isinstance(args[0], str) and not args[0].startswith(({root!r}, os.devnull)):
        raise SystemExit(f"this would write outside of the test's folder: {{args[0]}}")
sys.addaudithook(stay_inside)
text = sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode()
exec(compile(re.sub({absolute!r}, {below!r}, text), "agent", "exec"))
"""


class Machine:
    """`metrics` and `health` are kube-proxy's ports. Nothing but what is in `bin` is on its PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        (self.bin / "python3").symlink_to(PYTHON)
        self.metrics = self.health = NOBODY_LISTENS
        self._calls = root / "calls"

    def path(self, name: str) -> Path:
        """Where "/etc/x" of the guest is; its folder is made."""
        path = self.root / name.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.path(name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def program(self, name: str, script: str) -> None:
        """A shell script; it has sh's built-in commands and the fakes, no others."""
        self.file_in_bin(name, f"#!/bin/sh\n{script}\n")

    def file_in_bin(self, name: str, content: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o755)

    def records(self, name: str, *, says: str = "", then: str = "") -> None:
        """A program that writes down its calls."""
        self.program(
            name,
            f'echo "{name} $*" >> {shlex.quote(str(self._calls))}\nprintf %s {shlex.quote(says)}\n{then}',
        )

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def agents_stay_inside(self) -> None:
        """An agent that is sent as text has its paths below this folder too. A request to write elsewhere
        ends it."""
        below = rf"\g<1>{self.root}/"
        shim = _INSIDE.format(python=PYTHON, absolute=_ABSOLUTE, below=below, root=str(self.root))
        self.file_in_bin("python3", shim)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": str(self.bin)}

    def text(self, name: str) -> str:
        """The script, at home in this folder."""
        text = re.sub(_ABSOLUTE, rf"\g<1>{self.root}/", assets.text(f"guest/{name}"))
        text = re.sub(r"(?m)^METRICS = \d+$", f"METRICS = {self.metrics}", text)
        return re.sub(r"(?m)^HEALTH = \d+$", f"HEALTH = {self.health}", text)

    def module(self, name: str) -> Any:
        """The script imported. What it starts finds its programs by this process's own PATH."""
        self.write("/usr/local/lib/vmproxy/setup.py", self.text("setup.py"))
        sys.modules.pop("setup", None)  # another machine's
        module = ModuleType(Path(name).stem)
        exec(compile(self.text(name), name, "exec"), module.__dict__)
        return module

    def run(
        self, name: str, *words: str, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [PYTHON, "-I", "-S", "-c", self.text(name), *words],
            input=stdin,
            capture_output=True,
            check=False,
            env=self.environment | environment,
        )

    def agent(self, *requests: dict[str, Any], content: bytes = b"") -> list[Any]:
        """The answers of one agent. `content` follows the requests."""
        done = self.run("agent.py", stdin=lines(*requests) + content)
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refusal(self, *requests: dict[str, Any], content: bytes = b"") -> str:
        """The reason that the agent gives when it ends."""
        done = self.run("agent.py", stdin=lines(*requests) + content)
        assert done.returncode != 0
        return done.stderr.decode().splitlines()[-1]


def lines(*requests: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)
