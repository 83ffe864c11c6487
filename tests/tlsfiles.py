"""Certificates for tests, made on the spot."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.now(UTC)


@frozen
class Files:
    """A certificate and its key in files."""

    cert: Path
    key: Path

    @property
    def section(self) -> dict[str, str]:
        """As a configuration names them."""
        return {"certFile": str(self.cert), "keyFile": str(self.key)}


class Authority:
    """An authority, and the certificates that it issues, in files below `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str) -> Files:
        """Issue a certificate for `hosts`, in files called `name`; again means renewed."""
        issued = self.ca.issue_cert(*hosts)
        files = Files(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        files.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        files.key.write_bytes(issued.private_key_pem.bytes())
        return files

    def client(self, **options: Any) -> ssl.SSLContext:
        """Return a client's context that trusts this authority; `shows` are the files of its own certificate."""
        shows: Files | None = options.pop("shows", None)
        context = ssl.create_default_context(cafile=str(self.file))
        if shows is not None:
            context.load_cert_chain(shows.cert, shows.key)
        for option, value in options.items():
            setattr(context, option, value)
        return context


def self_signed(
    folder: Path,
    name: str,
    *,
    common_name: str = "old.test",
    san: tuple[str, ...] | None = (),
    begins: timedelta = timedelta(days=-1),
    ends: timedelta = timedelta(days=1),
    password: bytes | None = None,
) -> Files:
    """Write a certificate that is as odd as the arguments say; `san` None leaves the subjectAltName out."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begins)
        .not_valid_after(NOW + ends)
    )
    if san is not None:
        names = [x509.DNSName(each) for each in san or (common_name,)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password)
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    files.cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    )
    return files
