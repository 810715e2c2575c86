"""What the documents say is what the program does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from vmproxy.site.load import load

ROOT = Path(__file__).parents[2]


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


def test_the_picture_of_the_house_is_drawn_from_the_contracts() -> None:
    made = runpy.run_path(str(ROOT / "scripts/house-picture"))
    assert (ROOT / "docs/house.svg").read_text() == made["picture"](), (
        "run scripts/house-picture > docs/house.svg"
    )
    drawn = {room for row in made["layers"]() for room in row}
    rooms = {path.stem for path in (ROOT / "vmproxy").iterdir() if not path.name.startswith("__")}
    assert drawn == rooms - {"data", "_assets"}


def test_the_phases_in_contributing_are_the_phases() -> None:
    code = (ROOT / "vmproxy/engine/phases/__init__.py").read_text()
    (shown,) = re.findall(r"```python\n(PHASES.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert shown.strip() in code
