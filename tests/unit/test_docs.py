"""What the documents say is what the program does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from tests.values import route
from vmproxy.cli.doctor import _json as doctor_json
from vmproxy.cli.look import _checks_json
from vmproxy.cli.work import _plan_json, _result_json
from vmproxy.engine.reconcile import HostResult
from vmproxy.model.steps import Plan, SetRoute
from vmproxy.operations.doctor import Finding
from vmproxy.operations.status import HostStatus
from vmproxy.operations.verify import Check
from vmproxy.site.load import load

ROOT = Path(__file__).parents[2]
ROUTE = route("10.96.0.0/16", "192.168.10.5")
STEP = SetRoute(ROUTE, (), (ROUTE,))
STATUS = HostStatus(
    name="win-01",
    vm={"state": "running", "name": "vmproxy-a-win-01", "address": "192.168.10.5/24"},
    proxy={
        "state": "live",
        "mode": "nftables",
        "version": "v1.36.3",
        "ruleAgeSeconds": 4.2,
        "syncFailures": 0,
    },
    route={"state": "set", "routes": [{"prefix": "10.96.0.0/16", "via": "192.168.10.5"}]},
    credential={"state": "valid", "expires": "2026-11-25T09:39:26+00:00"},
    converged=True,
)
CHECKS = (
    Check("demo/web:80", "tcp", ok=True, hop=None, detail="answered in 1.8 ms"),
    Check("demo/log:514", "udp", ok=None, hop=None, detail="no answer to 3 datagrams"),
    Check("demo/pods:80", "tcp", ok=False, hop="endpoint", detail="the VM does not reach 10.244.1.10:8080"),
)
SHOWN = {
    "plan": _plan_json("win-01", Plan((STEP,))),
    "apply": _result_json(HostResult("win-01", (STEP,))),
    "status": STATUS.as_json(),
    "verify": _checks_json("win-01", CHECKS),
    "doctor": doctor_json(
        "win-01",
        (
            Finding(
                "memory", ok=False, detail="200 MiB free, 512 MiB needed", next_step="set vm.memory to less"
            ),
        ),
    ),
}


@pytest.mark.parametrize("command", SHOWN)
def test_each_json_example_is_what_the_command_writes(command: str) -> None:
    text = (ROOT / "docs/json.md").read_text()
    (example,) = re.findall(rf"```json {command}\n(.*?)```", text, re.DOTALL)
    assert json.loads(example) == {"hosts": [SHOWN[command]]}


def test_the_site_file_in_the_readme_loads(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(name: .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "vmproxy.yaml").write_text(example)
    assert load(tmp_path / "vmproxy.yaml").name == "plant-a"


def test_the_page_of_commands_is_their_help() -> None:
    made = runpy.run_path(str(ROOT / "scripts/commands-doc"))["page"]()
    assert (ROOT / "docs/commands.md").read_text() == made, "run scripts/commands-doc > docs/commands.md"


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^## vmproxy (\S+)$", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    assert not [name for name in commands if f"vmproxy {name}" not in text]


@pytest.mark.parametrize(
    "page", [*sorted(path.name for path in (ROOT / "docs").glob("*.md")), "../README.md"]
)
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / "docs" / page
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", path.read_text())
    targets = [first or second for first, second in links]
    assert not [target for target in targets if "://" not in target and not (path.parent / target).exists()]
