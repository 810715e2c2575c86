from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from vmproxy.errors import UsageError
from vmproxy.hosts.hyperv.login import login
from vmproxy.site.model import Hyperv
from vmproxy.transport.winrm import Login, WinRM


def about(**changes: object) -> Hyperv:
    known = {"endpoint": "https://win-01:5986", "username": r"CORP\svc", "password": {"env": "VMPROXY_TEST"}}
    return Hyperv.model_validate({**known, **changes})


def test_a_password_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMPROXY_TEST", "s3cret")
    found = login(about(), "win-01")
    assert (found.auth, found.username, found.password) == ("ntlm", r"CORP\svc", "s3cret")
    assert "s3cret" not in repr(found)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMPROXY_TEST", raising=False)
    with pytest.raises(UsageError, match="the variable VMPROXY_TEST is not set"):
        login(about(), "win-01")


def test_a_password_file_ends_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret with space \n")
    assert login(about(password={"file": str(file)}), "win-01").password == "s3cret with space "


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_password_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "password"
    file.write_text("s3crét€\r\n", encoding=encoding)
    assert login(about(password={"file": str(file)}), "win-01").password == "s3crét€"


@pytest.mark.parametrize(
    ("written", "reached"),
    [
        ("https://win-01:443/wsman", "https://win-01:443/wsman"),
        ("http://win-01:80", "http://win-01:80/wsman"),
        ("https://win-01", "https://win-01:5986/wsman"),
        ("http://[2001:db8::1]/", "http://[2001:db8::1]:5985/wsman"),
        ("HTTPS://WIN-01:443", "https://win-01:443/wsman"),
    ],
)
def test_the_port_of_an_endpoint_is_the_one_that_is_written(written: str, reached: str) -> None:
    endpoint = about(endpoint=written).endpoint
    assert WinRM(endpoint, Login("ntlm", "me", "x")).endpoint == reached


@pytest.mark.parametrize("written", ["win-01:5986", "ftp://win-01", "https://", 5986, "https://win-01:99999"])
def test_an_endpoint_that_is_no_url_is_a_mistake(written: object) -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        about(endpoint=written)


@pytest.mark.parametrize(
    ("folder", "why"),
    [("C:\\" + "x" * 130, "at most 120"), (r"c:\ClusterStorage\Volume1\vmproxy", "Cluster Shared Volume")],
)
def test_a_folder_that_cannot_work_is_a_mistake(folder: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        about(directory=folder)


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere: No such file"):
        login(about(password={"file": str(tmp_path / "nowhere")}), "win-01")


def test_a_certificate_needs_no_password(tmp_path: Path) -> None:
    files = {"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    for file in files.values():
        Path(file).touch()
    found = login(about(auth="certificate", username=None, password=None, **files), "win-01")
    assert (found.certificate, found.key, found.password) == (*files.values(), None)


@pytest.mark.parametrize("key", ["ca", "certificate", "key"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere: No such file") as caught:
        login(about(**{key: str(tmp_path / "nowhere")}), "win-01")
    assert caught.value.hint == f"see hyperv.{key}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_byte_order_mark_is_no_part_of_the_password(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "password"
    file.write_bytes("s3crät\r\n".encode(encoding))
    assert login(about(password={"file": str(file)}), "win-01").password == "s3crät"
