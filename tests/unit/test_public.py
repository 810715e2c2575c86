"""The names that other programs may use."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import vmproxy
from vmproxy import api
from vmproxy.errors import UsageError, VmproxyError

SITE = """
name: plant-a
image: {name: debian-13}
hosts:
  - name: win-01
    hyperv: {endpoint: https://win-01.example:5986, auth: ntlm, username: x, password: {env: P}}
    switch: {name: External}
    network: {address: 192.168.10.5/24, gateway: 192.168.10.1}
"""


def test_the_public_names_are_those_of_the_library_and_its_errors() -> None:
    defined = {name for name, value in vars(api).items() if getattr(value, "__module__", "") == "vmproxy.api"}
    public = {name for name in defined if not name.startswith("_") and name != "T"}
    assert {name for name in vmproxy.__all__ if name != "VmproxyError"} == public
    assert vmproxy.VmproxyError is VmproxyError
    assert all(getattr(vmproxy, name) is getattr(api, name) for name in public)
    assert all(inspect.getdoc(getattr(api, name)) for name in public)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vmproxy.nothing  # noqa: B018


def test_importing_the_package_alone_loads_none_of_it() -> None:
    code = "import sys, vmproxy; print(sorted(name for name in sys.modules if name.startswith('vmproxy')))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['vmproxy']"


def test_a_site_is_loaded_with_the_hosts_that_were_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    assert [member.name for member in vmproxy.load(file).members] == ["win-01"]
    with pytest.raises(UsageError, match="no host named win-02"):
        vmproxy.load(file, ["win-02"])


def test_an_error_of_a_host_stands_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    monkeypatch.delenv("P", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    ((host, result),) = vmproxy.plan(vmproxy.load(file))
    assert host == "win-01"
    assert isinstance(result, VmproxyError)
