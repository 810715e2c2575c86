from __future__ import annotations

from pathlib import Path

import pytest

from vmproxy.errors import UsageError
from vmproxy.hosts.hyperv.login import login
from vmproxy.site.model import Hyperv


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
