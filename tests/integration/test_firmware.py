"""The built image under firmware that lets only signed programs start, as Hyper-V's does."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmproxy import image, seed
from vmproxy.hosts.linux.accel import accelerator
from vmproxy.model.topology import compile_site
from vmproxy.site.model import Site
from vmproxy.util import wait

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("firmware")]

_OVMF = Path("/usr/share/OVMF")
MAC = "00:15:5d:00:00:07"
_SECONDS = 600.0
TELL = """#cloud-config
bootcmd:
- printf 'secure-boot=%s\\n' $(od -An -j4 -tu1 /sys/firmware/efi/efivars/SecureBoot-*) > /dev/ttyS0
- printf 'lockdown=%s\\n' "$(cat /sys/kernel/security/lockdown)" > /dev/ttyS0
- echo 'all-told' > /dev/ttyS0
"""


def seed_file(folder: Path) -> Path:
    custom, made = folder / "tell.yaml", folder / "seed.iso"
    custom.write_text(TELL)
    network = {"address": "10.0.2.15/24", "gateway": "10.0.2.2"}
    site = Site.model_validate(
        {
            "name": "firmware",
            "cloudInit": {"userData": str(custom)},
            "hosts": [{"name": "vm", "qemu": {}, "network": network}],
        }
    )
    topology, key = compile_site(site), seed.new_host_key()
    spec = seed.spec(topology.members[0].vm, topology.cloud_init, user_key=key.public, mac=MAC)
    made.write_bytes(seed.build(spec, host_key=key))
    return made


def command(folder: Path, disk: Path) -> list[str]:
    accel, cpu = accelerator()
    variables = folder / "variables.fd"
    shutil.copyfile(_OVMF / "OVMF_VARS_4M.ms.fd", variables)
    flash = "if=pflash,format=raw"
    return [
        "qemu-system-x86_64",
        *("-machine", "q35,smm=on", "-accel", accel, "-cpu", cpu, "-smp", "2", "-m", "512M"),
        *("-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-drive", f"{flash},readonly=on,file={_OVMF / 'OVMF_CODE_4M.ms.fd'}"),
        *("-drive", f"{flash},file={variables}"),
        *("-drive", f"if=virtio,format=raw,snapshot=on,file={disk}"),
        *("-drive", f"if=virtio,format=raw,readonly=on,file={seed_file(folder)}"),
        *("-nic", f"user,restrict=on,model=virtio-net-pci,mac={MAC}"),
        *("-serial", f"file:{folder / 'console.log'}"),
    ]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the guest tells of itself on its console."""
    folder = tmp_path_factory.mktemp("firmware")
    disk = image.build("trixie", report=print).raw
    process = subprocess.Popen(command(folder, disk), stderr=subprocess.PIPE, text=True)
    log = folder / "console.log"

    def told() -> tuple[str] | str:
        text = log.read_text(errors="replace") if log.exists() else ""
        if process.poll() is not None:
            raise AssertionError(f"QEMU ended: {process.communicate()[1]}\n{text[-2000:]}")
        return (text,) if "all-told" in text else text[-500:]

    try:
        yield wait.until("the guest's words", told, timeout=_SECONDS)[0]
    finally:
        process.kill()
        process.communicate()


def test_firmware_that_enforces_secure_boot_starts_shim_grub_and_kernel(console: str) -> None:
    assert "secure-boot=1" in console


def test_the_kernel_knows_it_and_locks_itself_down(console: str) -> None:
    assert "lockdown=none [integrity] confidentiality" in console
