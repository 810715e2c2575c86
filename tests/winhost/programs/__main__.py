"""Runs one of the host's programs: its name, the Windows version, then its own arguments."""

from __future__ import annotations

import sys

from tests.winhost.programs import NOT_EMULATED, containers, curl, icacls, small
from tests.winhost.programs.paths import Refused


def main(name: str, version: str, *arguments: str) -> int:
    try:
        if name in NOT_EMULATED:
            raise Refused(f"not emulated: {name} {' '.join(arguments)}", 2)
        if name == "curl.exe":
            curl.run(version, arguments[0], arguments[1:])
        elif name == "icacls.exe":
            sys.stdout.write(icacls.run(arguments))
        elif name == "crictl.exe":
            sys.stdout.write(containers.crictl(arguments))
        elif name == "docker.exe":
            sys.stdout.write(containers.docker(arguments))
        else:
            sys.stdout.write(small.PROGRAMS[name](arguments))
    except Refused as exc:
        print(exc.message, file=sys.stderr)
        return exc.code
    return 0


sys.exit(main(*sys.argv[1:]))
