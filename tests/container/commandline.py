"""QEMU's command line as data: what the product and the emulated Windows host write, and nothing else."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class NotSupported(Exception):
    """A machine that only QEMU can run."""


@dataclass(frozen=True)
class Disk:
    """A disk's file in one of QEMU's formats."""

    file: Path
    format: str


@dataclass(frozen=True)
class Adapter:
    """`tap` is what QEMU opens at the switch; None: an adapter without a cable."""

    mac: str
    tap: str | None


@dataclass(frozen=True)
class Console:
    """The first serial port. `socket` is where others connect; None: nothing but the log is kept."""

    log: Path
    socket: Path | None


@dataclass(frozen=True)
class Machine:
    """One virtual machine. `pidfile` None: it stays in the foreground."""

    name: str
    disk: Disk
    seed: Path | None
    adapters: tuple[Adapter, ...]
    console: Console | None
    monitor: Path
    pidfile: Path | None


Options = dict[str, str]


def parse(words: Sequence[str]) -> Machine:
    """Raises NotSupported, with what it is, for anything that is not a machine of ours."""
    told = _parser().parse_args(words)
    drives = [_options(text) for text in told.drive]
    disks = [drive for drive in drives if drive.get("if") != "pflash" and "readonly" not in drive]
    if len(disks) != 1 or told.name is None or told.qmp is None:
        raise NotSupported("a machine with one disk, a name and a monitor is needed")
    if told.daemonize != (told.pidfile is not None):
        raise NotSupported("-daemonize goes with -pidfile")
    seeds = [drive["file"] for drive in drives if "readonly" in drive and drive.get("if") != "pflash"]
    return Machine(
        name=told.name.replace(",,", ","),
        disk=Disk(Path(disks[0]["file"]), disks[0]["format"]),
        seed=next((Path(file) for file in seeds), None),
        adapters=_adapters(told),
        console=_console(told),
        monitor=Path(_options(told.qmp)["unix"]),
        pidfile=Path(told.pidfile) if told.pidfile else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="qemu-system-x86_64", add_help=False, allow_abbrev=False)
    for flag in ("daemonize", "nodefaults", "no-user-config"):
        parser.add_argument(f"-{flag}", action="store_true")
    for option in ("name", "machine", "accel", "cpu", "smp", "m", "uuid", "display", "rtc", "qmp", "pidfile"):
        parser.add_argument(f"-{option}")
    for option in ("drive", "device", "netdev", "chardev", "serial", "object"):
        parser.add_argument(f"-{option}", action="append", default=[])
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise NotSupported(message)


def _options(text: str) -> Options:
    """`a,b=c,,d` as QEMU reads it: {"": "a", "b": "c,d"}; `unix:x` counts as `unix=x`."""
    parts = [part.replace(",,", ",") for part in re.split(r"(?<!,),(?!,)", text)]
    first = parts[0].replace("unix:", "unix=", 1)
    found = {} if "=" in first else {"": first}
    for part in [first, *parts[1:]]:
        name, equals, value = part.partition("=")
        if equals:
            found[name] = value
    return found


def _adapters(told: argparse.Namespace) -> tuple[Adapter, ...]:
    cables = {one["id"]: one for one in map(_options, told.netdev)}
    cards = [card for card in map(_options, told.device) if card.get("") == "virtio-net-pci"]
    return tuple(Adapter(card["mac"], _tap(cables.get(card.get("netdev", "")))) for card in cards)


def _tap(cable: Options | None) -> str | None:
    if cable is None:
        return None
    if cable.get("") != "tap":
        raise NotSupported(f"-netdev {cable.get('')}")
    return cable["ifname"]


def _console(told: argparse.Namespace) -> Console | None:
    if not told.chardev:
        return None
    first = _options(told.chardev[0])
    if first[""] == "file":
        return Console(Path(first["path"]), None)
    return Console(Path(first["logfile"]), Path(first["path"]))
