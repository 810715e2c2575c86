"""The site file that `python -m tests.winhost` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.winhost.__main__ import main, write_site
from tests.winhost.host import Machine, WinHost
from vmproxy.lab.cluster import SERVER
from vmproxy.site.load import load

LAB_SITE = {
    "name": "lab",
    "cluster": {"kubeconfig": "elsewhere", "server": SERVER, "podCIDRs": ["10.244.1.0/24"]},
    "image": {"name": "debian-13"},
    "hosts": [
        {
            "name": "win-01",
            "qemu": {"lab": "lab"},
            "switch": {"name": "br0"},
            "network": {"address": "192.168.100.5/24", "gateway": "192.168.100.1", "podRoutes": "nodes"},
            "actsFor": "win-01",
        }
    ],
}


def test_the_site_file_is_the_labs_with_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab_site, kubeconfig = tmp_path / "lab.yaml", tmp_path / "kubeconfig.yaml"
    YAML().dump(LAB_SITE, lab_site)
    YAML().dump({"clusters": [{"cluster": {"server": "https://127.0.0.1:1"}}]}, kubeconfig)
    folder = tmp_path / "made"
    folder.mkdir()
    with WinHost(Machine(cmdlets=False)) as host:
        written = write_site(folder, host, lab_site=lab_site, kubeconfig=kubeconfig)
        monkeypatch.setenv("WINRM_PASSWORD", host.password)
        (entry,) = load(written).hosts
        assert entry.hyperv is not None
        assert entry.hyperv.endpoint.rstrip("/") == host.endpoint
    assert YAML(typ="safe").load(folder / "kubeconfig")["clusters"][0]["cluster"]["server"] == SERVER
    assert host.password not in written.read_text()
    assert written.stat().st_mode & 0o077 == 0


def test_without_the_lab_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lab", "nosuch"]) == 1
    assert "lab" in capsys.readouterr().err
