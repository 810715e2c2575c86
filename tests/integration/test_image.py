"""Images for real: built twice to the same bytes, custom ones, and one that does not take the seed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.world import World
from vmproxy import image
from vmproxy.image import cache
from vmproxy.image.build import make_disk, recipe

pytestmark = pytest.mark.lab

ROOT_OFFSET = 33 << 20


def inside(disk: Path, command: str, *, write: bool = False) -> str:
    words = ["debugfs", *(["-w"] if write else []), "-R", command, f"{disk}?offset={ROOT_OFFSET}"]
    return subprocess.run(words, text=True, capture_output=True, check=True).stdout


def test_the_same_packages_give_the_same_bytes(tmp_path: Path) -> None:
    first = image.build("trixie", report=print)
    with cache.workshop("again") as work:
        again = make_disk(recipe("trixie"), work, print)
        same = subprocess.run(["cmp", first.raw, again], check=False).returncode == 0
    assert same, "built twice, the raw disks differ"


def test_it_has_what_hyper_v_and_kube_proxy_need_and_no_keys() -> None:
    disk = image.build("trixie", report=print).raw
    assert "nft" in inside(disk, "ls /usr/sbin")
    assert "ssh_host" not in inside(disk, "ls /etc/ssh")
    assert inside(disk, "cat /etc/machine-id") == ""
    modules = inside(disk, "cat /etc/initramfs-tools/modules")
    assert {"hv_vmbus", "hv_storvsc", "hv_netvsc", "virtio_net"} <= set(modules.split())
    boot = ["mdir", "-b", "-i", f"{disk}@@1M", "::/EFI/BOOT"]
    listed = subprocess.run(boot, text=True, capture_output=True, check=True).stdout.upper()
    assert "BOOTX64.EFI" in listed
    assert "GRUBX64.EFI" in listed
    grub = ["mtype", "-i", f"{disk}@@1M", "::/EFI/debian/grub.cfg"]
    config = subprocess.run(grub, text=True, capture_output=True, check=True).stdout
    assert {"no_timer_check", "panic=10"} <= set(config.split())


def in_the_initramfs(disk: Path, folder: Path) -> set[str]:
    """The names of its first archive, which is not packed, as the modules in it are by themselves."""
    listed = inside(disk, "ls -p /boot").splitlines()
    (name,) = [line.split("/")[5] for line in listed if "/initrd.img-" in line]
    inside(disk, f"dump /boot/{name} {folder / name}")
    raw, position, names = (folder / name).read_bytes(), 0, set[str]()
    while raw[position : position + 6] == b"070701":
        size, length = (int(raw[position + at : position + at + 8], 16) for at in (54, 94))
        names.add(raw[position + 110 : position + 109 + length].decode())
        position = -(-(position + 110 + length) // 4) * 4
        position = -(-(position + size) // 4) * 4
    return names


def test_the_initramfs_has_the_drivers_of_both_hypervisors_and_no_others(tmp_path: Path) -> None:
    disk = image.build("trixie", report=print).raw
    files = {Path(name).name.removesuffix(".xz") for name in in_the_initramfs(disk, tmp_path)}
    modules = {name.removesuffix(".ko") for name in files if name.endswith(".ko")}
    hyperv = {"hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils", "hyperv-keyboard"}
    assert hyperv | {"virtio_blk", "virtio_scsi", "virtio_net", "sd_mod", "sr_mod"} <= modules
    assert not {"ahci", "kvm", "dm-mod", "usbcore"} & modules


def test_nothing_checks_or_remounts_the_root_and_idle_units_are_masked() -> None:
    disk = image.build("trixie", report=print).raw
    entries = [line for line in inside(disk, "cat /etc/fstab").splitlines() if not line.startswith("#")]
    assert entries == []
    units = inside(disk, "ls -p /etc/systemd/system")
    for unit in ("systemd-journal-flush.service", "systemd-tpm2-setup.service", "apt-daily.timer"):
        assert f"/{unit}/" in units
        assert "/dev/null" in inside(disk, f"stat /etc/systemd/system/{unit}")
    grub = ["mtype", "-i", f"{disk}@@1M", "::/EFI/debian/grub.cfg"]
    config = subprocess.run(grub, text=True, capture_output=True, check=True).stdout
    assert {"rw", "rootflags=noatime,errors=remount-ro", "net.ifnames=0"} <= set(config.split())


@pytest.mark.vm("Debian 12's kernel, initramfs and boot loader")
def test_debian_12_works_too_and_the_users_cloud_config_is_merged(world: World) -> None:
    custom = world.folder / "mine.yaml"
    custom.write_text(
        "#cloud-config\n"
        "write_files:\n- {path: /etc/mine, content: {{ host | tojson }}}\n"
        "runcmd:\n- [touch, /var/lib/ran]\n"
    )
    world.change(image={"name": "debian-12"}, cloudInit={"userData": str(custom)})
    without = world.vmproxy("apply")
    assert without.code == 3
    assert "recreate" in without.out
    world.apply("--yes")
    assert "bookworm" in world.guest("cat /etc/os-release")
    assert world.guest("cat /etc/mine") == "win-01"
    world.guest("test -e /var/lib/ran")
    assert world.drift() == []
    assert world.curl("web-pods") in {"pod-1", "pod-2"}


def test_a_name_server_of_the_site_file_starts_the_resolver_and_without_one_it_is_off(settled: World) -> None:
    world = settled
    assert "inactive" in world.guest("systemctl is-active systemd-resolved || true")
    world.change_network(dns=["192.168.100.9"])
    world.apply("--yes")
    assert world.guest("systemctl is-active systemd-resolved").strip() == "active"
    assert "192.168.100.9" in world.guest("resolvectl dns eth0")
    assert "127.0.0.53" in world.guest("cat /etc/resolv.conf")
    assert world.drift() == []


def test_a_cloud_config_of_one_s_own_runs_with_all_its_modules(settled: World) -> None:
    world, custom = settled, settled.folder / "all.yaml"
    custom.write_text(
        "#cloud-config\n"
        "bootcmd:\n- [touch, /var/lib/boot-ran]\n"
        "write_files:\n- {path: /etc/mine, content: mine, defer: true}\n"
        "timezone: Europe/Prague\n"
        "groups: [operators]\n"
        "users:\n- {name: ops, groups: operators, lock_passwd: true}\n"
        "ntp: {enabled: true, ntp_client: systemd-timesyncd, servers: [192.168.100.9]}\n"
        "runcmd:\n- [touch, /var/lib/ran]\n"
    )
    world.change(cloudInit={"userData": str(custom)})
    world.apply("--yes")
    status = json.loads(world.guest("cloud-init status --wait --format json || true"))
    assert (status["status"], status["errors"], status["recoverable_errors"]) == ("done", [], {})
    assert world.guest("ls /var/lib/boot-ran /var/lib/ran && cat /etc/mine").endswith("mine")
    assert "operators" in world.guest("id ops")
    assert world.guest("readlink /etc/localtime").strip().endswith("Europe/Prague")
    assert "192.168.100.9" in world.guest("cat /etc/systemd/timesyncd.conf.d/cloud-init.conf")
    assert world.drift() == []


def test_an_image_that_does_not_take_the_seed_is_found_out_with_the_console_s_words(settled: World) -> None:
    world, deaf = settled, settled.folder / "deaf.img"
    shutil.copyfile(image.build("trixie", report=print).raw, deaf)
    inside(deaf, "write /dev/null /etc/cloud/cloud-init.disabled", write=True)
    world.change(image={"path": str(deaf)}, defaults={"vm": {"bootTimeout": "20s"}})
    ran = world.vmproxy("apply", "--yes")
    assert ran.code == 1
    assert ran.err.count("error:") == 1
    assert "SSH of VM vmproxy-it-win-01" in ran.err
    assert "seed" in ran.err
    assert "console: " in ran.err
    assert "10.96" not in world.look_in("host", "ip", "route")
