"""whoami, hostname, chcp, fsutil and route."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.winhost.programs.asking import ask
from tests.winhost.programs.paths import Refused, local

SPARSE = "user.windows.sparse"
"""The extended attribute of a file that is marked as sparse."""
_FSUTIL = "The following sparse commands are supported: queryflag, setflag"


def whoami(arguments: Sequence[str]) -> str:
    if arguments:
        raise Refused(f"ERROR: Invalid argument/option - '{arguments[0]}'.\nType \"WHOAMI /?\" for usage.")
    return f"{os.environ['USERDOMAIN']}\\{os.environ['USERNAME']}\n".lower()


def hostname(arguments: Sequence[str]) -> str:
    if arguments:
        raise Refused("sethostname: Use the Network Control Panel Applet to set hostname.")
    return f"{os.environ['COMPUTERNAME']}\n"


def chcp(arguments: Sequence[str]) -> str:
    """Tells the console's code page. To change it would need the console."""
    page = os.environ.get("WINPS_CODEPAGE", "437")
    if arguments not in ((), (page,)):
        raise Refused(f"not emulated: chcp {' '.join(arguments)}")
    return f"Active code page: {page}\n"


def fsutil(arguments: Sequence[str]) -> str:
    words = [one.lower() for one in arguments[:2]]
    if words == ["sparse", "queryflag"] and len(arguments) == 3:
        marked = is_sparse(_file(arguments[2]))
        return f"This file is {'set' if marked else 'NOT set'} as sparse\n"
    if words == ["sparse", "setflag"] and len(arguments) in (3, 4):
        _mark(_file(arguments[2]), on=_flag(arguments[3:]))
        return ""
    raise Refused(f"not emulated: fsutil {' '.join(arguments)}\n{_FSUTIL}")


def route(arguments: Sequence[str]) -> str:
    """`route delete NETWORK mask MASK GATEWAY`."""
    words = [one.lower() for one in arguments]
    if len(words) != 5 or (words[0], words[2]) != ("delete", "mask"):
        raise Refused(f"not emulated: route {' '.join(arguments)}")
    asked = {"Network": words[1], "Mask": words[3], "Gateway": words[4]}
    found = ask("route.exe delete", asked)[0]["value"]
    return " OK!\n" if found else "The route deletion failed: Element not found.\n"


PROGRAMS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "whoami.exe": whoami,
    "hostname.exe": hostname,
    "chcp.com": chcp,
    "fsutil.exe": fsutil,
    "route.exe": route,
}


def is_sparse(file: Path) -> bool:
    """Whether `fsutil sparse setflag` marked it."""
    return SPARSE in os.listxattr(file)


def _file(path: str) -> Path:
    found = local(path)
    if not found.exists():
        raise Refused("Error:  The system cannot find the file specified.")
    return found


def _flag(rest: Sequence[str]) -> bool:
    if rest and rest[0] not in ("0", "1"):
        raise Refused(f"not emulated: a flag of {rest[0]}")
    return not rest or rest[0] == "1"


def _mark(file: Path, *, on: bool) -> None:
    if on:
        os.setxattr(file, SPARSE, b"1")
    elif is_sparse(file):
        os.removexattr(file, SPARSE)
