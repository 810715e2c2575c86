"""The lab's certificate authority, and the certificates and keys that it issues."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = timedelta(days=3650)  # nothing renews them: longer than any lab is kept
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Pki:
    """Files NAME.crt and NAME.key in one folder; each created once and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def certificate_file(self, name: str) -> Path:
        return self._folder / f"{name}.crt"

    def key_file(self, name: str) -> Path:
        return self._folder / f"{name}.key"

    def make(self, *, server_names: tuple[str, ...]) -> None:
        """The CA, the certificates of the API server, the administrator and the controllers, and the signing
        key."""
        if not self.key_file("service-account").exists():
            self._make_first(server_names)

    def issue_once(self, name: str, common_name: str) -> None:
        if not self.certificate_file(name).exists():
            self._issue(name, common_name)

    def _make_first(self, server_names: tuple[str, ...]) -> None:
        self._authority()
        self._issue("apiserver", "kube-apiserver", names=server_names)
        self._issue("admin", "vmproxy-lab-admin", group="system:masters")
        self._issue("controller-manager", "system:kube-controller-manager")
        self._signing_key("service-account")

    def _authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmproxy lab")])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._write("ca", key, certificate)

    def _issue(self, name: str, common_name: str, *, group: str = "", names: tuple[str, ...] = ()) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.certificate_file("ca").read_bytes())
        signer = load_pem_private_key(self.key_file("ca").read_bytes(), password=None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        subject += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(x509.Name(subject), authority.subject, key)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(names)), critical=False)
        self._write(name, key, builder.sign(signer, hashes.SHA256()))

    def _signing_key(self, name: str) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self._folder / f"{name}.pub").write_bytes(public)
        _write_key(self.key_file(name), key)

    def _write(self, name: str, key: Key, certificate: x509.Certificate) -> None:
        _write_key(self.key_file(name), key)
        self.certificate_file(name).write_bytes(certificate.public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )


def _names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write_key(path: Path, key: Key) -> None:
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    part.replace(path)
