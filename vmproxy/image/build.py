"""Build the default image from Debian packages: reproducibly, without mounts or a network of its own.

One raw disk: GPT, an EFI system partition with Debian's signed shim and GRUB, and an ext4 root. The
same packages give the same bytes: times are SOURCE_DATE_EPOCH, identifiers come from the recipe.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from vmproxy.errors import ToolFailed, UsageError, VmproxyError
from vmproxy.image import cache
from vmproxy.image.cache import Image
from vmproxy.util import assets
from vmproxy.util.events import Report
from vmproxy.util.run import run

SUITES = {"trixie": "debian-13", "bookworm": "debian-12"}
_PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "dbus",
    "udev",
    "cloud-init",
    "cloud-guest-utils",
    "e2fsprogs",
    "openssh-server",
    "nftables",
    "iptables",
    "conntrack",
    "ipset",
    "iproute2",
    "iputils-ping",
    "kmod",
    "procps",
    "ca-certificates",
    "shim-signed",
    "grub-efi-amd64-signed",
)
_SIGNED = {
    "usr/lib/shim/shimx64.efi.signed": "EFI/BOOT/BOOTX64.EFI",
    "usr/lib/shim/mmx64.efi.signed": "EFI/BOOT/mmx64.efi",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": "EFI/BOOT/grubx64.efi",
}
"""The boot loader files for the boot partition; their packages are then removed from the root."""
_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/lib/udev/hwdb.d/*",  # names of hardware, for display only
    "/usr/lib/udev/hwdb.bin",
    "/usr/lib/modules/*/kernel/drivers/comedi/*",
    "/usr/lib/modules/*/kernel/drivers/infiniband/*",
    "/usr/lib/modules/*/kernel/arch/x86/kvm/*",
)
_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mcopy": "mtools",
    "sfdisk": "fdisk",
    "mke2fs": "e2fsprogs",
}
_BUILDER_VERSION = 3  # increment when this module produces different bytes from the same recipe
_EPOCH = 1_767_225_600  # 2026-01-01: all timestamps in the image
_MIB = 1 << 20
_ESP_START, _ESP_SIZE = 1 * _MIB, 32 * _MIB
_ROOT_START, _ROOT_SIZE = 33 * _MIB, 990 * _MIB
_DISK_SIZE = 1024 * _MIB
_SPACE = 3 << 30


@dataclass(frozen=True)
class Recipe:
    """The inputs of an image. `key` changes with every input except the packages' own versions."""

    suite: str
    setup: str
    grub: str

    @property
    def key(self) -> str:
        parts = (
            _BUILDER_VERSION,
            self.suite,
            self.setup,
            self.grub,
            *_PACKAGES,
            *_SIGNED,
            *_LEFT_OUT,
            str((_ESP_SIZE, _ROOT_SIZE, _DISK_SIZE)),
        )
        return f"{SUITES[self.suite]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"

    def identifier(self, of: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"vmproxy:{self.suite}:{of}"))


def recipe(suite: str) -> Recipe:
    if suite not in SUITES:
        raise UsageError(
            f"cannot build an image of {suite!r}: unknown suite", hint=f"known suites: {', '.join(SUITES)}"
        )
    root = str(uuid.uuid5(uuid.NAMESPACE_URL, f"vmproxy:{suite}:root"))
    return Recipe(suite, assets.text("image/setup.sh"), assets.render("image/grub.cfg.j2", root=root))


def build(suite: str = "trixie", *, report: Report, again: bool = False) -> Image:
    """The image of that suite: from the cache, else built. `again` always builds it.

    Raises UsageError for an unknown suite or missing rights, ToolFailed if a tool fails.
    """
    wanted = recipe(suite)
    found = None if again else cache.find(wanted.key)
    if found is not None:
        return found
    _check()
    with cache.workshop(wanted.key) as work:
        found = None if again else cache.find(wanted.key)
        if found is not None:
            return found
        disk = make_disk(wanted, work, report)
        report("hashing the disk")
        return cache.keep(wanted.key, disk, name=SUITES[suite], origin=f"built {suite}")


def make_disk(wanted: Recipe, work: Path, report: Report) -> Path:
    """Build the raw disk in the folder `work`."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    report(f"installing Debian {wanted.suite} packages (about a minute)")
    tree = _tree(wanted, work, env)
    report("writing the boot partition")
    esp = _boot_partition(wanted, work, env)
    report("writing the root file system")
    root = _root(wanted, tree, work, env)
    return _disk(wanted, esp, root, work)


def _check() -> None:
    if os.geteuid() != 0:
        raise UsageError("cannot build an image: root is needed", hint="run it with sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            raise ToolFailed(f"cannot build an image: {tool} is missing", hint=f"install {package}")
    free = shutil.disk_usage(cache.folder()).free
    if free < _SPACE:
        raise VmproxyError(
            f"cannot build an image: {free >> 20} MiB are free in {cache.folder()}, "
            f"{_SPACE >> 20} MiB are needed",
            hint="free disk space, or set XDG_CACHE_HOME to a larger disk",
        )


def _tree(wanted: Recipe, work: Path, env: Mapping[str, str]) -> Path:
    """The root file system as a tar file, sorted by name: packages by mmdebstrap, then setup.sh inside."""
    tree, setup = work / "tree.tar", work / "setup.sh"
    setup.write_text(wanted.setup)
    _run(
        [
            "mmdebstrap",
            "--variant=apt",
            "--mode=root",
            f"--include={','.join(_PACKAGES)}",
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
            '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"',
            *(f"--customize-hook=copy-out /{source} {quote(str(work))}" for source in _SIGNED),
            f'--customize-hook=install -m 0755 {quote(str(setup))} "$1/setup.sh"',
            '--customize-hook=chroot "$1" sh /setup.sh',
            '--customize-hook=rm "$1/setup.sh"',
            wanted.suite,
            str(tree),
        ],
        env,
    )
    return tree


def _boot_partition(wanted: Recipe, work: Path, env: Mapping[str, str]) -> Path:
    esp, config = work / "esp", work / "grub.cfg"
    config.write_text(wanted.grub)
    os.utime(config, (_EPOCH, _EPOCH))
    _run(
        ["mkfs.vfat", "--invariant", "-C", "-F", "16", "-i", "20260101", "-n", "ESP", esp, _ESP_SIZE >> 10],
        env,
    )
    _run(["mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::EFI/debian"], env)
    for source, target in _SIGNED.items():
        program = work / Path(source).name
        os.utime(program, (_EPOCH, _EPOCH))
        _run(["mcopy", "-m", "-i", esp, program, f"::{target}"], env)
    for target in ("EFI/debian/grub.cfg", "EFI/BOOT/grub.cfg"):
        _run(["mcopy", "-m", "-i", esp, config, f"::{target}"], env)
    return esp


def _root(wanted: Recipe, tree: Path, work: Path, env: Mapping[str, str]) -> Path:
    """Uses the mke2fs of Debian 13, in a chroot of its own: unlike earlier versions, it writes files in the
    order of a tar file and honours SOURCE_DATE_EPOCH."""
    tools = work / "tools"
    packages = "--include=base-files,libc-bin,e2fsprogs,libarchive13t64"
    _run(["mmdebstrap", "--variant=extract", "--mode=root", packages, "trixie", tools], env)
    tree.replace(tools / "tree.tar")
    options = f"hash_seed={wanted.identifier('hash')},root_owner=0:0,lazy_itable_init=1"
    words = [
        "-q",
        "-t",
        "ext4",
        "-F",
        "-L",
        "root",
        "-m",
        "1",
        "-U",
        wanted.identifier("root"),
        "-E",
        options,
    ]
    words += ["-O", "^metadata_csum_seed,^orphan_file", "-d", "/tree.tar", "/root.ext4"]
    _run(["chroot", tools, "/usr/sbin/mke2fs", *words, f"{_ROOT_SIZE >> 10}k"], env)
    root = work / "root.ext4"
    (tools / "root.ext4").replace(root)
    shutil.rmtree(tools)
    return root


def _disk(wanted: Recipe, esp: Path, root: Path, work: Path) -> Path:
    disk = work / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(_DISK_SIZE)
    sector = 512
    table = "\n".join(
        [
            "label: gpt",
            f"label-id: {wanted.identifier('disk')}",
            f"start={_ESP_START // sector}, size={_ESP_SIZE // sector}, type=U, "
            f"uuid={wanted.identifier('esp')}, name=esp",
            f"start={_ROOT_START // sector}, size={_ROOT_SIZE // sector}, type=L, "
            f"uuid={wanted.identifier('partition')}, name=root",
        ]
    )
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk], stdin=table + "\n")
    for part, start in ((esp, _ESP_START), (root, _ROOT_START)):
        run(
            [
                "dd",
                f"if={part}",
                f"of={disk}",
                "bs=1M",
                f"seek={start // _MIB}",
                "conv=notrunc,sparse",
                "status=none",
            ]
        )
        part.unlink()
    return disk


def _run(command: Sequence[object], env: Mapping[str, str]) -> None:
    run([str(word) for word in command], env={**env, "PATH": env.get("PATH", "") + ":/usr/sbin:/sbin"})
