"""win-bridge itself as the reader of a CNI configuration: plugin/ is compiled against its own packages.

They are for Windows only; what reads the configuration is compiled for this machine too, from a vendored copy
of the modules. Nothing of it is changed except two files' condition on the system, and one question to HNS
(whether it can do direct server return) is answered yes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmproxy.binaries import source

_HERE = Path(__file__).parent / "plugin"
_MINUTES = 15 * 60.0
"""Nothing is cached at first, and the packages are compiled for two systems."""
_PLUGINS = "github.com/containernetworking/plugins"
PROGRAMS = (f"{_PLUGINS}/plugins/main/windows/win-bridge", f"{_PLUGINS}/plugins/ipam/host-local")


class Refused(Exception):
    """Its own words."""


def build(folder: Path) -> Path:
    """The reader for this machine. `folder` is an empty one."""
    module = folder / "module"
    shutil.copytree(_HERE, module)
    _go(module, "mod", "vendor")
    packages = module / "vendor/github.com"
    config = packages / "containernetworking/plugins/pkg/hns/netconf_windows.go"
    config.rename(config.with_name("netconf.go"))
    policies = packages / "Microsoft/hcsshim/hcn/hcnpolicy.go"
    unbound = policies.read_text().replace("//go:build windows\n", "", 1)
    policies.write_text(unbound + "\nfunc DSRSupported() error { return nil }\n")
    program = folder / "reader"
    _go(module, "build", "-mod=vendor", "-trimpath", "-o", str(program), ".")
    return program


def compile_for_windows(folder: Path) -> None:
    """The reader against the unchanged packages, and the plugin with its IPAM plugin. Raises Refused."""
    system = {"GOOS": "windows", "GOARCH": "amd64"}
    _go(_HERE, "vet", "-mod=readonly", ".", **system)
    _go(_HERE, "build", "-mod=readonly", "-trimpath", "-o", str(folder), ".", *PROGRAMS, **system)


def read(program: Path, conflist: Mapping[str, Any]) -> dict[str, Any]:
    """What the plugin understands of it. Raises Refused."""
    answer: dict[str, Any] = json.loads(_run([str(program)], json.dumps(conflist)))
    return answer


def _go(folder: Path, *words: str, **settings: str) -> None:
    go, environment = source._go((1, 26), report=print)
    _run([go, *words], cwd=folder, env={**environment, **settings})


def _run(command: list[str], given: str = "", **options: Any) -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=_MINUTES, check=False, **options
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout
