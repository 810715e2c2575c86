"""crictl.exe and docker.exe: the containers of the host's runtimes, and commands in them.

Commands in a container are those of its image, run on this machine in the container's network. The words of
errors are from memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.winhost import powershell
from tests.winhost.programs.asking import ask
from tests.winhost.programs.paths import Refused

_OF_THE_HOST = ("WINHOST_ENGINE", "PSModulePath")
"""Variables that a container's programs do not get: its cmdlets are not the host's."""
_FATAL = 'time="2026-01-05T06:30:00Z" level=fatal msg="'
_PS = {
    **dict.fromkeys(("-o", "--output"), "output"),
    **dict.fromkeys(("-s", "--state"), "state"),
    **dict.fromkeys(("-q", "--quiet"), "quiet"),
}
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def crictl(arguments: Sequence[str]) -> str:
    match list(arguments):
        case ["ps", *options]:
            return _listed(_ps_options(options))
        case ["exec", *rest]:
            number, *command = _command(rest)
            found = [one for one in _all("containerd") if number and one["id"].startswith(number)]
            if not found:
                raise Refused(
                    f"{_FATAL}execing command in container: rpc error: code = NotFound desc = an error "
                    f'occurred when try to find container \\"{number}\\": not found"'
                )
            _execute(found[0], command, passes_code=False)
    raise Refused(f"not emulated: crictl {' '.join(arguments)}", 2)


def _ps_options(words: list[str]) -> dict[str, str]:
    """Those of `crictl ps` that are known, by their long names."""
    known, waiting = {}, [part for word in words for part in word.split("=", 1)]
    while waiting:
        name = _PS.get(waiting.pop(0))
        if name is None or (name != "quiet" and not waiting):
            raise Refused(f"not emulated: crictl ps {' '.join(words)}", 2)
        known[name] = "" if name == "quiet" else waiting.pop(0)
    return known


def _listed(options: dict[str, str]) -> str:
    """All containers run."""
    found = _all("containerd") if options.get("state", "running").lower() == "running" else []
    if "quiet" in options:
        return "".join(f"{one['id']}\n" for one in found)
    if options.get("output") != "json":
        raise Refused("not emulated: crictl ps as a table", 2)
    return json.dumps({"containers": [_as_cri(one) for one in found]}, indent=2) + "\n"


def docker(arguments: Sequence[str]) -> str:
    words = list(arguments)
    match words:
        case ["ps", *rest]:
            wanted = [one for one in rest if one != "--no-trunc"]
            template = _template(wanted, words)
            whole = len(wanted) != len(rest)
            return "".join(_formatted(template, one, whole=whole) + "\n" for one in _all("docker"))
        case ["exec", *rest]:
            name, *command = _command(rest)
            found = [
                one for one in _all("docker") if one["name"] == name or (name and one["id"].startswith(name))
            ]
            if not found:
                raise Refused(f"Error response from daemon: No such container: {name}")
            _execute(found[0], command, passes_code=True)
    raise Refused(f"not emulated: docker {' '.join(words)}", 2)


def _all(runtime: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(str(ask("containers", {"Runtime": runtime})[0]["value"]))
    return told


def _command(words: list[str]) -> list[str]:
    """A container and the command in it, without options."""
    if len(words) < 2 or words[0].startswith("-"):
        raise Refused(f"not emulated: exec {' '.join(words)}", 2)
    return words


def _as_cri(one: dict[str, Any]) -> dict[str, Any]:
    labels = {
        "io.kubernetes.container.name": one["name"],
        "io.kubernetes.pod.name": one["pod"],
        "io.kubernetes.pod.namespace": "default",
    }
    return {
        "id": one["id"],
        "podSandboxId": one["id"][::-1],
        "metadata": {"name": one["name"], "attempt": 0},
        "image": {"image": one["image"], "annotations": {}},
        "imageRef": one["image"],
        "state": "CONTAINER_RUNNING",
        "createdAt": "1767594600000000000",
        "labels": labels,
        "annotations": {},
    }


def _template(wanted: list[str], words: list[str]) -> str:
    match wanted:
        case ["--format", template]:
            return template
        case [one] if one.startswith("--format="):
            return one.removeprefix("--format=")
    raise Refused(f"not emulated: docker {' '.join(words)}", 2)


def _formatted(template: str, one: dict[str, Any], *, whole: bool) -> str:
    fields = {
        "ID": one["id"] if whole else one["id"][:12],
        "Names": one["name"],
        "Image": one["image"],
        "State": "running",
        "Status": "Up 2 hours",
        "Networks": one["network"],
    }
    if template in ("json", "{{json .}}"):
        return json.dumps(fields)
    unknown = [name for name in _FIELD.findall(template) if name not in fields]
    if unknown:
        raise Refused(f"not emulated: docker ps with the field {unknown[0]}", 2)
    return _FIELD.sub(lambda found: fields[found[1]], template)


def _execute(one: dict[str, Any], command: list[str], *, passes_code: bool) -> None:
    """Run the command, and end with its code; crictl ends with 1 for any but 0."""
    name = command[0].lower()
    program = name if name.endswith(".exe") else f"{name}.exe"
    if program not in one["programs"]:
        raise Refused(
            f"container {one['id']} encountered an error during hcs::System::CreateProcess: "
            f"{' '.join(command)}: failure in a Windows system call: The system cannot find the file "
            "specified. (0x2)",
            127 if passes_code else 1,
        )
    here = Path(os.environ["PATH"].split(os.pathsep)[0])
    file = powershell.program() if program == "powershell.exe" else here / program
    inside = [
        str(shutil.which("nsenter", path=os.defpath)),
        f"--net=/run/netns/{one['namespace']}",
        str(file),
    ]
    environment = {key: value for key, value in os.environ.items() if key not in _OF_THE_HOST}
    sys.stdout.flush()
    code = os.spawnve(os.P_WAIT, inside[0], [*inside, *command[1:]], environment)
    if code and not passes_code:
        raise Refused(f'{_FATAL}execing command in container: command terminated with exit code {code}"')
    sys.exit(code)
