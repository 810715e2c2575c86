"""The stand-in for Windows PowerShell (winps/): built before, built now, or given, in this order.

`python -m tests.winhost.standin` says which one the tests take, and builds it where that is possible.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import filelock

from vmproxy.util import paths

ROOT = Path(__file__).resolve().parents[2]
_ALONE = {
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    "DOTNET_NOLOGO": "1",
    "MSBUILDDISABLENODEREUSE": "1",
    "UseSharedCompilation": "false",
}
"""No process of the SDK's outlives the build."""
_LAST_LINES = 5

Report = Callable[[str], None]


class Missing(Exception):
    """Something that the emulated host needs is not installed."""


@dataclass(frozen=True)
class Places:
    """`source` has src/ and build.sh; `environment` is the build's, and its PATH leads to dotnet."""

    source: Path
    cache: Path
    shared: Path
    environment: Mapping[str, str]


def usual() -> Places:
    shared = Path(os.environ.get("VMPROXY_SHARED", ROOT.parent / "shared"))
    return Places(ROOT / "tests/winhost/winps", paths.cache_dir("winps"), shared, os.environ)


def obtain(places: Places, *, report: Report) -> Path:
    """The program, made from this very source; Missing says of each way why it leads to none."""
    wanted = source_hash(places.source)
    built = places.cache / wanted / "winps"
    if built.exists():
        return built
    problems = []
    for way in (partial(_build, places, wanted, report), partial(_take_given, places, wanted)):
        try:
            return way()
        except Missing as exc:
            problems.append(str(exc))
    raise Missing("; ".join(problems))


def source_hash(folder: Path) -> str:
    """As source.sh prints it: of the names and hashes of the files in src/."""
    source = folder / "src"
    names = (path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    kept = sorted(f"./{name}".encode() for name in names if not name.startswith(("bin/", "obj/")))
    whole = hashlib.sha256()
    for name in kept:
        one = hashlib.sha256((source / os.fsdecode(name)).read_bytes()).hexdigest()
        whole.update(b"%s  %s\n" % (one.encode(), name))
    return whole.hexdigest()


def made_from(program: Path) -> str | None:
    """The hash of the source that it says it was built from; None when it says nothing of that."""
    command = [program, "--about"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    word, _, source = done.stdout.strip().rpartition("\n")[2].partition(" ")
    return source if word == "source" else None


def _build(places: Places, wanted: str, report: Report) -> Path:
    if not _has_sdk(places.environment):
        raise Missing(
            "the stand-in for PowerShell cannot be built: the .NET SDK 10 (dotnet-sdk-10.0) is not installed"
        )
    target = places.cache / wanted
    places.cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(places.cache / f"{wanted}.lock"):
        if not target.exists():
            report(f"building the stand-in for PowerShell into {target}, once")
            _make(places, wanted, report).rename(target)
            report("the stand-in for PowerShell is built")
    return target / "winps"


def _make(places: Places, wanted: str, report: Report) -> Path:
    """A folder with the whole program; what was left by a build that was interrupted is replaced."""
    folder, log = places.cache / f"{wanted}.part", places.cache / f"{wanted}.log"
    with log.open("wb") as out:
        done = subprocess.run(
            [places.source / "build.sh", folder],
            env={**places.environment, **_ALONE},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode == 0 and made_from(folder / "winps") == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    last = " | ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    why = f"the stand-in for PowerShell cannot be built, {log} ends: {last}"
    report(why)
    raise Missing(why)


def _has_sdk(environment: Mapping[str, str]) -> bool:
    dotnet = shutil.which("dotnet", path=environment.get("PATH", ""))
    if dotnet is None:
        return False
    listed = subprocess.run(
        [dotnet, "--list-sdks"], env={**environment}, capture_output=True, text=True, check=False
    )
    return any(line.startswith("10.") for line in listed.stdout.splitlines())


def _take_given(places: Places, wanted: str) -> Path:
    program = places.shared / "tools/winps/bin/winps"
    if not os.access(program, os.X_OK):
        raise Missing(f"{program} is missing (set VMPROXY_SHARED)")
    told = made_from(program)
    if told != wanted:
        raise Missing(
            f"{program} was built from source {told or 'that it does not name'}, this checkout has {wanted}: "
            "have it built from this checkout, or install the .NET SDK 10"
        )
    return program


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    try:
        program = obtain(usual(), report=tell)
    except Missing as exc:
        tell(f"the Windows host cannot be tested: {exc}")
    else:
        tell(f"the Windows host is tested with {program}")


if __name__ == "__main__":
    main()
