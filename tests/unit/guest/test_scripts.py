"""What all scripts of the guest have in common: an old Python, its standard library, and a quick start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.unit.guest.machine import Machine
from vmproxy.model import names
from vmproxy.util import assets

SCRIPTS = [name for name in assets.names("guest") if name.endswith(".py")]
STATE = "/run/vmproxy/podroutes.json"
"""Written by one, read by the other."""
QUICK = {
    "__future__",
    "base64",
    "errno",
    "grp",
    "hashlib",
    "json",
    "os",
    "pwd",
    "shutil",
    "socket",
    "stat",
    "subprocess",
    "sys",
    "time",
    "zlib",
}


def imported(nodes: list[ast.AST]) -> set[str]:
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}


def test_there_are_scripts_to_look_at() -> None:
    assert SCRIPTS == [
        "guest/agent.py",
        "guest/flannel.py",
        "guest/keeper.py",
        "guest/podroutes.py",
        "guest/renew.py",
        "guest/setup.py",
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_guests_python_may_be_3_9(name: str) -> None:
    ast.parse(assets.text(name), feature_version=(3, 9))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_needs_nothing_but_the_standard_library(name: str) -> None:
    every = imported(list(ast.walk(ast.parse(assets.text(name)))))
    assert {module.split(".")[0] for module in every} <= sys.stdlib_module_names | {"setup", "flannel"}


def test_the_agent_is_ready_after_loading_these_modules_and_no_others() -> None:
    """It is sent at each run, and each module more takes its time on an emulated CPU."""
    assert imported(list(ast.parse(assets.text("guest/agent.py")).body)) == QUICK


@pytest.mark.parametrize(
    ("script", "constants"),
    [
        (
            "agent.py",
            {
                "SETUP": names.SETUP,
                "SETUP_UNIT": names.SETUP_UNIT,
                "GUARD_UNIT": names.GUARD_UNIT,
                "PROXY_UNIT": names.PROXY_UNIT,
                "UNITS": names.UNITS,
            },
        ),
        ("setup.py", {"GUARD": names.GUARD, "ROUTES": names.ROUTES, "FORWARD": names.FORWARD}),
        ("setup.py", {"ADDRESSES": names.ADDRESSES, "INTERFACE": names.INTERFACE, "LABEL": "eth0:vmproxy"}),
        (
            "keeper.py",
            {
                "PROGRAM": names.PROGRAM,
                "KEEPER": names.KEEPER_CONFIG,
                "GUARD": names.GUARD,
                "ROUTES": names.ROUTES,
                "ADDRESSES": names.ADDRESSES,
                "SYSCTLS": names.SYSCTLS,
                "PROXY_UNIT": names.PROXY_UNIT,
            },
        ),
        (
            "renew.py",
            {
                "CREDENTIAL": names.CREDENTIAL,
                "TOKEN": names.TOKEN,
                "RENEWAL": names.RENEWAL,
                "PROXY_UNIT": names.PROXY_UNIT,
            },
        ),
        ("agent.py", {"UNITS": "/etc/systemd/system", "SYSCTLS": "/proc/sys"}),
        ("agent.py", {"POD_ROUTES_CONFIG": names.POD_ROUTES_CONFIG, "POD_ROUTES": STATE}),
        ("podroutes.py", {"CONFIG": names.POD_ROUTES_CONFIG, "TOKEN": names.TOKEN, "STATE": STATE}),
    ],
)
def test_a_script_finds_what_vmproxy_puts_into_the_guest(script: str, constants: dict[str, str]) -> None:
    names: dict[str, str] = {"__name__": "script"}
    exec(compile(assets.text(f"guest/{script}"), script, "exec"), names)
    assert {name: names[name] for name in constants} == constants


def test_what_kube_proxys_unit_notes_at_its_start_is_what_the_agent_compares(machine: Machine) -> None:
    """The note is written by the unit's own command line; `%%` is systemd's `%`, `%n` the unit's name."""
    uses = [machine.write("/etc/vmproxy/kubeconfig", "{}"), machine.write("/etc/vmproxy/ca.crt", "x")]
    unit = assets.render(f"guest/{names.PROXY_UNIT}.j2", program="x", config="x", uses=map(str, uses))
    (command,) = re.findall(r"(?m)^ExecStartPre=/bin/sh -c '(.*)'$", unit)
    command = command.replace("%%", "%").replace("%n.used", f"{names.PROXY_UNIT}.used")
    note = machine.path(f"/run/vmproxy/{names.PROXY_UNIT}.used")
    subprocess.run(["/bin/sh", "-c", command.replace("/run/vmproxy", str(note.parent))], check=True)
    agent = machine.module("agent.py")
    assert len(note.read_text().splitlines()) == len(uses)
    assert not agent.used_changed(names.PROXY_UNIT)
    machine.write("/etc/vmproxy/ca.crt.part", "x").replace(uses[1])
    assert agent.used_changed(names.PROXY_UNIT)


@pytest.mark.parametrize("name", SCRIPTS)
def test_importing_a_script_does_nothing(machine: Machine, name: str) -> None:
    text = machine.text(name.removeprefix("guest/"))
    code = f"exec(compile({text!r}, 'script', 'exec'), {{'__name__': 'script'}})"
    words = [sys.executable, "-I", "-S", "-c", code, "all"]
    done = subprocess.run(words, input=b"no request\n", capture_output=True, check=False, env={"PATH": ""})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
