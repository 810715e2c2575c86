from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from vmproxy.errors import UsageError
from vmproxy.seed import keys
from vmproxy.site.model import Ssh
from vmproxy.transport import ssh


def site(identity: Path | None = None) -> tuple[str, Ssh]:
    return "a", Ssh.model_validate({"identity": {"file": identity} if identity else None})


def test_a_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    first = keys.identity(*site(), folder=tmp_path)
    assert first == keys.identity(*site(), folder=tmp_path)
    assert first.private.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["id_ed25519"]


def test_the_ssh_library_reads_the_key_and_finds_the_same_public_half(tmp_path: Path) -> None:
    identity = keys.identity(*site(), folder=tmp_path)
    loaded = paramiko.Ed25519Key.from_private_key_file(str(identity.private))
    assert identity.public == f"{loaded.get_name()} {loaded.get_base64()}"


def test_two_at_once_end_up_with_one_key(tmp_path: Path) -> None:
    found: list[keys.Identity] = []
    threads = [
        threading.Thread(target=lambda: found.append(keys.identity(*site(), folder=tmp_path)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({identity.public for identity in found}) == 1


@pytest.mark.parametrize(
    "form", [PrivateFormat.OpenSSH, PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8]
)
def test_the_key_of_the_site_file_is_used(tmp_path: Path, form: PrivateFormat) -> None:
    path = tmp_path / "mine"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    identity = keys.identity(*site(path), folder=tmp_path / "unused")
    assert identity.private == path
    assert identity.public.startswith("ecdsa-sha2-nistp256 AAAA")


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8])
@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "ecdsa", "rsa"],
)
def test_what_is_taken_as_a_key_can_log_in(tmp_path: Path, key: Any, form: PrivateFormat) -> None:
    path = tmp_path / "mine"
    path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    identity = keys.identity(*site(path))
    loaded = ssh.private_key(identity.openssh())
    assert f"{loaded.get_name()} {loaded.get_base64()}" == identity.public
    assert loaded.can_sign()


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    key = x25519.X25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UsageError, match="not Ed25519, ECDSA or RSA"):
        keys.identity(*site(path))


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8])
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path, form: PrivateFormat) -> None:
    path = tmp_path / "mine"
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, form, BestAvailableEncryption(b"secret")
    )
    path.write_bytes(locked)
    with pytest.raises(UsageError, match="passphrase"):
        keys.identity(*site(path))


@pytest.mark.parametrize("content", ["", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"])
def test_what_is_no_private_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine"
    path.write_text(content)
    with pytest.raises(UsageError, match="not a private key") as caught:
        keys.identity(*site(path))
    assert "AAAA" not in caught.value.message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none"):
        keys.identity(*site(tmp_path / "none"))


def test_new_key_pairs_differ() -> None:
    assert keys.new_key_pair() != keys.new_key_pair()
