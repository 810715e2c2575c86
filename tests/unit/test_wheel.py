"""What is installed has all that it needs, and nothing of the tests."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = [
    f"vmproxy/_assets/{path.relative_to(ROOT)}"
    for folder in ("templates", "cloud-init")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(words, check=True)
    (made,) = folder.glob("vmproxy-*.whl")
    return made


def test_templates_and_cloud_init_are_inside_and_tests_are_not(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert set(SHIPPED) <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_the_installed_package_finds_them(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import vmproxy, vmproxy.util.assets as a; print(vmproxy.__file__); a.text('guest/agent.py');"
        "a.text('cloud-init/user-data')"
    )
    words = [sys.executable, "-c", code]
    ran = subprocess.run(
        words, text=True, capture_output=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(tmp_path))
