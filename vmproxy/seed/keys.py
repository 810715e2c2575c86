"""The operator's SSH user key, with which vmproxy logs in to its VMs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from vmproxy.errors import UsageError
from vmproxy.site.model import Ssh
from vmproxy.util.paths import state_dir

_OPENSSH = b"-----BEGIN OPENSSH"


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key in OpenSSH format. `public` has no comment and no line end."""

    private: str
    public: str


@dataclass(frozen=True)
class Identity:
    """The private key's file, and the public key as an authorized_keys line."""

    private: Path
    public: str

    def openssh(self) -> str:
        """The private key in OpenSSH format, whatever the file's format. Raises UsageError."""
        return _load(self.private).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def new_key_pair() -> KeyPair:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return KeyPair(private=private.decode(), public=public.decode())


def identity(site: str, ssh: Ssh, *, folder: Path | None = None) -> Identity:
    """The key that the site file names, else the own one of the site of that name, made when there is none.

    `folder` None: the site's folder in vmproxy's state folder.
    """
    if ssh.identity is not None:
        return _read(ssh.identity.file)
    private = (folder or state_dir("ssh", site)) / "id_ed25519"
    if not private.exists():
        _create(private)
    return _read(private)


def _create(path: Path) -> None:
    """Create it atomically; never overwrite a key that another run has just created."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=".key-") as draft:  # mode 0600
        draft.write(new_key_pair().private)
        draft.flush()
        os.fsync(draft.fileno())
        if not path.exists():
            _link(Path(draft.name), path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return


def _read(path: Path) -> Identity:
    line = _load(path).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return Identity(private=path, public=line.decode())


def _load(path: Path) -> Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey:
    try:
        content = path.read_bytes()
        load = load_ssh_private_key if content.startswith(_OPENSSH) else load_pem_private_key
        key = load(content, password=None)
    except OSError as exc:
        raise UsageError(f"cannot read SSH key {path}: {exc.strerror}", hint=_HINT) from exc
    except TypeError as exc:
        raise UsageError(f"cannot use SSH key {path}: it has a passphrase", hint=_HINT) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError(
            f"cannot use SSH key {path}: it is not a private key in a known format", hint=_HINT
        ) from exc
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey):
        raise UsageError(f"cannot use SSH key {path}: it is not Ed25519, ECDSA or RSA", hint=_HINT)
    return key


_HINT = "set ssh.identity.file to a private key without a passphrase, or omit it: vmproxy generates one"
