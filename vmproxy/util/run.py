"""Run a program on this machine; errors contain its output."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmproxy.errors import ToolFailed

_LAST_LINES = 20


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ok: tuple[int, ...] = (0,),
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end and return its text output.

    `env` None means this process's own. `timeout` is in seconds, None means no limit.
    Raises ToolFailed if the program is missing, too slow, or its exit code is not in `ok`.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            env=env,
            cwd=cwd,
            timeout=timeout,
            text=True,
            errors="replace",  # tools quote what others wrote
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as exc:
        raise ToolFailed(f"cannot run {words[0]}: not installed", hint=f"install {words[0]}") from exc
    except (OSError, ValueError) as exc:
        raise ToolFailed(f"cannot run {words[0]}: {exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise ToolFailed(f"cannot run {words[0]}: timed out after {timeout:.0f} s") from exc
    if done.returncode not in ok:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        cause = lines[-1] if lines else f"exit code {done.returncode}"
        raise ToolFailed(f"{' '.join(words[:4])}: {cause}", details=lines[-_LAST_LINES:-1])
    return done
