"""The machine's disk as a mounted file system, and its seed as files. Mounts end with their namespace."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pycdlib

from tests.container.commandline import Disk, NotSupported

_LINUX = {"0FC63DAF-8483-4772-8E79-3D69D8477DE4", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"}
"""Types of a partition with a root file system: Linux data, and x86-64 root."""
_OPENED_SECONDS = 20.0


def raw(disk: Disk, folder: Path) -> tuple[Path, Callable[[], None]]:
    """A file with the disk's bytes, and what ends it. Writes go to the disk itself."""
    if disk.format == "raw":
        return disk.file, lambda: None
    target = folder / "disk"
    target.touch()
    command = ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=file,filename={disk.file}"]
    command += ["--blockdev", f"driver={disk.format},node-name=disk,file=file"]
    command += ["--export", f"type=fuse,id=disk,node-name=disk,mountpoint={target},writable=on"]
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    limit = time.monotonic() + _OPENED_SECONDS
    while target.stat().st_size == 0:
        if daemon.poll() is not None or time.monotonic() > limit:
            raise NotSupported(f"{disk.file} can not be opened as {disk.format}")
        time.sleep(0.01)

    def close() -> None:
        daemon.terminate()
        daemon.wait()

    return target, close


def mount_root(disk: Path, target: Path) -> None:
    """Mount the disk's root partition, to be written."""
    start, size = _root_partition(disk)
    target.mkdir()
    options = f"loop,offset={start},sizelimit={size}"
    subprocess.run(["mount", "-o", options, disk, target], check=True)


def unpack(disc: Path, folder: Path) -> None:
    """The files of a NoCloud seed; none of a disc that is no seed."""
    folder.mkdir()
    volume = pycdlib.PyCdlib()
    volume.open(str(disc))
    try:
        if volume.pvd.volume_identifier.decode().strip().lower() != "cidata":
            return
        for child in volume.list_children(joliet_path="/"):
            if child.is_file():
                name = child.file_identifier().decode("utf-16-be")
                volume.get_file_from_iso(str(folder / name), joliet_path=f"/{name}")
    finally:
        volume.close()


def _root_partition(disk: Path) -> tuple[int, int]:
    """Start and size in bytes."""
    shown = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=False)
    table = json.loads(shown.stdout or "{}").get("partitiontable", {})
    for part in table.get("partitions", []):
        if part["type"].upper() in _LINUX:
            sector = table["sectorsize"]
            return part["start"] * sector, part["size"] * sector
    raise NotSupported(f"{disk} has no partition with a Linux file system")
