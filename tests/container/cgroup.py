"""The container's processes as one cgroup: what ends them all, and says when they are gone.

Run as a script with a cgroup's folder it clears up what a killed program left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

_PATIENCE_SECONDS = 30.0
_ROOT = Path("/sys/fs/cgroup")


def end(folder: Path) -> None:
    """Kill every process in it, wait until they are gone, and remove it. Raises TimeoutError."""
    if not folder.is_dir():
        return
    (folder / "cgroup.kill").write_text("1")
    limit = time.monotonic() + _PATIENCE_SECONDS
    while not _removed(folder):
        if time.monotonic() > limit:
            raise TimeoutError(f"processes of {folder} do not end")
        time.sleep(0.01)


def _removed(folder: Path) -> bool:
    """The folders of a cgroup can be removed from the inside out, once nothing runs in them."""
    try:
        for path, _, _ in os.walk(folder, topdown=False):
            Path(path).rmdir()
    except FileNotFoundError:
        return not folder.is_dir()
    except OSError:
        return False
    return True


def name(monitor: Path) -> str:
    """Of a machine's cgroup: one machine has one monitor."""
    return f"vmproxy-test-{sha256(str(monitor).encode()).hexdigest()[:16]}"


def mount() -> Path:
    """The unified hierarchy, for this process's mount namespace: `ip netns exec` has none."""
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", _ROOT], check=True)
    return _ROOT


if __name__ == "__main__":
    end(Path(sys.argv[1]))
