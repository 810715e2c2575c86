"""The scripts that are sent to Windows, against the cmdlets of each version; and the lint itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.winhost import lint, standin
from tests.winhost.lint import Allowed
from tests.winhost.presence import require

pytestmark = [pytest.mark.winhost, pytest.mark.usefixtures("stand_in")]
TEMPLATES = standin.ROOT / "templates/powershell"
ALLOWED = (
    Allowed(
        "configure.ps1",
        "Hyper-V\\Set-VM -AutomaticCheckpointsEnabled",
        "(Get-Command Hyper-V\\Set-VM).Parameters.ContainsKey('AutomaticCheckpointsEnabled')",
        "Server 2016 has no automatic checkpoints",
    ),
    *(
        Allowed(script, cmdlet, f"Get-Command {asked}", "only hosts with containers have it")
        for script, cmdlet, asked in (
            ("containers.ps1", "Get-HnsNetwork", "Get-HnsNetwork"),
            ("containers.ps1", "Get-HnsEndpoint", "Get-HnsNetwork"),
            ("doctor.ps1", "Get-HnsNetwork", "Get-HnsNetwork"),
            ("doctor.ps1", "Get-HnsPolicyList", "Get-HnsPolicyList"),
        )
    ),
    Allowed("container.ps1", "& $Tool.Path $Words", "Get-Command $Name", "programs that are looked for"),
    Allowed("container.ps1", "& $Runtime.read", "${function:Get-ContainerOfCri}", "the script's functions"),
    Allowed("fetch.ps1", "curl.exe", "Get-Command curl.exe", "Server 2016 has none"),
    Allowed("lib.ps1", "& $Work", "[scriptblock] $Work", "blocks of the scripts themselves"),
    Allowed("doctor.ps1", "& $Look", "[scriptblock] $Look", "blocks of the script itself"),
    Allowed("resolve.ps1", "& $Look", "[scriptblock] $Look", "blocks of the script itself"),
    Allowed("bootstrap.ps1", "& ([ScriptBlock]::Create($Frame.script))", "Read-Frame", "the other scripts"),
)


def test_every_script_uses_what_each_windows_version_has() -> None:
    scripts = sorted(TEMPLATES.glob("*.ps1"))
    assert len(scripts) > 1
    problems = lint.check(scripts, allowed=ALLOWED)
    assert problems == [], "\n".join(map(str, problems))


@pytest.fixture
def stand_in() -> None:
    require()


@pytest.fixture
def lines(tmp_path: Path) -> list[Path]:
    """Where a test puts its script."""
    return [tmp_path / "script.ps1"]


def _problems(where: list[Path], text: str, *allowed: Allowed, version: str = "2016") -> list[str]:
    where[0].write_text(text)
    found = lint.check(where, versions=[version], allowed=allowed)
    return [f"{one.line}: {one.message}" for one in found]


@pytest.mark.parametrize(
    "text",
    [
        "Hyper-V\\Get-VM -Name 'a' -ErrorAction Stop",
        "Get-NetRoute 10.0.0.0/8 -ifIndex 3 -ea Stop",
        "function Get-Mine($A) { $A }\nGet-Mine -A 1",
        "$A = @{\n  NextHop = 1\n  Confirm = $false\n}\n$A.PolicyStore = 1\nRemove-NetRoute @A",
        "fsutil.exe sparse queryflag C:\\x",
        ". $Session.Lib",
    ],
)
def test_good_scripts_have_no_problems(lines: list[Path], text: str) -> None:
    assert _problems(lines, text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nGet-VMs", "2: Get-VMs does not exist"),
        ("NetTCPIP\\Get-VM", "1: NetTCPIP\\Get-VM does not exist"),
        ("Hyper-V\\Get-Mine", "1: Hyper-V\\Get-Mine does not exist"),
        ("Get-VM | % { 1 }", "1: % does not exist"),
        ("Get-VM -Nmae a", "1: Get-VM has no parameter Nmae"),
        ("New-NetRoute -Dest 10.0.0.0/8", "1: New-NetRoute has no parameter Dest"),
        ("$A = @{ NextHopp = 1 }\nNew-NetRoute @A", "2: New-NetRoute has no parameter NextHopp"),
        ("New-NetRoute @A", "1: New-NetRoute @A: what it holds is not to be seen in the script"),
        ("Get-VM a b c", "1: Get-VM takes 1 arguments without a name, not 3"),
        ("curl.exe -L http://x", "1: curl.exe is no program of the host's"),
        ("netsh.exe dump", "1: netsh.exe is no program of the host's"),
        ("& $Exe -x", "1: a command that is not known by name: & $Exe -x"),
    ],
)
def test_what_windows_would_refuse_is_found(lines: list[Path], text: str, message: str) -> None:
    assert _problems(lines, text) == [message]


@pytest.mark.parametrize("text", ["$A ? 1 : 2", "$A ?? 1", "Get-VM && Get-VM", "${A}?.Name"])
def test_syntax_of_later_versions_is_found(lines: list[Path], text: str) -> None:
    assert _problems(lines, text)


def test_what_some_versions_lack_is_found_for_those_alone(lines: list[Path]) -> None:
    lines[0].write_text("Get-VM | Set-VM -AutomaticCheckpointsEnabled $false")
    found = lint.check(lines)
    assert [one.version for one in found] == ["2016"]


def test_a_program_of_later_versions_is_found_for_the_version_without_it(lines: list[Path]) -> None:
    assert _problems(lines, "curl.exe -L http://x", version="2019") == []
    use = Allowed("script.ps1", "curl.exe", "Get-Command curl.exe", "2016 has none")
    assert _problems(lines, "if (Get-Command curl.exe) { curl.exe -L http://x }", use) == []


def test_a_block_is_run_where_its_text_is_allowed(lines: list[Path]) -> None:
    block = Allowed("script.ps1", "& $Block", "[scriptblock] $Block", "its own")
    assert _problems(lines, "param([scriptblock] $Block)\n& $Block", block) == []
    assert len(_problems(lines, "& $Other", block)) == 2


def test_a_question_before_it_makes_an_exception_and_only_where_it_is_asked(lines: list[Path]) -> None:
    use = "Set-VM -AutomaticCheckpointsEnabled"
    asks = "(Get-Command Set-VM).Parameters.ContainsKey('AutomaticCheckpointsEnabled')"
    exception = Allowed("script.ps1", use, asks, "2016 has none")
    call = "Set-VM -Name a -AutomaticCheckpointsEnabled $false"
    assert _problems(lines, f"if ({asks}) {{ {call} }}", exception) == []
    assert _problems(lines, call, exception) == ["1: Set-VM has no parameter AutomaticCheckpointsEnabled"]


def test_an_exception_that_nothing_needs_is_a_problem(lines: list[Path]) -> None:
    exception = Allowed("script.ps1", "Set-VM -Notes2", "Get-Command", "gone")
    assert _problems(lines, "Get-VM", exception) == ["0: nothing uses Set-VM -Notes2 any more: gone"]
