"""Tiny guests: they boot in seconds, greet on COM1, and react to the power button, or not."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from tests.winhost.hyperv.model import VM, Adapter, Memory, hyperv
from tests.winhost.hyperv.storage import HardDisk, Place, Storage
from tests.winhost.state import Host

GREETING = "tiny guest login: "

# rsi: text. Each character goes to COM1 (0x3f8) once its transmitter (0x3fd, bit 5) is free.
_PRINT = bytes.fromhex(
    "66bafd03"
    "ec"
    "a820"
    "74f7"  # wait: mov dx,0x3fd; in al,dx; test al,0x20; jz wait
    "ac"
    "84c0"
    "7407"  # lodsb; test al,al; jz done
    "66baf803"
    "ee"
    "ebe9"  # mov dx,0x3f8; out dx,al; jmp wait
)
# ACPI's fixed hardware of q35 is at 0x600: enable the power button, wait for it, enter S5.
_OBEY = bytes.fromhex(
    "66ba0206"
    "66b80001"
    "66ef"  # mov dx,0x602; mov ax,0x100; out dx,ax
    "f4"
    "66ba0006"
    "66ed"
    "f6c401"
    "74f4"  # again: hlt; mov dx,0x600; in ax,dx; test ah,1; jz again
    "66ba0406"
    "66b80020"
    "66ef"  # mov dx,0x604; mov ax,0x2000; out dx,ax
)
_IGNORE = bytes.fromhex("f4ebfd")  # again: hlt; jmp again


def efi_program(*, obeys: bool, greeting: str = GREETING) -> bytes:
    """A UEFI application, as PE32+ with one section."""
    tail = _OBEY + _IGNORE if obeys else _IGNORE
    code = b"\x48\x8d\x35" + struct.pack("<i", len(_PRINT) + len(tail)) + _PRINT + tail
    return _headers() + (code + greeting.encode() + b"\r\n\0").ljust(512, b"\0")


def _headers() -> bytes:
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, 512, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIII", 0, 0x1000, 512, 0, 0, 0, 0, 0, 0, 0, 0x2000, 512, 0)
    optional += struct.pack("<HHQQQQII", 10, 0, 0x10000, 0x1000, 0, 0, 0, 16) + bytes(128)
    section = b".text\0\0\0" + struct.pack("<IIIIIIHHI", 512, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    return (dos + coff + optional + section).ljust(512, b"\0")


def efi_disk(target: Path, work: Path, *, obeys: bool = True, kind: str = "vhdx") -> Path:
    """A disk that firmware boots the program from: a FAT file system without partitions."""
    program, raw = work / "boot.efi", work / "guest.raw"
    program.write_bytes(efi_program(obeys=obeys))
    raw.write_bytes(bytes(8 << 20))
    subprocess.run(["mformat", "-i", raw, "::"], check=True)
    subprocess.run(["mmd", "-i", raw, "::/EFI", "::/EFI/BOOT"], check=True)
    subprocess.run(["mcopy", "-i", raw, program, "::/EFI/BOOT/BOOTX64.EFI"], check=True)
    subprocess.run(["qemu-img", "convert", "-O", kind, raw, target], check=True)
    return target


def machine_with(host: Host, work: Path, *, obeys: bool = True, name: str = "tiny") -> VM:
    """Of generation 2, switched off, with the guest's disk, COM1 and an adapter on the host's one switch."""
    made = VM(name, 2, rf"C:\{name}", Memory(256 << 20))
    made.com_ports[1] = rf"\\.\pipe\{name}-com1"
    (switch,) = hyperv(host).switches.values()
    made.adapters.append(Adapter(made.id, "Network Adapter", switch.id))
    efi_disk(host.local(rf"C:\{name}.vhdx"), work, obeys=obeys)
    host.part(Storage).hard_disks.append(HardDisk(made.id, Place("SCSI", 0, 0), rf"C:\{name}.vhdx"))
    hyperv(host).vms[made.id] = made
    return made
