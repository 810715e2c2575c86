"""qemu-system-x86_64 of the container tier: see the package's own words."""

from __future__ import annotations

import sys

from tests.container import machine
from tests.container.commandline import NotSupported, parse


def main() -> int:
    try:
        return machine.run(parse(sys.argv[1:]))
    except NotSupported as exc:
        print(f"qemu-system-x86_64: not in a container: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
