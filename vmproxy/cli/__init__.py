"""The command line: options in, one call, exit code out."""

from __future__ import annotations

import atexit
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
from vmproxy.errors import VmproxyError
from vmproxy.util import crash

_AGAIN_SECONDS = 0.01
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
    _stop_by(signal.SIGTERM, signal.SIGHUP)
    sys.unraisablehook = _unraisable
    try:
        code = cli.main(standalone_mode=False)
    except VmproxyError as exc:
        console.error(exc)
        sys.exit(exit_codes.of_error(exc))
    except click.ClickException as exc:
        console.usage(exc)
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _stopped()
    except Exception as exc:
        console.error(crash.as_error(exc, "continue"))
        sys.exit(ExitCode.FAILED)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)


def _stop_by(*signals: signal.Signals) -> None:
    """They end a run as Ctrl-C does; one that is ignored, as under nohup, stays so."""
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unraisable(fault: sys.UnraisableHookArgs) -> None:
    """A stop that came while a destructor ran comes again a moment later: Python only prints it there
    (docs.python.org: object.__del__), and the run would go on to its end."""
    if issubclass(fault.exc_type, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(fault)


def _stopped() -> NoReturn:
    """Other hosts' threads are not waited for: each change that they make is whole.

    What was registered to run at exit does run: a temporary folder, such as the one with a client
    certificate's key, is removed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    hint = "nothing is left half-written; run the same command again to continue"
    try:
        console.error(VmproxyError("stopped", hint=hint))
        sys.stderr.flush()
    finally:
        atexit._run_exitfuncs()
        os._exit(ExitCode.FAILED)
