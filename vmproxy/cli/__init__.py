"""The command line: options in, one call, exit code out."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

import vmproxy
from vmproxy import console
from vmproxy.cli.demo import demo
from vmproxy.cli.doctor import doctor
from vmproxy.cli.guest import logs, ssh
from vmproxy.cli.image import image
from vmproxy.cli.lab import lab
from vmproxy.cli.look import status, verify
from vmproxy.cli.site import init, schema
from vmproxy.cli.work import apply, destroy, plan, render
from vmproxy.errors import UsageError, VmproxyError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(vmproxy.__version__, prog_name="vmproxy")
def cli() -> None:
    """Kubernetes Services reachable from Windows hosts, through kube-proxy in a small Linux VM.

    \b
    Exit codes: 0 done or in sync, 1 failed, 2 bad usage or bad site file,
    3 changes pending, 4 verify or doctor found a problem.
    """


for command in (
    init,
    doctor,
    plan,
    apply,
    verify,
    status,
    destroy,
    render,
    ssh,
    logs,
    schema,
    image,
    lab,
    demo,
):
    cli.add_command(command)


def main() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = cli.main(standalone_mode=False)
    except VmproxyError as exc:
        console.error(exc)
        sys.exit(2 if isinstance(exc, UsageError) else 1)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        console.error(
            VmproxyError("stopped", hint="nothing is half-written; the same command goes on from here")
        )
        sys.stderr.flush()
        os._exit(1)  # other hosts' threads are not waited for: each change they make is whole
    except OSError as exc:
        console.error(VmproxyError(f"cannot go on: {exc.strerror or exc}: {exc.filename or ''}".rstrip(": ")))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
