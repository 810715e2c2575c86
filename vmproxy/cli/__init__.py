"""The command line: options in, one call, exit code out."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

import vmproxy
from vmproxy.cli import console, exit_codes
from vmproxy.cli.exit_codes import ExitCode
from vmproxy.errors import VmproxyError, unexpected

_COMMANDS = {
    "init": "site",
    "doctor": "doctor",
    "plan": "work",
    "apply": "work",
    "verify": "look",
    "status": "look",
    "destroy": "work",
    "render": "work",
    "ssh": "guest",
    "logs": "guest",
    "schema": "site",
    "image": "image",
    "lab": "lab",
    "demo": "demo",
}
"""Each command's module in this package, loaded only when needed, which keeps startup fast."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's signature)
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"vmproxy.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(vmproxy.__version__, prog_name="vmproxy")
def cli() -> None:
    """Make Kubernetes Services reachable from Windows hosts, through kube-proxy in a small Linux VM.

    \b
    Exit codes: 0 done or in sync, 1 failed, 2 bad usage or bad site file,
    3 changes pending, 4 verify or doctor found a problem.
    """


def main() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = cli.main(standalone_mode=False)
    except VmproxyError as exc:
        console.error(exc)
        sys.exit(exit_codes.of_error(exc))
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        hint = "nothing is left half-written; run the same command again to continue"
        console.error(VmproxyError("stopped", hint=hint))
        sys.stderr.flush()
        os._exit(ExitCode.FAILED)  # other hosts' threads are not waited for: each change they make is whole
    except OSError as exc:
        console.error(unexpected(exc))
        sys.exit(ExitCode.FAILED)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
