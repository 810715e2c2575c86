from __future__ import annotations

import pytest

from vmproxy.transport.clixml import parse, unescape

OPEN = '<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
PROGRESS = (
    '<Obj S="progress" RefId="0"><TN RefId="0"><T>System.Management.Automation.PSCustomObject</T>'
    '<T>System.Object</T></TN><MS><I64 N="SourceId">1</I64><PR N="Record"><AV>Preparing modules for first '
    "use.</AV><AI>0</AI><Nil /><PI>-1</PI><PC>-1</PC><T>Completed</T><SR>-1</SR><SD> </SD></PR></MS></Obj>"
)
ERROR = '<S S="Error">kaputt : a_x000D__x000A_</S><S S="Error">    + CategoryInfo_x000D__x000A_</S>'
HEADER = "#< CLIXML\r\n"


@pytest.mark.parametrize(
    ("stderr", "streams"),
    [
        ("", {}),
        (f"{HEADER}{OPEN}{PROGRESS}</Objs>", {}),
        (f"{HEADER}{OPEN}{ERROR}</Objs>", {"error": "kaputt : a\r\n    + CategoryInfo\r\n"}),
        (
            f'{HEADER}{OPEN}<S S="warning">w</S><S S="verbose">v</S><S S="Error">e</S></Objs>',
            {"warning": "w", "verbose": "v", "error": "e"},
        ),
        (
            f'{HEADER}{OPEN}<S S="Error">one</S></Objs>{HEADER}{OPEN}<S S="Error">two</S></Objs>',
            {"error": "onetwo"},
        ),
        ("The system cannot find the path.\r\n", {"plain": "The system cannot find the path."}),
        (f"before\r\n{HEADER}{OPEN}{PROGRESS}</Objs>after", {"plain": "before\nafter"}),
    ],
)
def test_whole_documents_are_sorted_into_streams(stderr: str, streams: dict[str, str]) -> None:
    assert parse(stderr.encode()) == streams


def test_text_of_a_program_in_the_middle_of_a_document_is_plain() -> None:
    stderr = f"{HEADER}{OPEN}{PROGRESS}curl: (7) Failed\r\n{ERROR}</Objs>"
    assert parse(stderr.encode()) == {
        "plain": "curl: (7) Failed",
        "error": "kaputt : a\r\n    + CategoryInfo\r\n",
    }


def test_a_killed_process_leaves_what_was_complete() -> None:
    assert parse(f"{HEADER}{OPEN}{PROGRESS}".encode()) == {}
    assert parse(f"{HEADER}{OPEN}{PROGRESS}last words".encode()) == {"plain": "last words"}
    cut = f'{HEADER}{OPEN}<S S="Error">whole</S><S S="Error">half of i'
    assert parse(cut.encode()) == {"error": "whole", "plain": '<S S="Error">half of i'}


@pytest.mark.parametrize("stderr", [f"{OPEN}<S S='Error'>&nosuch;</S></Objs>", "<Objs", f"{OPEN}<<</Objs>"])
def test_what_is_damaged_is_kept_as_it_is(stderr: str) -> None:
    assert parse(stderr.encode()) == {"plain": stderr}


def test_every_cut_of_a_document_is_read_without_an_error() -> None:
    whole = f"{HEADER}{OPEN}{PROGRESS}{ERROR}</Objs>".encode()
    for length in range(len(whole)):
        parse(whole[:length])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a_x000A_b", "a\nb"),
        ("_x005F_x000A_", "_x000A_"),
        ("_xD83D__xDE00_", "😀"),
        ("x_y_x00", "x_y_x00"),
    ],
)
def test_escapes_are_undone(text: str, meant: str) -> None:
    assert unescape(text) == meant
