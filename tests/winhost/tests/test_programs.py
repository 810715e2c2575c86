"""The programs on the host's PATH, as a script and cmd.exe run them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.winhost import programs
from tests.winhost.programs import curl
from tests.winhost.programs.paths import Refused
from tests.winhost.programs.small import is_sparse
from tests.winhost.tests.asking import windows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Drive C: with a file in it, and the programs of Server 2022."""
    (tmp_path / "C/Data").mkdir(parents=True)
    (tmp_path / "C/Data/File.bin").write_bytes(b"12345678")
    (tmp_path / "acls.json").write_text("{}")
    programs.install(tmp_path / "programs", "2022")
    return tmp_path


class _Files(BaseHTTPRequestHandler):
    """One file, whole or from a place on."""

    def do_GET(self) -> None:  # the name that the library calls
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        found = self.path == "/File.bin"
        content = b"12345678"[start:] if found else b""
        self.send_response((206 if start else 200) if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Range", f"bytes {start}-7/8")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Files) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def _run(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "WINPS_DRIVE_C": str(folder / "C"),
        "WINPS_ACLS": str(folder / "acls.json"),
        "USERDOMAIN": "CORP",
        "USERNAME": "Svc",
        "COMPUTERNAME": "WIN-01",
    }
    command = [str(folder / "programs" / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_the_path_holds_the_programs_and_nothing_else(tmp_path: Path) -> None:
    for version, there in (("2016", False), ("2019", True), ("2025", True)):
        names = os.listdir(programs.install(tmp_path / version, version))
        assert ("curl.exe" in names) == there
        assert {"whoami.exe", "hostname.exe", "icacls.exe", "fsutil.exe", "chcp.com", "route.exe"} <= set(
            names
        )


def test_curl_fetches_to_a_windows_path_and_goes_on_where_it_stopped(folder: Path, server: str) -> None:
    (folder / "C/Data/other.part").write_bytes(b"1234")
    options = ["--fail", "--location", "--silent", "--show-error", "--retry", "3", "--continue-at", "-"]
    target = ["--output", r"c:\DATA\other.part", "--url", f"{server}/File.bin"]
    again = _run(folder, "curl.exe", *options, *target)
    missing = _run(folder, "curl.exe", "-fsSL", "-oC:\\Data\\none", f"{server}/none")
    assert (again.returncode, again.stderr) == (0, "")
    assert (folder / "C/Data/other.part").read_bytes() == b"12345678"
    assert missing.returncode == 22
    assert "404" in missing.stderr


@pytest.mark.parametrize(
    ("version", "arguments"),
    [
        ("2022", ["--etag-save", "x"]),
        ("2022", ["--outp", "x"]),
        ("2022", ["-Z"]),
        ("2022", ["--no-output"]),
        ("2019", ["--fail-with-body"]),
        ("2019", ["--cacert", "C:\\ca.pem"]),
        ("2025", ["-sSo"]),
        ("2025", ["file:///etc/passwd"]),
    ],
)
def test_curl_refuses_what_that_version_lacks(version: str, arguments: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        list(curl.translated(arguments, curl.VERSIONS[version]))
    assert caught.value.code == 2


def test_curl_takes_options_from_its_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.StringIO('# all of it\nurl = "http://h/a\\"b\\\\c"\n\n--retry 3\nfail\n')
    )

    given = list(curl.translated(["--config", "-", "-s"], curl.VERSIONS["2022"]))

    assert given == ["--url", 'http://h/a"b\\c', "--retry", "3", "--fail", "--silent"]


def test_curl_takes_letters_together_and_gives_windows_own_options_to_nobody() -> None:
    given = ["-sSL", "-o", "NUL", "--ssl-no-revoke", "--no-progress-bar", "http://x"]
    translated = list(curl.translated(given, curl.VERSIONS["2025"]))
    assert translated == [
        "--silent", "--show-error", "--location", "--output", "/dev/null", "--no-progress-bar", "http://x",
    ]  # fmt: skip


def test_who_and_where_one_is(folder: Path) -> None:
    assert _run(folder, "whoami.exe").stdout == "corp\\svc\n"
    assert _run(folder, "hostname.exe").stdout == "WIN-01\n"
    assert _run(folder, "chcp.com").stdout == "Active code page: 437\n"
    for name, argument in (
        ("whoami.exe", "/fqdn"),
        ("hostname.exe", "-s"),
        ("chcp.com", "65001"),
        ("route.exe", "print"),
    ):
        refused = _run(folder, name, argument)
        assert refused.returncode != 0
        assert refused.stderr


def test_a_file_is_marked_as_sparse_and_unmarked(folder: Path) -> None:
    file = r"C:\Data\file.bin"
    assert (
        _run(folder, "fsutil.exe", "sparse", "queryflag", file).stdout == "This file is NOT set as sparse\n"
    )
    assert _run(folder, "fsutil.exe", "sparse", "setflag", file).returncode == 0
    assert _run(folder, "fsutil.exe", "sparse", "queryflag", file).stdout == "This file is set as sparse\n"
    assert is_sparse(folder / "C/Data/File.bin")
    assert _run(folder, "fsutil.exe", "sparse", "setflag", file, "0").returncode == 0
    assert not is_sparse(folder / "C/Data/File.bin")
    assert _run(folder, "fsutil.exe", "sparse", "queryflag", r"C:\none").returncode == 1
    assert _run(folder, "fsutil.exe", "volume", "diskfree", "C:").returncode == 1


@pytest.mark.winhost
def test_icacls_and_get_acl_know_the_same_rules(tmp_path: Path) -> None:
    with windows(tmp_path) as host:
        granted, read, unknown, option = host.ask(
            r"New-Item -ItemType Directory C:\Keys | Out-Null; icacls.exe C:\Keys /inheritance:r"
            r" /grant:r '*S-1-5-32-544:(OI)(CI)F' 'SYSTEM:(OI)(CI)(F)' /q | Out-Null; $LASTEXITCODE",
            r'(Get-Acl C:\Keys).Access | ForEach-Object { "$($_.IdentityReference) $($_.FileSystemRights)" }',
            r"icacls.exe C:\Keys /grant 'Nobody:F' 2>$null; $LASTEXITCODE",
            r"icacls.exe C:\Keys /setowner Administrators 2>$null; $LASTEXITCODE",
        )
    assert granted == 0
    assert read == ["BUILTIN\\Administrators FullControl", "NT AUTHORITY\\SYSTEM FullControl"]
    assert (unknown, option) == (1332 % 256, 87)  # an exit code has eight bits here


@pytest.mark.winhost
def test_a_script_runs_the_hosts_programs_and_no_others(tmp_path: Path) -> None:
    with windows(tmp_path) as host:
        who, curl_, other, machine = host.ask(
            "whoami.exe",
            "(Get-Command curl.exe -CommandType Application).Name",
            "wmic.exe os",
            f"& '{Path(sys.executable).name}' --version",
        )
    assert (who, curl_) == ("win-01\\administrator", "curl.exe")
    assert other.id == machine.id == "CommandNotFoundException"
