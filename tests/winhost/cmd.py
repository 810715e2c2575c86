"""A small cmd.exe: what WinRM's shell puts between the client and every program."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.winhost import powershell
from tests.winhost.cmdline import Redirection, Simple, Unexpected, arguments, expand, parse
from tests.winhost.powershell import Starter
from tests.winhost.warm import Alone, Pool, Running

LONGEST = 8191
_POWERSHELL = {"powershell", "powershell.exe"}
_CMD = {"cmd", "cmd.exe"}


class Exit(Exception):
    """`exit` ends the interpreter, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Pipes:
    """File descriptors; whoever opened them closes them."""

    stdin: int
    stdout: int
    stderr: int


@dataclass
class Programs:
    """What runs for one command line; killed together."""

    running: list[Running] = field(default_factory=list)
    killed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, start: Callable[[], Running]) -> int:
        """Start a program and wait for its end; raises Exit when all was killed before."""
        with self.lock:
            if self.killed:
                raise Exit(1)
            program = start()
            self.running.append(program)
        code = program.wait()
        with self.lock:
            self.running.remove(program)
            killed = self.killed
        program.release(killed=killed)
        return code if code >= 0 else 1

    def waits_for_input(self) -> bool:
        """Whether all that runs are kept processes (warm.py), and they wait for input."""
        with self.lock:
            running = list(self.running)
        return bool(running) and all(program.waits_for_input() for program in running)

    def kill(self) -> None:
        """End what runs; nothing is started from now on."""
        with self.lock:
            self.killed = True
            for program in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)


@dataclass
class Cmd:
    """One cmd.exe with its variables; its programs run inside `namespace`."""

    host_env: Mapping[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    namespace: str | None = None
    started: list[str] = field(default_factory=list)
    """The programs that were started, by name: may be shared with other interpreters."""
    pool: Pool = field(default_factory=Pool)
    """Of powershell.exe's processes: the host's."""
    programs: Programs = field(default_factory=Programs)

    def run(self, line: str, pipes: Pipes) -> int:
        """`cmd /c line`; returns its exit code."""
        if len(line) > LONGEST:
            _say(pipes.stderr, "The command line is too long.\r\n")
            return 1
        try:
            return self._line(line, pipes)
        except Exit as exc:
            return exc.code
        except Unexpected as exc:
            _say(pipes.stderr, f"{exc}\r\n")
            return 255

    def waits_for_input(self) -> bool:
        """As Programs says it."""
        return self.programs.waits_for_input()

    def kill(self) -> None:
        """End the programs that run; none starts from now on."""
        self.programs.kill()

    def _line(self, line: str, pipes: Pipes) -> int:
        code = 0
        for step in parse(expand(line, {**self.host_env, **self.variables})):
            if (step.when == "&&" and code) or (step.when == "||" and not code):
                continue
            code = self._pipeline(step.pipeline, pipes)
        return code

    def _pipeline(self, commands: list[Simple], pipes: Pipes) -> int:
        if len(commands) == 1:
            return self._simple(commands[0], pipes)
        read, write = os.pipe()
        left = threading.Thread(target=self._left, args=(commands[0], replace(pipes, stdout=write)))
        left.start()
        try:
            return self._pipeline(commands[1:], replace(pipes, stdin=read))
        finally:
            os.close(read)
            left.join()

    def _left(self, command: Simple, pipes: Pipes) -> None:
        with contextlib.suppress(Exit, BrokenPipeError):  # each side of a pipe is its own cmd.exe
            self._simple(command, pipes)
        os.close(pipes.stdout)

    def _simple(self, command: Simple, pipes: Pipes) -> int:
        with contextlib.ExitStack() as opened:
            try:
                for redirection in command.redirections:
                    pipes = self._redirected(redirection, pipes, opened)
            except OSError:
                _say(pipes.stderr, "The system cannot find the path specified.\r\n")
                return 1
            return self._execute(*command.split(), pipes)

    def _redirected(self, one: Redirection, pipes: Pipes, opened: contextlib.ExitStack) -> Pipes:
        names = ("stdin", "stdout", "stderr")
        if one.to is not None:
            return replace(pipes, **{names[one.fd]: getattr(pipes, names[one.to])})
        if (one.path or "").lower() in {"nul", "nul:"}:
            path, flags = "/dev/null", os.O_RDWR
        else:
            path = str(self._path(one.path or ""))
            kept = os.O_APPEND if one.how == ">>" else os.O_TRUNC
            flags = os.O_RDONLY if one.how == "<" else os.O_WRONLY | os.O_CREAT | kept
        fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
        opened.callback(os.close, fd)
        return replace(pipes, **{names[one.fd]: fd})

    def _execute(self, name: str, rest: str, pipes: Pipes) -> int:
        match name.lower():
            case "":
                return 0
            case "echo":
                return _echo(rest, pipes)
            case "type":
                return self._type(rest, pipes)
            case "set":
                return self._set(rest, pipes)
            case "exit":
                digits = re.search(r"-?\d+", rest)
                raise Exit(int(digits[0]) if digits else 0)
            case other if other in _CMD:
                return self._nested(rest, pipes)
            case other if other in _POWERSHELL:
                return self._powershell(rest, pipes)
        program = self._find(name)
        if program is not None:
            return self._start(program, rest, pipes)
        _say(
            pipes.stderr,
            f"'{name}' is not recognized as an internal or external command,\r\n"
            "operable program or batch file.\r\n",
        )
        return 1

    def _nested(self, rest: str, pipes: Pipes) -> int:
        found = re.match(r"(?:\s*/[a-bd-jl-z](?::\w+)?)*\s*/c\s?(.*)", rest, re.IGNORECASE | re.DOTALL)
        if found is None:
            _say(pipes.stderr, "cmd.exe: an interactive session is not emulated\r\n")
            return 1
        line = found[1]
        if line.startswith('"') and line.rstrip().endswith('"') and len(line.strip()) > 1:
            line = line.strip()[1:-1]
        return replace(self, variables=dict(self.variables)).run(line, pipes)

    def _powershell(self, rest: str, pipes: Pipes) -> int:
        self.started.append("powershell.exe")
        program = powershell.program()
        return self.programs.run(
            lambda: self.pool.start(
                program,
                arguments(rest),
                environment=self._environment(),
                namespace=self.namespace,
                folder=self._here(),
                streams=(pipes.stdin, pipes.stdout, pipes.stderr),
            )
        )

    def _start(self, program: Path, rest: str, pipes: Pipes) -> int:
        self.started.append(program.name)
        starter = Starter(self._environment(), self.namespace, self._here())
        command = [str(program), *arguments(rest)]
        return self.programs.run(lambda: Alone(starter.start(command, **vars(pipes))))

    def _here(self) -> Path | None:
        folder = self._path(".")
        return folder if folder.is_dir() else None

    def _environment(self) -> dict[str, str]:
        return {**self.host_env, **self.variables}

    def _type(self, rest: str, pipes: Pipes) -> int:
        for word in arguments(rest):
            try:
                _write(pipes.stdout, self._path(word).read_bytes())
            except OSError:
                _say(pipes.stderr, "The system cannot find the file specified.\r\n")
                return 1
        return 0

    def _set(self, rest: str, pipes: Pipes) -> int:
        name, assigned, value = rest.strip().strip('"').partition("=")
        known = {key: key for key in self._environment()}
        if assigned:
            key = next((one for one in known if one.upper() == name.upper()), name)
            self.variables[key] = value
            return 0
        shown = sorted(key for key in known if key.upper().startswith(name.upper()))
        for key in shown:
            _say(pipes.stdout, f"{key}={self._environment()[key]}\r\n")
        if not shown:
            _say(pipes.stderr, f"Environment variable {name} not defined\r\n")
        return 0 if shown else 1

    def _path(self, text: str) -> Path:
        r"""C:\x is in the folder that stands for the drive; names are found whatever their case."""
        drive, folder = re.match(r"([A-Za-z]):[\\/]*(.*)", text), None
        if drive:
            folder = self._environment().get(f"WINPS_DRIVE_{drive[1].upper()}")
            if folder is None:
                raise FileNotFoundError(text)
            return _within(Path(folder), drive[2])
        here = self._environment().get("USERPROFILE", "C:\\")
        return self._path(here[:2] + text if text[:1] in {"\\", "/"} else f"{here}\\{text}")

    def _find(self, name: str) -> Path | None:
        wanted = {name.lower() + suffix for suffix in ("", ".exe", ".com")}
        for folder in self._environment().get("PATH", "").split(os.pathsep):
            if folder and Path(folder).is_dir():
                for one in sorted(Path(folder).iterdir()):
                    if one.name.lower() in wanted and os.access(one, os.X_OK):
                        return one
        return None


def _within(root: Path, text: str) -> Path:
    path = root
    for part in re.split(r"[\\/]+", text):
        if part == "..":
            path = path if path == root else path.parent
        if part in {"", ".", ".."}:
            continue
        present = path.iterdir() if path.is_dir() else iter(())
        path = next((one for one in present if one.name.lower() == part.lower()), path / part)
    return path


def _echo(rest: str, pipes: Pipes) -> int:
    if not rest.strip():
        _say(pipes.stdout, "ECHO is on.\r\n")
    elif rest.strip() != ".":
        _say(pipes.stdout, rest[1:] + "\r\n")
    else:
        _say(pipes.stdout, "\r\n")
    return 0


def _say(fd: int, text: str) -> None:
    _write(fd, text.encode())


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
