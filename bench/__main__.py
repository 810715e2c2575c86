"""python -m bench [NAME…]: run all benchmarks, or the named ones.

norun     a run that finds nothing to do, against one bare SSH log-in to the same VM
create    everything from nothing to a routed Service, against the raw boot of the same image to SSH
traffic   throughput and latency through the VM, against the same VM as a bare router
change    a Service made at the API until the host is answered, against one write to the API
boot      raw boot of the default image to SSH, phase by phase (python -m bench.boot compares two images)
bigcluster  a look at 5,000 Nodes and 10,000 Services over HTTPS: seconds and memory, with a limit for each
podroutes routes to 5,000 endpoints in the VM: how soon a change is followed, memory and CPU
flannel   the same over flannel's VXLAN to 500 Nodes
windows   the emulated Windows host: messages, processes and seconds of a run, and how fast an image goes up
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import bigcluster, boot, create, flannel, idle, podroutes, reaction, traffic, windows
from tests.integration.world import World, bring_up
from vmproxy import lab

LAB = "bench"
BENCHMARKS = {
    "create": create.run,
    "norun": idle.run,
    "traffic": traffic.run,
    "change": reaction.run,
}
ALONE = {
    "bigcluster": bigcluster.run,
    "boot": boot.run_alone,
    "flannel": flannel.run,
    "podroutes": podroutes.run,
    "windows": windows.run,
}
"""What makes what it needs by itself."""


def main(words: list[str]) -> None:
    known = [*BENCHMARKS, *ALONE]
    names = words or known
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}")
    embedded = [name for name in names if name in BENCHMARKS]
    if embedded:
        _on_the_embedded_host(embedded)
    for name in (name for name in ALONE if name in names):
        print(f"== {name}", flush=True)
        ALONE[name]()


def _on_the_embedded_host(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        try:
            os.environ["XDG_STATE_HOME"] = (
                f"{folder}/state"  # the world's, also for what is done without a command
            )
            world: World = bring_up(LAB, Path(folder))
            for name in names:
                print(f"== {name}", flush=True)
                BENCHMARKS[name](world)
        finally:
            lab.down(name=LAB, report=lambda text: print(text, file=sys.stderr))


if __name__ == "__main__":
    main(sys.argv[1:])
