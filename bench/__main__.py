"""python -m bench [NAME…]: run all benchmarks, or the named ones.

norun     a run that finds nothing to do, against one bare SSH log-in to the same VM
create    everything from nothing to a routed Service, against the raw boot of the same image to SSH
traffic   throughput and latency through the VM, against the same VM as a bare router
change    a Service made at the API until the host is answered, against one write to the API
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import create, idle, reaction, traffic
from tests.integration.world import World, bring_up
from vmproxy import lab

LAB = "bench"
BENCHMARKS = {
    "create": create.run,
    "norun": idle.run,
    "traffic": traffic.run,
    "change": reaction.run,
}


def main(words: list[str]) -> None:
    names = [word for word in words if not word.startswith("-")] or list(BENCHMARKS)
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        raise SystemExit(
            f"no benchmark named {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}"
        )
    with TemporaryDirectory() as folder:
        try:
            world: World = bring_up(LAB, Path(folder))
            for name in names:
                print(f"== {name}", flush=True)
                BENCHMARKS[name](world)
        finally:
            lab.down(name=LAB, report=lambda text: print(text, file=sys.stderr))


if __name__ == "__main__":
    main(sys.argv[1:])
