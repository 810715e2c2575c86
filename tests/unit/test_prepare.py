"""scripts/prepare: the folder on stdout, what happens on stderr. Its pip replays a recorded run."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PREPARE = Path(__file__).parents[2] / "scripts/prepare"

PIP = """Obtaining file:///vmproxy
  Installing build dependencies: started
  Installing build dependencies: finished with status 'done'
Collecting click<9,>=8.1 (from vmproxy==0.1.0)
  Downloading click-8.5.1-py3-none-any.whl (126 kB)
Collecting qemu.qmp<0.1,>=0.0.3 (from vmproxy==0.1.0)
Collecting krb5>=0.3.0 (from pyspnego[kerberos]<0.13,>=0.11->vmproxy==0.1.0)
  Downloading krb5-0.10.0.tar.gz (237 kB)
  Installing build dependencies: started
  Getting requirements to build wheel: started
  Getting requirements to build wheel: finished with status 'done'
Requirement already satisfied: setuptools
Building wheels for collected packages: krb5
  Building wheel for krb5 (pyproject.toml): started
  Building wheel for krb5 (pyproject.toml): still running...
  Building wheel for krb5 (pyproject.toml): finished with status 'done'
Successfully built krb5
Installing collected packages: click, krb5
Successfully installed click-8.5.1 krb5-0.10.0
"""
SAID = """prepare:   getting what builds it
prepare: getting click
prepare: getting qemu.qmp
prepare: getting krb5
prepare:   getting what builds it
prepare:   reading its sources
prepare: building krb5, which compiles C: about a minute
prepare:   still building krb5
prepare: installing them
"""
PYTHON = """#!/bin/sh
case "$2" in
"") echo "Python 3.11.7" ;;
venv) mkdir -p "$3/bin" && cp {folder}/pip "$3/bin/pip" ;;
esac
"""
FAKE_PIP = """#!/bin/sh
echo "$@" >>{folder}/calls
case "$*" in *"-r "*) cat {folder}/recorded ;; esac
[ ! -e {folder}/broken ] || {{ echo "error: no compiler" >&2; exit 1; }}
"""
DPKG_QUERY = """#!/bin/sh
echo "$4" >>{folder}/packages
echo installed
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs in place of Debian's: every package is installed."""
    (tmp_path / "recorded").write_text(PIP)
    programs = {"python3": PYTHON, "pip": FAKE_PIP, "dpkg-query": DPKG_QUERY}
    for name, text in programs.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    return tmp_path


def prepare(folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run([PREPARE, what], env=environment, capture_output=True, text=True, check=False)


def test_it_says_what_it_does_while_the_folder_alone_is_on_stdout(folder: Path) -> None:
    ran = prepare(folder, "dev")
    (made,) = (folder / "cache/vmproxy/venv").iterdir()
    assert ran.stdout == f"{made}\n"
    assert ran.stderr == f"prepare: making a Python environment in {made}\n{SAID}"


def test_what_only_tests_need_is_not_installed_to_run(folder: Path) -> None:
    prepare(folder, "run")
    assert not {"gcc", "krb5-kdc"} & set((folder / "packages").read_text().split())
    prepare(folder, "dev")
    assert {"gcc", "krb5-kdc"} <= set((folder / "packages").read_text().split())
    run, itself, dev, again = (folder / "calls").read_text().splitlines()
    assert run.endswith("--require-hashes -r requirements/run.txt")
    assert dev.endswith("--require-hashes -r requirements/dev.txt")
    assert itself == again
    assert itself.endswith("--no-deps --no-build-isolation -e .")


def test_a_second_time_nothing_is_installed(folder: Path) -> None:
    first, second = prepare(folder, "run"), prepare(folder, "run")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert len((folder / "calls").read_text().splitlines()) == 2


def test_an_installation_that_fails_says_why_and_is_made_again(folder: Path) -> None:
    (folder / "broken").touch()
    ran = prepare(folder, "dev")
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert "error: no compiler" in ran.stderr
    (folder / "broken").unlink()
    assert prepare(folder, "dev").returncode == 0


LOCKS = sorted((PREPARE.parents[1] / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_locked_with_hashes_and_no_registry_is_named(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z])", lock.read_text())[1:]
    assert len(entries) > 20
    assert not [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_what_is_locked_is_what_the_package_allows(lock: Path) -> None:
    locked = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", lock.read_text(), re.MULTILINE)
    }
    project = tomllib.loads((PREPARE.parents[1] / "pyproject.toml").read_text())["project"]
    extras = ("unit", "dev") if lock.stem == "dev" else ()
    named = [
        *project["dependencies"],
        *(one for extra in extras for one in project["optional-dependencies"][extra]),
    ]
    for requirement in (Requirement(one) for one in named if one != "vmproxy[unit]"):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement
