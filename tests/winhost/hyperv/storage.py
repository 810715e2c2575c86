"""Where a machine's disks and DVDs are: its controllers and their places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import uuid4

from tests.winhost.state import Host

ControllerType = Literal["IDE", "SCSI"]
LOCATIONS: dict[ControllerType, int] = {"IDE": 2, "SCSI": 64}
CONTROLLERS: dict[ControllerType, int] = {"IDE": 2, "SCSI": 4}


class Place(NamedTuple):
    """A controller and a location on it."""

    controller: ControllerType
    number: int
    location: int


@dataclass
class Drive:
    """`vm` is the machine's id; `path` the full Windows path of its file, None for a drive without one."""

    vm: str
    place: Place
    path: str | None = None
    id: str = field(default_factory=lambda: str(uuid4()))


@dataclass
class HardDisk(Drive):
    minimum_iops: int | None = None
    maximum_iops: int | None = None


@dataclass
class Dvd(Drive):
    pass


@dataclass
class Storage:
    """The part of `Host` about drives. A machine that is not in `scsi` has one SCSI controller."""

    hard_disks: list[HardDisk] = field(default_factory=list)
    dvds: list[Dvd] = field(default_factory=list)
    scsi: dict[str, int] = field(default_factory=dict)


def hard_disks(host: Host, vm: str) -> list[HardDisk]:
    """A machine's, in the order of their places."""
    return sorted((one for one in host.part(Storage).hard_disks if one.vm == vm), key=lambda one: one.place)


def dvds(host: Host, vm: str) -> list[Dvd]:
    return sorted((one for one in host.part(Storage).dvds if one.vm == vm), key=lambda one: one.place)


def scsi_controllers(host: Host, vm: str) -> int:
    return host.part(Storage).scsi.get(vm, 1)


def taken(host: Host, vm: str) -> set[Place]:
    return {one.place for one in hard_disks(host, vm)} | {one.place for one in dvds(host, vm)}


def forget(host: Host, vm: str) -> None:
    """The machine is gone; its files stay."""
    part = host.part(Storage)
    part.hard_disks = [one for one in part.hard_disks if one.vm != vm]
    part.dvds = [one for one in part.dvds if one.vm != vm]
    part.scsi.pop(vm, None)
