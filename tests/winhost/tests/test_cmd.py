from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.winhost.cmd import Cmd, Pipes
from tests.winhost.cmdline import arguments


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "C/Users/me").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/show.exe"
    program.write_text('#!/bin/sh\nfor one; do printf "[%s]" "$one"; done\nprintf "\\r\\n"\n')
    program.chmod(0o755)
    wc = tmp_path / "bin/count.exe"
    wc.write_text("#!/bin/sh\n/usr/bin/wc -c\n")
    wc.chmod(0o755)
    return {
        "WINPS_DRIVE_C": str(tmp_path / "C"),
        "USERPROFILE": r"C:\Users\me",
        "PATH": str(tmp_path / "bin"),
        "Name": "value",
    }


def run(line: str, environment: Mapping[str, str], stdin: bytes = b"") -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        code = Cmd(environment).run(line, Pipes(given.fileno(), out.fileno(), err.fileno()))
        texts = [os.pread(one.fileno(), 100_000, 0).decode() for one in (out, err)]
    return code, texts[0], texts[1]


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("echo hi", "hi\r\n"),
        ("echo  two  blanks ", " two  blanks \r\n"),
        ("echo %NAME% %nothing%", "value %nothing%\r\n"),
        ('echo "a & b"', '"a & b"\r\n'),
        ("echo a ^& b", "a & b\r\n"),
        ("echo a& echo b", "a\r\nb\r\n"),
        ("echo a && echo b", "a \r\nb\r\n"),
        ("nothing 2>nul && echo b", ""),
        ("nothing 2>nul || echo b", "b\r\n"),
        ("echo a 1>&2", ""),
        ("echo a | count", "4\n"),
        ("cmd /c echo inner", "inner\r\n"),
        ('cmd.exe /s /c "echo inner & echo more"', "inner \r\nmore\r\n"),
        ("cmd /c echo inner & echo outer", "inner \r\nouter\r\n"),
        ("cmd /c exit 3 || echo failed", "failed\r\n"),
        ("echo kept> C:\\Users\\me\\x.txt& type C:\\users\\ME\\X.TXT", "kept\r\n"),
        ("echo one>x.txt& echo two>>x.txt& type x.txt", "one\r\ntwo\r\n"),
        ("echo up>..\\..\\..\\..\\x.txt& type C:\\x.txt", "up\r\n"),
        ("echo here>.\\x.txt& type .\\X.TXT", "here\r\n"),
        ("echo spaced>x.txt & type x.txt", "spaced \r\n"),
        ("set fresh=1 & echo ok", "ok\r\n"),
        ('show "a b" c\\d "e\\"f"', '[a b][c\\d][e"f]\r\n'),
        ("SHOW.EXE x", "[x]\r\n"),
        ("echo.", "\r\n"),
    ],
)
def test_a_line_gives_the_output_that_cmd_gives(line: str, output: str, environment: dict[str, str]) -> None:
    assert run(line, environment)[1] == output


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("exit 7", 7, ""),
        ("echo x & exit 7 & echo never", 7, ""),
        ("nothing at all", 1, "'nothing' is not recognized as an internal or external command"),
        ("ls", 1, "'ls' is not recognized"),
        ("bash -c true", 1, "'bash' is not recognized"),
        ("type missing.txt", 1, "The system cannot find the file specified."),
        ("echo a > C:\\none\\x", 1, "The system cannot find the path specified."),
        ("echo a > D:\\x", 1, "The system cannot find the path specified."),
        ("set nothing_like_it", 1, "Environment variable nothing_like_it not defined"),
        ("& echo a", 255, "& was unexpected at this time."),
        ("echo " + "x" * 8187, 1, "The command line is too long."),
    ],
)
def test_a_line_ends_with_the_code_and_words_of_cmd(
    line: str, code: int, said: str, environment: dict[str, str]
) -> None:
    ended, _, error = run(line, environment)
    assert ended == code
    assert said in error


def test_the_longest_line_that_is_taken_has_8191_characters(environment: dict[str, str]) -> None:
    assert run("echo " + "x" * 8186, environment)[1] == "x" * 8186 + "\r\n"


def test_standard_input_reaches_the_program(environment: dict[str, str]) -> None:
    assert run("count", environment, stdin=b"12345")[1].strip() == "5"


def test_set_lists_the_variables_that_begin_so_whatever_their_case(environment: dict[str, str]) -> None:
    assert run("set na", environment)[1] == "Name=value\r\n"


def test_a_variable_set_in_the_line_is_there_for_its_programs(environment: dict[str, str]) -> None:
    assert run("set na", environment)[0] == 0
    assert run("set NAME=other& set na", environment)[1] == "Name=other\r\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a "b c" d', ["a", "b c", "d"]),
        (r"C:\x\ y", ["C:\\x\\", "y"]),
        (r'"C:\x\\" y', ["C:\\x\\", "y"]),
        (r"\"quoted\"", ['"quoted"']),
        ('""', [""]),
        ('"a""b" c', ['a"b', "c"]),
        ('-Command "echo ""hi there"""', ["-Command", 'echo "hi there"']),
        ('a "" b', ["a", "", "b"]),
        ("", []),
    ],
)
def test_arguments_are_cut_as_the_c_runtime_does(text: str, words: list[str]) -> None:
    assert arguments(text) == words
