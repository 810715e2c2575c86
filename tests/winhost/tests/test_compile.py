"""bridge/compile.psm1: what a compiled class computes, and what it refuses. One process for all of it."""

from __future__ import annotations

import json
import subprocess
import tempfile

import pytest

from tests.winhost import powershell
from tests.winhost.modules import BRIDGE
from tests.winhost.presence import require

pytestmark = pytest.mark.winhost

_COMPUTES = [
    ("if ($a -lt 2) { return 'few' } elseif ($a -eq 2) { return 'two' } return 'many'", 1, "few"),
    ("if ($a -lt 2) { return 'few' } elseif ($a -eq 2) { return 'two' } return 'many'", 2, "two"),
    ("if ($a -lt 2) { return 'few' } elseif ($a -eq 2) { return 'two' } return 'many'", 3, "many"),
    ("if ($a -eq 1) { $s = 'one' } else { $s = 'else' } return $s", 2, "else"),
    ("$n = 0; while ($n -lt $a) { $n = $n + 2 } return $n.ToString()", 5, "6"),
    ("$s = ''; foreach ($c in 'abc') { $s = $c.ToString() + $s } return $s", 0, "cba"),
    ("[int] $n = 0; if ([int]::TryParse('7', [ref] $n)) { return $n.ToString() } return ''", 0, "7"),
    ("$t = [Collections.Hashtable]::new(); $t['k'] = $a; return $t['k'].ToString()", 4, "4"),
    ("$b = [Text.StringBuilder]::new('abc'); $b.Length = $a; return $b.ToString()", 2, "ab"),
    ("if ($a -eq 1 -and -not ($a -eq 2)) { return 'yes' } return 'no'", 1, "yes"),
    ("if ($a -eq 1 -and $a -eq 2) { return 'yes' } return 'no'", 1, "no"),
    ("if ($a -eq 1 -or $a -eq 2) { return 'yes' } return 'no'", 2, "yes"),
    ("$o = [object] $a; if ($o -is [int]) { return 'int' } return 'else'", 2, "int"),
    ("if ('A' -ceq 'a') { return 'same' } return 'another'", 0, "another"),
    ("return [string]::Concat([object[]] ('a', $a))", 2, "a2"),
    ("return 'abc'.ToCharArray()[$a].ToString()", 1, "b"),
    ("return [Sample]::Twice($a).ToString()", 4, "8"),
    ("[Sample]::Kept = [long] $a; return [Sample]::Kept.ToString()", 3, "3"),
    ("return ([Guid]::Empty).ToString('N').Substring($a)", 30, "00"),
    ("return [ConsoleColor]::Red.ToString()", 0, "Red"),
]
_REFUSES = [
    ("return $a.Missing", "has no Missing"),
    ("return $a.Missing()", "has no Missing"),
    ("return [Sample]::Missing()", "no such method"),
    ("return $a -like '1'", "-Ilike is not known"),
    ("switch ($a) { 1 { return '' } } return ''", "SwitchStatementAst is not known"),
    ("$l = [long] 1; $i = $a; $i = $l; return ''", "is no int"),
]
_CLASS = (
    "class Sample {{ static [long] $Kept; static [int] Twice([int] $a) {{ return $a + $a }} "
    "static [string] Say([int] $a) {{ {} }} }}"
)
# In a module, as the stand-in takes the types of a later .NET in those only.
_SCRIPT = """
Import-Module '{compiler}'
foreach ($Number in 0..{last}) {{
    $Name = "Made$Number"
    try {{
        $Builder = [Reflection.Emit.PersistedAssemblyBuilder]::new($Name, [object].Assembly)
        Add-CompiledClass $Builder.DefineDynamicModule($Name) "{folder}/$Number.ps1" $Name
        $Builder.Save("{folder}/$Name.dll")
        $Made = [Reflection.Assembly]::LoadFrom("{folder}/$Name.dll").GetType($Name)
        $Said = $Made::Say(({arguments})[$Number])
    }} catch {{ $Said = "refused: $_" }}
    [Console]::Out.WriteLine((ConvertTo-Json $Said -Compress))
}}
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], str]:
    """What each method gave, or why it was refused."""
    require()
    folder = tmp_path_factory.mktemp("compiled")
    asked = [(body, argument) for body, argument, _ in _COMPUTES] + [(body, 0) for body, _ in _REFUSES]
    for number, (body, _) in enumerate(asked):
        (folder / f"{number}.ps1").write_text(_CLASS.format(body))
    (folder / "all.psm1").write_text(
        _SCRIPT.format(
            compiler=BRIDGE / "compile.psm1",
            last=len(asked) - 1,
            folder=folder,
            arguments=", ".join(str(argument) for _, argument in asked),
        )
    )
    lines = _run(f"Import-Module '{folder / 'all.psm1'}'").splitlines()
    return dict(zip(asked, map(json.loads, lines), strict=True))


def _run(command: str) -> str:
    done = subprocess.run(
        [str(powershell.program()), "-NoProfile", "-NonInteractive", "-Command", command],
        env={"HOME": tempfile.gettempdir(), "PATH": "", "PSModulePath": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("body", "argument", "expected"), _COMPUTES)
def test_a_compiled_method_does_what_it_says(
    said: dict[tuple[str, int], str], body: str, argument: int, expected: str
) -> None:
    assert said[body, argument] == expected


@pytest.mark.parametrize(("body", "why"), _REFUSES)
def test_what_the_compiler_does_not_know_it_refuses(
    said: dict[tuple[str, int], str], body: str, why: str
) -> None:
    assert said[body, 0].startswith("refused: line ")
    assert why in said[body, 0]
