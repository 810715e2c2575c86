"""Drives and controllers as the objects that cmdlets give."""

from __future__ import annotations

from typing import Any

from tests.winhost.engine import Enum, Item, UInt64
from tests.winhost.hyperv import starting, storage
from tests.winhost.hyperv.items import SPACE, owner
from tests.winhost.hyperv.model import VM
from tests.winhost.hyperv.storage import Dvd, HardDisk, Place
from tests.winhost.state import Host


def _drive(host: Host, vm: VM, kind: str, place: Place, letter: str) -> dict[str, Any]:
    at = f"{place.controller} controller number {place.number} at controller location {place.location}"
    controller = starting.controller_id(vm, place)
    return {
        **owner(host, vm),
        "Name": f"{kind} on {at}",
        "Id": f"Microsoft:{vm.id.upper()}\\{controller}\\{place.number}\\{place.location}\\{letter}",
        "ControllerType": Enum("ControllerType", place.controller),
        "ControllerNumber": place.number,
        "ControllerLocation": place.location,
        "PoolName": "Primordial",
    }


def disk_item(host: Host, vm: VM, disk: HardDisk) -> Item:
    properties = {
        **_drive(host, vm, "Hard Drive", disk.place, "D"),
        "Path": disk.path,
        "DiskNumber": None,
        "MaximumIOPS": UInt64(disk.maximum_iops or 0),
        "MinimumIOPS": UInt64(disk.minimum_iops or 0),
        "QoSPolicyID": None,
        "SupportPersistentReservations": False,
        "WriteHardeningMethod": Enum("CacheAttributes", "Default"),
    }
    return Item(f"{SPACE}.HardDiskDrive", disk.id, properties)


def dvd_item(host: Host, vm: VM, dvd: Dvd) -> Item:
    properties = {
        **_drive(host, vm, "DVD Drive", dvd.place, "D"),
        "Path": dvd.path,
        "DvdMediaType": Enum("DvdMediaType", "ISO" if dvd.path else "None"),
    }
    return Item(f"{SPACE}.DvdDrive", dvd.id, properties)


def scsi_item(host: Host, vm: VM, number: int) -> Item:
    return _controller(host, vm, Place("SCSI", number, 0), "VMScsiController", "SCSI Controller")


def ide_item(host: Host, vm: VM, number: int) -> Item:
    return _controller(host, vm, Place("IDE", number, 0), "VMIdeController", f"IDE Controller {number}")


def _controller(host: Host, vm: VM, place: Place, kind: str, name: str) -> Item:
    """Its id is what the drives' cmdlets take apart again."""
    disks = [
        disk_item(host, vm, one) for one in storage.hard_disks(host, vm.id) if one.place[:2] == place[:2]
    ]
    dvds = [dvd_item(host, vm, one) for one in storage.dvds(host, vm.id) if one.place[:2] == place[:2]]
    properties = {
        **owner(host, vm),
        "Name": name,
        "Id": f"Microsoft:{vm.id.upper()}\\{starting.controller_id(vm, place)}",
        "ControllerNumber": place.number,
        "Drives": [*disks, *dvds],
        "IsTemplate": False,
    }
    return Item(f"{SPACE}.{kind}", f"{vm.id}/{place.controller}/{place.number}", properties)
