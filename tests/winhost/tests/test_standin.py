"""Which stand-in for PowerShell is taken, from real folders and programs; a script plays the .NET SDK."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.winhost import standin
from tests.winhost.standin import Missing, Places

SOURCE = standin.usual().source
OURS = standin.source_hash(SOURCE)
OTHER = "0" * 64
GIVEN = "tools/winps/bin/winps"

DOTNET = """#!/bin/sh
echo "$1" >>{calls}
[ "$1" = --list-sdks ] && echo "{version} [/usr/share/dotnet/sdk]" && exit 0
while [ $# -gt 0 ]; do
  case "$1" in -o) out=$2 ;; -p:SourceHash=*) source=${{1#-p:SourceHash=}} ;; esac
  shift
done
{fails}
sleep 0.2
mkdir -p "$out"
printf '#!/bin/sh\\necho "winps: a stand-in"\\necho "source %s"\\n' "$source" >"$out/winps"
chmod +x "$out/winps"
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Nothing is built, nothing is given, and there is no SDK."""
    environment = {"PATH": str(tmp_path / "no-programs")}
    return Places(SOURCE, tmp_path / "cache", tmp_path / "shared", environment)


def fake_program(path: Path, source: str) -> Path:
    """A program that says it was built from that source."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho 'winps: a stand-in'\necho 'source {source}'\n")
    path.chmod(0o755)
    return path


def with_sdk(places: Places, *, version: str = "10.0.100", fails: str = "") -> Places:
    folder = places.cache.parent / "sdk"
    folder.mkdir()
    text = DOTNET.format(calls=folder / "calls", version=version, fails=fails)
    (folder / "dotnet").write_text(text)
    (folder / "dotnet").chmod(0o755)
    return replace(places, environment={"PATH": f"{folder}:/usr/bin:/bin"})


def builds(places: Places) -> int:
    calls = places.cache.parent / "sdk/calls"
    return calls.read_text().split().count("publish") if calls.exists() else 0


def obtain(places: Places) -> Path:
    return standin.obtain(places, report=lambda _: None)


def test_the_hash_is_the_one_of_source_sh(tmp_path: Path) -> None:
    assert _told_by_source_sh(SOURCE) == OURS
    (tmp_path / "source.sh").write_bytes((SOURCE / "source.sh").read_bytes())
    (tmp_path / "source.sh").chmod(0o755)
    for name in ("a/b", "a-b", "a.b", "B", "bin/left", "obj/left", "a/bin/kept", "ä"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(name)
    assert _told_by_source_sh(tmp_path) == standin.source_hash(tmp_path)


def _told_by_source_sh(folder: Path) -> str:
    return subprocess.run([folder / "source.sh"], capture_output=True, text=True, check=True).stdout.strip()


def test_one_that_was_built_before_comes_first(places: Places) -> None:
    fake_program(places.shared / GIVEN, OURS)
    built = fake_program(places.cache / OURS / "winps", OURS)
    assert obtain(with_sdk(places)) == built
    assert builds(places) == 0


def test_with_the_sdk_it_is_built_once_before_a_given_one_is_taken(places: Places) -> None:
    fake_program(places.shared / GIVEN, OURS)
    places, said = with_sdk(places), []
    program = standin.obtain(places, report=said.append)
    assert program == places.cache / OURS / "winps"
    assert standin.made_from(program) == OURS
    assert any("building the stand-in for PowerShell" in line for line in said)
    assert obtain(places) == program
    assert builds(places) == 1


def test_two_at_the_same_time_build_once(places: Places) -> None:
    places = with_sdk(places)
    with ThreadPoolExecutor(2) as pool:
        programs = set(pool.map(obtain, [places, places]))
    assert programs == {places.cache / OURS / "winps"}
    assert builds(places) == 1


def test_what_an_interrupted_build_left_is_replaced(places: Places) -> None:
    left = places.cache / f"{OURS}.part/left"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    program = obtain(with_sdk(places))
    assert sorted(path.name for path in program.parent.iterdir()) == ["LICENSE-dotnet.txt", "winps"]


def test_a_failing_build_is_named_with_the_last_lines_of_its_log(places: Places) -> None:
    places = with_sdk(places, fails="echo 'error NU1301: no such host'; exit 1")
    with pytest.raises(Missing, match=r"cannot be built, .*\.log ends: error NU1301: no such host"):
        obtain(places)
    assert not (places.cache / OURS).exists()
    assert not (places.cache / f"{OURS}.part").exists()


def test_a_build_that_is_of_another_source_is_not_taken(places: Places) -> None:
    with pytest.raises(Missing, match=f"cannot be built, .*source {OTHER}"):
        obtain(with_sdk(places, fails=f"source={OTHER}"))
    assert not (places.cache / OURS).exists()


def test_when_a_build_fails_a_given_one_of_the_same_source_is_taken(places: Places) -> None:
    given = fake_program(places.shared / GIVEN, OURS)
    said: list[str] = []
    assert standin.obtain(with_sdk(places, fails="exit 1"), report=said.append) == given
    assert any("cannot be built" in line for line in said)


def test_an_sdk_of_another_version_builds_nothing(places: Places) -> None:
    given = fake_program(places.shared / GIVEN, OURS)
    assert obtain(with_sdk(places, version="8.0.400")) == given
    assert builds(places) == 0


def test_a_given_one_of_another_source_is_named_with_both_hashes(places: Places) -> None:
    program = fake_program(places.shared / GIVEN, OTHER)
    with pytest.raises(Missing) as caught:
        obtain(places)
    assert f"{program} was built from source {OTHER}, this checkout has {OURS}" in str(caught.value)
    assert "install the .NET SDK 10" in str(caught.value)


def test_a_given_one_that_does_not_name_its_source_is_not_taken(places: Places) -> None:
    program = fake_program(places.shared / GIVEN, OURS)
    program.write_text("#!/bin/sh\necho 'winps: a stand-in'\n")
    with pytest.raises(Missing, match="from source that it does not name"):
        obtain(places)
    program.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(Missing, match="from source that it does not name"):
        obtain(places)


def test_where_there_is_none_the_ways_to_one_are_named(places: Places) -> None:
    with pytest.raises(Missing) as caught:
        obtain(places)
    assert "dotnet-sdk-10.0" in str(caught.value)
    assert f"{places.shared / GIVEN} is missing (set VMPROXY_SHARED)" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [(OURS, "the Windows host is tested with"), (OTHER, "the Windows host cannot be tested: ")],
)
def test_before_the_tests_it_is_said_what_they_take(places: Places, source: str, said: str) -> None:
    fake_program(places.shared / GIVEN, source)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.winhost.standin"],
        env={
            **places.environment,
            "VMPROXY_SHARED": str(places.shared),
            "XDG_CACHE_HOME": str(places.cache),
        },
        cwd=standin.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said in ran.stderr
