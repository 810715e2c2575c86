"""A real Kerberos realm on loopback: MIT's KDC with its own configuration, database and keys."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.winhost.standin import Missing
from vmproxy.util.wait import until

REALM = "CORP.EXAMPLE"
_TOOLS = {
    "krb5kdc": "krb5-kdc",
    "kdb5_util": "krb5-kdc",
    "kadmin.local": "krb5-admin-server",
    "kinit": "krb5-user",
}
_CLIENT = """[libdefaults]
default_realm = {realm}
dns_lookup_realm = false
dns_lookup_kdc = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
{realm} = {{
    kdc = 127.0.0.1:{port}
}}
[domain_realm]
localhost = {realm}
"""
_SERVER = """[kdcdefaults]
kdc_ports = {port}
kdc_tcp_ports = {port}
[realms]
{realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
    supported_enctypes = aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal
}}
[logging]
kdc = FILE:{folder}/kdc.log
"""


@dataclass(frozen=True)
class Realm:
    """A running KDC; `environment` is what a program needs to use it."""

    folder: Path
    environment: Mapping[str, str]

    def add(self, principal: str, password: str) -> None:
        self._admin(f'addprinc -pw "{password}" {principal}')

    def keytab(self, principal: str, name: str = "host.keytab") -> Path:
        """A service's key, as the domain gives it to a host or a service."""
        path = self.folder / name
        self._admin(f"addprinc -randkey {principal}")
        self._admin(f"ktadd -k {path} {principal}")
        return path

    def log_in(self, principal: str, password: str) -> None:
        """`kinit`: put a ticket into the cache that `environment` names."""
        subprocess.run(
            ["kinit", principal],
            input=password.encode() + b"\n",
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
        )

    def log_out(self) -> None:
        Path(self.environment["KRB5CCNAME"].removeprefix("FILE:")).unlink(missing_ok=True)

    def _admin(self, query: str) -> None:
        _run(["kadmin.local", "-r", REALM, "-q", query], self.environment)


def missing() -> str | None:
    """The package that is not there, or None."""
    return next((package for tool, package in _TOOLS.items() if _found(tool) is None), None)


@contextmanager
def realm() -> Iterator[Realm]:
    """A realm of its own; nothing of it is left afterwards."""
    lacking = missing()
    if lacking:
        raise Missing(f"{lacking} is not installed")
    with tempfile.TemporaryDirectory(prefix="winhost-kdc-") as name:
        folder, port = Path(name), _free_port()
        values = {"realm": REALM, "port": port, "folder": folder}
        (folder / "krb5.conf").write_text(_CLIENT.format(**values))
        (folder / "kdc.conf").write_text(_SERVER.format(**values))
        environment = {
            "KRB5_CONFIG": str(folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{folder}/tickets",
            "KRB5RCACHETYPE": "none",
        }
        _run(["kdb5_util", "create", "-s", "-r", REALM, "-P", "master"], environment)
        with _running(port, environment):
            yield Realm(folder, environment)


@contextmanager
def _running(port: int, environment: Mapping[str, str]) -> Iterator[None]:
    command = [str(_found("krb5kdc")), "-n", "-r", REALM]
    daemon = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until("cannot start the KDC", lambda: _answers(port), timeout=10, every=0.05)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def _answers(port: int) -> bool | str:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as exc:
        return str(exc)
    return True


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _found(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    command = [_found(command[0]) or command[0], *command[1:]]
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
