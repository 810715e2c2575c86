"""The first process in the container's namespaces: it boots the disk until the system is switched off.

Run by machine.py with what to boot as JSON, in mount, process and network namespaces of its own: when it
dies, all that runs and all that is mounted goes with it. Before each boot it says `ready` on the socket that
it is given, and goes on when that has been answered: by then its adapters are there.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.container import disks
from tests.container.commandline import Disk

_CLONE_NEWNS = 0x20000
_REBOOT = 133
"""What systemd-nspawn ends with when the system wants to start again (--keep-unit)."""
_WORK = Path("/mnt")
"""Covered by a file system of our own, as /run is: it is in no other mount namespace."""
_SEED = "/var/lib/cloud/seed/nocloud"
_SETTINGS = {
    "/proc/sys/net/netfilter/nf_conntrack_max": "262144",
    "/sys/module/nf_conntrack/parameters/hashsize": "65536",
}
"""What a VM's own kernel lets its system set, and a container's does not: a file in its place."""
_COVER = """set -eu
if [ ! -e "$1" ]; then
    mount -o remount,rw,bind /sys
    mkdir -p "${1%/*}"
    : > "$1"
    mount -o remount,ro,bind /sys
fi
file=$(mktemp /run/setting.XXXXXX)
echo "$2" > "$file"
mount --bind "$file" "$1"
"""


def main(channel: int, wanted: dict[str, str]) -> int:
    _mount_own_sys()
    for folder in (_WORK, Path("/run")):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    disk, close = disks.raw(Disk(Path(wanted["disk"]), wanted["format"]), _WORK)
    _leave_mount_namespace()
    root = _WORK / "root"
    disks.mount_root(disk, root)
    if wanted["seed"]:
        disks.unpack(Path(wanted["seed"]), _WORK / "seed")
    try:
        while _run(channel, _command(wanted, root)) == _REBOOT:
            pass
    finally:
        subprocess.run(["umount", root], check=True)
        close()
    return 0


def _leave_mount_namespace() -> None:
    """What serves the disk stays behind in the old one, without the disk's file system: as the last process
    of a namespace that is killed it would unmount that, wait for its own answer, and block every sync() of
    the machine."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "cannot leave the mount namespace")


def _mount_own_sys() -> None:
    """/sys with the adapters of this network namespace, and the processes of this cgroup namespace.

    Read-only, as systemd-nspawn waits for udev to name the adapters where it is not.
    """
    subprocess.run(["mount", "-t", "sysfs", "-o", "ro", "sysfs", "/sys"], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)


def _run(channel: int, command: Sequence[str | Path]) -> int:
    """One boot, until power off or reboot."""
    os.write(channel, b"ready\n")
    if os.read(channel, 16) != b"connected\n":
        sys.exit("the machine's program is gone")
    process = subprocess.Popen(command)
    threading.Thread(target=_settle, args=(process,), daemon=True).start()
    return process.wait()


def _command(wanted: dict[str, str], root: Path) -> Sequence[str | Path]:
    words = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no"]
    words += ["--private-network", "--console=interactive", "--link-journal=no", "--resolv-conf=off"]
    words += ["--timezone=off", f"--machine={wanted['name']}", f"--directory={root}"]
    words += [f"--network-interface={name}" for name in wanted["adapters"].split()]
    words.append("--bind-ro=/dev/null:/etc/fstab")  # it names the disk by its label, which is no device here
    if wanted["seed"]:
        words.append(f"--bind-ro={_WORK / 'seed'}:{_SEED}")
    return words


def _settle(process: subprocess.Popen[bytes]) -> None:
    """Give the system the settings that its own kernel would have, as soon as it has its /proc."""
    while process.poll() is None:
        init = _init_of(process.pid)
        if init is not None and _has_proc(init):
            for path, value in _SETTINGS.items():
                _cover(init, path, value)
            return
        time.sleep(0.005)


def _init_of(nspawn: int) -> int | None:
    """The container's first process: below the one that systemd-nspawn keeps outside."""
    try:
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
    except OSError:
        return None
    return None


def _has_proc(init: int) -> bool:
    return Path(f"/proc/{init}/root/proc/sys/net/netfilter").is_dir()


def _cover(init: int, path: str, value: str) -> None:
    """From inside its network namespace: /proc/sys/net shows each namespace files of its own."""
    inside = ["nsenter", f"--target={init}", "--mount", "--net", "sh", "-c", _COVER, "sh", path, value]
    subprocess.run(inside, check=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), json.loads(sys.argv[2])))
