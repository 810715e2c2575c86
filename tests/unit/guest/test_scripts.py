"""What all scripts of the guest have in common: an old Python, its standard library, and a quick start."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.unit.guest.machine import Machine
from vmproxy.util import assets

SCRIPTS = [name for name in assets.names("guest") if name.endswith(".py")]
QUICK = {
    "__future__",
    "base64",
    "errno",
    "hashlib",
    "json",
    "os",
    "pwd",
    "shutil",
    "socket",
    "subprocess",
    "sys",
    "time",
    "zlib",
}


def imported(nodes: list[ast.AST]) -> set[str]:
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}


def test_there_are_scripts_to_look_at() -> None:
    assert SCRIPTS == ["guest/agent.py", "guest/renew.py", "guest/setup.py"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_guests_python_may_be_3_9(name: str) -> None:
    ast.parse(assets.text(name), feature_version=(3, 9))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_needs_nothing_but_the_standard_library(name: str) -> None:
    every = imported(list(ast.walk(ast.parse(assets.text(name)))))
    assert {module.split(".")[0] for module in every} <= sys.stdlib_module_names


def test_the_agent_is_ready_after_loading_these_modules_and_no_others() -> None:
    """It is sent at each run, and each module more takes its time on an emulated CPU."""
    assert imported(list(ast.parse(assets.text("guest/agent.py")).body)) == QUICK


@pytest.mark.parametrize("name", SCRIPTS)
def test_importing_a_script_does_nothing(machine: Machine, name: str) -> None:
    text = machine.text(name.removeprefix("guest/"))
    code = f"exec(compile({text!r}, 'script', 'exec'), {{'__name__': 'script'}})"
    words = [sys.executable, "-I", "-S", "-c", code, "all"]
    done = subprocess.run(words, input=b"no request\n", capture_output=True, check=False, env={"PATH": ""})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
