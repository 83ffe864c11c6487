"""Certificate files: what they hold, and what is wrong with them before a client sees it.

`cryptography` reads them, and is imported only when there is one to read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from attrs import frozen

from trio_wsb.config.tls import Certificate
from trio_wsb.routing.request import normal_host

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as Leaf

EXPIRES_SOON: Final = timedelta(days=14)
"""From when on a warning says that a certificate is to be renewed."""

_HOST = re.compile(r"(?:\*\.)?[a-z0-9_.:-]+")


class CertificateFileError(ValueError):
    """A certificate or key file cannot be used; `key` says which, `hint` what would be right."""

    def __init__(self, key: Literal["certFile", "keyFile"], message: str, hint: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message
        self.hint = hint


@frozen
class CertificateFacts:
    """What a usable pair of files holds; nothing of the key."""

    names: tuple[str, ...]
    """Hosts and addresses that it is for, in lower case; wildcards begin with ``*.``."""
    common_name: str
    """Of its subject; "" without one."""
    not_before: datetime
    not_after: datetime
    digest: bytes
    """SHA-256 of both files: the same means that nothing has changed."""
    has_san: bool = True
    """Whether it has a subjectAltName, without which browsers refuse it (RFC 6125 section 6.4.4)."""


def read_certificate(certificate: Certificate, read: Callable[[str], bytes]) -> CertificateFacts:
    """Return what the files of `certificate` hold.

    Args:
      certificate: names the files.
      read: returns the content of a file; raises OSError, or ValueError with a message and a hint after a semicolon.

    Raises:
      CertificateFileError: a file cannot be read, holds something else, or the two do not belong together.

    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    cert_data = _content(read, "certFile", certificate.cert_file)
    key_data = _content(read, "keyFile", certificate.key_file)
    try:
        leaf = x509.load_pem_x509_certificates(cert_data)[0]
        public = leaf.public_key()
        facts = _facts(leaf, cert_data, key_data)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateFileError(
            "certFile",
            f'"{certificate.cert_file}" has no certificate in PEM',
            "write the certificate first, then those of its issuers",
        ) from None
    try:
        key = load_pem_private_key(key_data, None)
    except TypeError:
        hint = "write the key without a password: openssl pkey -in KEY -out NEW"
        raise CertificateFileError("keyFile", f'"{certificate.key_file}" is encrypted', hint) from None
    except (ValueError, UnsupportedAlgorithm):
        message = f'"{certificate.key_file}" has no private key in PEM'
        raise CertificateFileError(
            "keyFile", message, "write the key that the certificate was made for"
        ) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != public.public_bytes(*form):
        message = (
            f'"{certificate.key_file}" is not the key of the first certificate in "{certificate.cert_file}"'
        )
        hint = "name the key that the certificate was made for, and write the certificate before its issuers'"
        raise CertificateFileError("keyFile", message, hint)
    return facts


def out_of_date(file: str, facts: CertificateFacts, now: datetime) -> tuple[str, str] | None:
    """Return what is wrong with the certificate in `file` for the time `now`, and what is to be done; None if nothing is.

    One that expires soon is out of date already.
    """
    if facts.not_after <= now:
        return f'"{file}" has expired on {facts.not_after:%Y-%m-%d}', "renew it"
    if facts.not_after - now < EXPIRES_SOON:
        return f'"{file}" expires on {facts.not_after:%Y-%m-%d}', "renew it"
    if facts.not_before > now:
        return f'"{file}" is not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC', "look at the clock"
    return None


def has_certificate(data: bytes) -> bool:
    """Whether `data` has certificates in PEM, as a file of authorities must."""
    from cryptography import x509

    try:
        return bool(x509.load_pem_x509_certificates(data))
    except ValueError:
        return False


def _content(read: Callable[[str], bytes], key: Literal["certFile", "keyFile"], path: str) -> bytes:
    hint = "name a PEM file that the daemon may read"
    try:
        return read(path)
    except OSError as error:
        raise CertificateFileError(
            key, f'"{path}" cannot be read: {error.strerror or error}', hint
        ) from error
    except ValueError as error:
        raise CertificateFileError(key, f'"{path}" {str(error).partition(";")[0]}', hint) from error


def _facts(leaf: Leaf, cert_data: bytes, key_data: bytes) -> CertificateFacts:
    from cryptography import x509

    found = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    common_name = str(found[0].value) if found else ""
    names: list[str] = []
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names, has_san = [common_name], False
    else:
        names, has_san = [*san.get_values_for_type(x509.DNSName)], True
        names += map(str, san.get_values_for_type(x509.IPAddress))
    hosts = (name.lower() if ":" in name else normal_host(name) for name in names)
    digest = hashlib.sha256(hashlib.sha256(cert_data).digest() + hashlib.sha256(key_data).digest()).digest()
    return CertificateFacts(
        tuple(dict.fromkeys(host for host in hosts if _HOST.fullmatch(host))),
        common_name,
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        digest,
        has_san,
    )
