"""vmproxy's command line in a process of its own, forked from one that has imported it already.

A command's start, nearly all of it Python's imports, costs more than what many commands then do. What runs is
the same: the same main(), its own environment, streams and network namespace, its exit code.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vmproxy.cli import main
from vmproxy.util import netns

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        "tests.preloaded",
        "vmproxy.api",
        "vmproxy.cli.doctor",
        "vmproxy.cli.look",
        "vmproxy.cli.work",
        "vmproxy.transport.winrm",
    ]
)


@dataclass(frozen=True)
class Ran:
    """How a command ended; None: it did not end in time, and was killed."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(
    words: Sequence[str], *, env: Mapping[str, str], namespace: str | None, stdin: str, timeout: float
) -> Ran:
    """`env` is the whole environment; `namespace` None: that of this process. `timeout` in seconds."""
    with tempfile.TemporaryDirectory(prefix="preloaded-") as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for stream, text in zip(streams, (stdin, "", ""), strict=True):
            stream.write_text(text)
        process = _FORKED.Process(target=_main, args=(list(words), dict(env), namespace, streams))
        process.start()
        process.join(timeout)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        return Ran(code, *(stream.read_text() for stream in streams[1:]))


def _main(words: list[str], env: dict[str, str], namespace: str | None, streams: list[Path]) -> NoReturn:
    gc.freeze()  # what was imported stays in pages that all processes share
    os.environ.clear()
    os.environ.update(env)
    if namespace is not None:
        netns.enter(namespace)
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY), number)
    sys.stdin = os.fdopen(0)  # multiprocessing has taken another one
    sys.argv = ["vmproxy", *words]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a forked process ends without them
